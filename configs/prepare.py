# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Raw logs and item tables of any size become one prepared data set.

python -m rfrec.launch.prepare --config=configs/prepare.py:amazon2023 \
  --config.log.path='reviews.jsonl.gz' --config.table.path='meta.jsonl.gz' \
  --workdir=data/instruments

Seconds for 10^6 interactions on 2 CPU cores. Variants:
  (default)   columns user_id, item_id, timestamp; any format
  amazon2014  5-core reviews of Amazon 2014 and its metadata (Python literals)
  amazon2018  reviews and metadata of Amazon 2018 (JSON lines)
  amazon2023  reviews and metadata of Amazon 2023 (JSON lines)
  ml100k      MovieLens-100K: u.data and u.item
  ml1m        MovieLens-1M and 10M: ratings.dat and movies.dat
  movielens   MovieLens 20M, 25M, 32M and latest: ratings.csv and movies.csv
  recbole     atomic files of RecBole: .inter and .item
  mmrec       .inter of MMRec with its own split and row numbers
  yelp        yelp_academic_dataset_review.json and ..._business.json
  steam       reviews of Steam as Python literals
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines import options, prepare

OPTIONS = prepare.Prepare


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = options.make_config(OPTIONS)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _amazon(config: ConfigDict, user: str, item: str, time: str, rating: str) -> None:
    config.log.update(user=user, item=item, time=time, rating=rating, format="jsonl")
    config.table.update(id=item, columns=("title",), format="jsonl")
    config.clean.update(user_core=5, item_core=5, repeats="first")


def _amazon2014(config: ConfigDict) -> None:
    _amazon(config, "reviewerID", "asin", "unixReviewTime", "overall")
    config.table.format = "python"
    config.table.columns = ("title", "brand", "categories", "description")


def _amazon2018(config: ConfigDict) -> None:
    _amazon(config, "reviewerID", "asin", "unixReviewTime", "overall")
    config.table.columns = ("title", "brand", "category", "description")


def _amazon2023(config: ConfigDict) -> None:
    _amazon(config, "user_id", "parent_asin", "timestamp", "rating")
    config.table.columns = ("title", "store", "categories", "description")


def _ml100k(config: ConfigDict) -> None:
    names = ("user_id", "item_id", "rating", "timestamp")
    config.log.update(header=names, rating="rating", format="text")
    config.table.update(
        header=("item_id", "title", "released", *(f"c{n}" for n in range(21))),
        columns=("title",),
        delimiter="|",
        encoding="latin-1",
        format="text",
    )


def _ml1m(config: ConfigDict) -> None:
    config.log.update(
        header=("user_id", "item_id", "rating", "timestamp"), rating="rating"
    )
    config.table.update(
        header=("item_id", "title", "genres"),
        columns=("title", "genres"),
        encoding="latin-1",
    )


def _movielens(config: ConfigDict) -> None:
    config.log.update(user="userId", item="movieId", rating="rating")
    config.table.update(id="movieId", columns=("title", "genres"))


def _recbole(config: ConfigDict) -> None:
    config.log.format = config.table.format = "text"


def _mmrec(config: ConfigDict) -> None:
    config.log.update(user="userID", item="itemID", label="x_label", time=None)
    config.split.kind = "label"
    config.table.update(id="itemID", rows="id")


def _yelp(config: ConfigDict) -> None:
    config.log.update(item="business_id", time="date", rating="stars", format="jsonl")
    config.table.update(
        id="business_id", columns=("name", "categories", "city"), format="jsonl"
    )
    config.clean.update(user_core=5, item_core=5)


def _steam(config: ConfigDict) -> None:
    config.log.update(user="username", item="product_id", time="date", format="python")
    config.table.update(id="id", columns=("title", "genres"), format="python")
    config.clean.update(user_core=5, item_core=5)


VARIANTS = {
    "": _default,
    "amazon2014": _amazon2014,
    "amazon2018": _amazon2018,
    "amazon2023": _amazon2023,
    "ml100k": _ml100k,
    "ml1m": _ml1m,
    "movielens": _movielens,
    "recbole": _recbole,
    "mmrec": _mmrec,
    "yelp": _yelp,
    "steam": _steam,
}
