# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Graph recommendation as a library: GUME, with or without a rectified flow."""

import contextlib
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Integer

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.data.features import fingerprint
from rfrec.data.pairs import PairSplit, Positives, select
from rfrec.evaluation import metrics, ranking, report
from rfrec.graph import builders, training
from rfrec.graph import options as options_lib
from rfrec.graph.model import GUME
from rfrec.graph.options import Options
from rfrec.graph.rf_gume import RFGume
from rfrec.rf import settings as rf_settings
from rfrec.train import running
from rfrec.train.checkpoint import Checkpoints, MemoryCheckpoints
from rfrec.train.state import TrainState

# With the authors' learning rate 1e-3 the loss of small data stays on a plateau.
DEFAULTS = Options(optim=options_lib.Optim(lr=5e-3))
# Share of the pairs that is held out to choose the epoch.
_VALIDATION_SHARE = 0.1
_EVAL_ITEMS = 50
_OPTIONS, _ARRAYS = "graph_recommender.json", "arrays.npz"

# Users and items of the validation pairs.
Pairs = tuple[Integer[np.ndarray, "V"], Integer[np.ndarray, "V"]]


class Embeddings(NamedTuple):
    """Embeddings of all users and of all items."""

    users: Float32[np.ndarray, "U D"]
    items: Float32[np.ndarray, "I D"]


class _Fitted(NamedTuple):
    """Result of a training.

    Attributes:
      train: Training pairs, which `recommend` can leave out.
      embeddings: Embeddings whose inner products are the scores.
      behaviour: Embeddings H; None for a baseline.
      validation: Metrics of the validation pairs.
    """

    train: Positives
    embeddings: Embeddings
    behaviour: Embeddings | None
    validation: dict[str, float]


class GraphRecommender:
    """Recommends items from interactions and item features, by graph convolution.

    GUME (Lin et al., CIKM 2024) learns embeddings of users and items whose inner
    product is the score. With a flow, a rectified flow also generates the behaviour
    embeddings of users and items from their features, which are mixed with GUME's.

    Attributes:
      options: All options, see `rfrec.graph.options.Options`.
      flow: Settings of the flow, see `rfrec.rf.settings.Settings`; None without a flow.
    """

    def __init__(
        self,
        width: int = 64,
        flow: str | None = None,
        *,
        model: str = "gume",
        seed: int = 0,
        rf: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        """Stores the options.

        Args:
          width: Width of all embeddings.
          flow: Preset of the flow: `improved`, `joint` or `plugin`; None trains without
            a flow.
          model: `gume`, or a baseline: `lightgcn` or `popularity`.
          seed: Seed of initial parameters, order, negatives, noise and held-out pairs.
          rf: Settings of the flow that differ from the preset, by name.
          **options: Options by the names of their fields in
            `rfrec.graph.options.Options`, for example `epochs`, `lr`, `ui_layers`,
            `neighbours` or `patience`.

        Raises:
          UserError: An option is unknown, not allowed or cannot be combined.
        """
        shape = {"name": model, "width": width}
        self.options: Options = cfg.override(
            DEFAULTS, seed=seed, model=shape, **options
        )
        if flow is None and rf:
            raise UserError("rf requires a flow: pass flow='improved'")
        self.flow = None if flow is None else rf_settings.resolve(flow, dict(rf or {}))
        options_lib.check(self.options, self.flow, num_features=1)
        self._fitted: _Fitted | None = None

    def __repr__(self) -> str:
        model, flow = self.options.model, ""
        if self.flow is not None:
            flow = f", flow with {self.flow.sampling_steps} steps"
        state = "not fitted"
        if self._fitted is not None:
            users, items = map(len, self._fitted.embeddings)
            state = f"fitted on {users} users and {items} items"
        return f"GraphRecommender({model.name}, width={model.width}{flow}, {state})"

    def fit(
        self,
        users: Integer[np.ndarray, "E"],
        items: Integer[np.ndarray, "E"],
        features: Mapping[str, Float[np.ndarray, "I _"]] | None = None,
        workdir: str | Path | None = None,
        validation: Pairs | None = None,
    ) -> "GraphRecommender":
        """Trains on pairs of user and item, and keeps the best epoch.

        Args:
          users: User of each pair, from 0.
          items: Item of each pair, from 0.
          features: Features of all items by name, such as `text` and `image`; required
            by GUME, not read by the baselines. A row of zeros is an item without a
            vector.
          workdir: Folder for checkpoints and metrics; an interrupted training is
            resumed from it. None keeps everything in memory.
          validation: Users and items of the pairs that choose the epoch; None holds out
            a tenth of the pairs.

        Returns:
          This recommender.

        Raises:
          UserError: Pairs and features do not fit together, or `workdir` belongs to
            another training.
        """
        features = self._check_features(features)
        split = _split(users, items, features, validation, self.options.seed)
        trainer = builders.build_trainer(
            self.options,
            self.flow,
            split,
            features,
            fingerprint=self._fingerprint(split, features),
            top_k=min(_EVAL_ITEMS, split.num_items),
        )
        run = training.Run(trainer)
        state = run.refine(
            trainer.engine.replicate(_train(run, self.options.seed, workdir))
        )
        choice = run.choose(state)
        encoded = jax.device_get(run.encode(state, choice.arguments))
        self._fitted = _Fitted(
            split.train,
            Embeddings(np.asarray(encoded.users), np.asarray(encoded.items)),
            _compute_behaviour(trainer, state),
            run.validate(run.rank(encoded)),
        )
        return self

    @property
    def user_embeddings(self) -> Float32[np.ndarray, "U D"]:
        """Embeddings of the users; a score is the inner product with an item's."""
        return self._check_fitted().embeddings.users

    @property
    def item_embeddings(self) -> Float32[np.ndarray, "I D"]:
        """Embeddings of the items."""
        return self._check_fitted().embeddings.items

    @property
    def validation(self) -> dict[str, float]:
        """Metrics of the validation pairs, such as `recall@20`."""
        return self._check_fitted().validation

    def behaviour_embeddings(self) -> Embeddings:
        """Returns the behaviour embeddings H of users and items.

        With a flow, those of users and items without a training pair are generated.

        Raises:
          UserError: The model is a baseline, or it is not fitted.
        """
        behaviour = self._check_fitted().behaviour
        if behaviour is None:
            raise UserError(
                f"model={self.options.model.name!r} has no behaviour embeddings; use"
                " model='gume'"
            )
        return behaviour

    def recommend(
        self,
        user_rows: Sequence[int] | Integer[np.ndarray, "B"],
        k: int = 20,
        filter_seen: bool = True,
    ) -> tuple[Int32[np.ndarray, "B k"], Float32[np.ndarray, "B k"]]:
        """Returns the items with the highest scores.

        Args:
          user_rows: Rows of users.
          k: Number of items for each user.
          filter_seen: Whether items of the user's training pairs are left out.

        Returns:
          Items, best first, and their scores; -1 and -inf if fewer than k are left.

        Raises:
          UserError: A user does not exist, or k is not between 1 and the number of
            items.
        """
        fitted, rows = self._check_fitted(), np.asarray(user_rows).reshape(-1)
        num_users, num_items = map(len, fitted.embeddings)
        if not 1 <= k <= num_items:
            raise UserError(
                f"k={k}: must be from 1 to {num_items}, the number of items"
            )
        if len(rows) == 0:
            return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
        if rows.min() < 0 or rows.max() >= num_users:
            raise UserError(f"user_rows must be from 0 to {num_users - 1}")
        seen = _take_rows(fitted.train, rows) if filter_seen else None
        lists = ranking.rank_products(
            fitted.embeddings.users[rows], fitted.embeddings.items, k=k, seen=seen
        )
        empty = ~lists.valid
        return (
            np.where(empty, -1, lists.items).astype(np.int32),
            np.where(empty, -np.inf, lists.scores).astype(np.float32),
        )

    def evaluate(
        self, users: Integer[np.ndarray, "E"], items: Integer[np.ndarray, "E"]
    ) -> dict[str, float]:
        """Returns ranking metrics of held-out pairs, as means over their users.

        All items compete except those of the user's training pairs.

        Args:
          users: User of each pair.
          items: Item of each pair.

        Returns:
          `recall@k`, `ndcg@k`, `precision@k` and `map@k` for k = 5, 10, 20 and 50.
        """
        fitted = self._check_fitted()
        num_users, num_items = map(len, fitted.embeddings)
        users, items = _check_pairs(users, items)
        if users.max() >= num_users or items.max() >= num_items:
            raise UserError(
                f"pairs must have users below {num_users} and items below {num_items}"
            )
        wanted = select(users, items, num_users)
        listed, _ = self.recommend(np.arange(num_users), min(_EVAL_ITEMS, num_items))
        matches = metrics.match_rows(listed, wanted.indptr, wanted.items)
        return report.means(matches, report.PAIR_NAMES)

    def save(self, folder: str | Path) -> None:
        """Stores embeddings and options in a folder, which `load` reads.

        Raises:
          UserError: The recommender is not fitted.
        """
        fitted, folder = self._check_fitted(), Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            "indptr": fitted.train.indptr,
            "items": fitted.train.items,
            "user_embeddings": fitted.embeddings.users,
            "item_embeddings": fitted.embeddings.items,
        }
        if fitted.behaviour is not None:
            arrays["user_behaviour"], arrays["item_behaviour"] = fitted.behaviour
        with files.replacing(folder / _ARRAYS) as partial:
            np.savez(partial, **arrays)  # pyright: ignore[reportArgumentType]
        values = {
            "options": dataclasses.asdict(self.options),
            "flow": None if self.flow is None else dataclasses.asdict(self.flow),
            "validation": fitted.validation,
        }
        files.write_json(folder / _OPTIONS, values)

    @classmethod
    def load(cls, folder: str | Path) -> "GraphRecommender":
        """Returns a recommender that `save` stored.

        Raises:
          UserError: The folder contains none, or it is damaged.
        """
        folder = Path(folder).expanduser()
        values = files.read_json(folder / _OPTIONS, "pass a folder written by save()")
        try:
            with np.load(folder / _ARRAYS, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            recommender = cls(seed=values["options"].pop("seed"))
            recommender.options = cfg.override(recommender.options, **values["options"])
            if values["flow"] is not None:
                recommender.flow = cfg.override(
                    rf_settings.Settings(), **values["flow"]
                )
            behaviour = None
            if "user_behaviour" in arrays:
                behaviour = Embeddings(
                    arrays["user_behaviour"], arrays["item_behaviour"]
                )
            recommender._fitted = _Fitted(
                Positives(arrays["indptr"], arrays["items"]),
                Embeddings(arrays["user_embeddings"], arrays["item_embeddings"]),
                behaviour,
                values["validation"],
            )
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{folder} is damaged ({error}): save it again") from error
        return recommender

    def _check_fitted(self) -> _Fitted:
        if self._fitted is None:
            raise UserError("the recommender is not fitted: call fit() first")
        return self._fitted

    def _check_features(
        self, features: Mapping[str, np.ndarray] | None
    ) -> dict[str, Float32[np.ndarray, "I _"]]:
        if self.options.model.name != "gume":
            return {}
        if not features:
            raise UserError(
                "model='gume' requires features; pass features={'text': ...}, or use"
                " model='lightgcn'"
            )
        checked = {name: np.asarray(x, np.float32) for name, x in features.items()}
        for name, x in checked.items():
            if x.ndim != 2 or not np.isfinite(x).all():
                raise UserError(
                    f"features[{name!r}] must be finite numbers of shape [items, width]"
                )
        return checked

    def _fingerprint(self, split: PairSplit, features: builders.Features) -> str:
        """Returns a hash of everything that determines the result of training."""
        flow = None if self.flow is None else dataclasses.asdict(self.flow)
        values = [dataclasses.asdict(self.options), flow, split.fingerprint]
        values += [[name, fingerprint(x)] for name, x in features.items()]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _train(run: training.Run, seed: int, workdir: str | Path | None) -> TrainState:
    """Trains to the end and returns the best state by validation, on the host."""
    trainer, folder, criteria = run.trainer, None, (training.CRITERION,)
    checkpoints: Any = MemoryCheckpoints(highest=criteria)
    if workdir is not None:
        folder = Path(workdir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(folder, highest=criteria)
    template = trainer.init(seed)
    with contextlib.closing(checkpoints):
        running.train(
            template,
            run.program(),
            trainer.schedule,
            engine=trainer.engine,
            checkpoints=checkpoints,
            workdir=folder,
            notes={"data": trainer.fingerprint},
            what="pairs, features or options",
        )
        step = checkpoints.best(training.CRITERION)
        return checkpoints.restore(step, template).state


def _compute_behaviour(
    trainer: training.Trainer, state: TrainState
) -> Embeddings | None:
    """Returns H; with a flow, generated for nodes without a training pair."""
    model, split = trainer.model, trainer.split
    if isinstance(model, RFGume):
        program = jax.jit(model.generated_and_target)
        generated, target = jax.device_get(
            program(state.params, state.model_state, trainer.constants)
        )
        counts = np.bincount(split.train.items, minlength=split.num_items)
        empty = split.train.counts == 0, counts == 0
        return Embeddings(
            *(
                np.where(none[:, None], new, known)
                for none, new, known in zip(empty, generated, target, strict=True)
            )
        )
    if not isinstance(model, GUME):
        return None
    program = jax.jit(lambda *args: model.propagate(*args, interest=False))
    propagated = jax.device_get(program(state.params, trainer.constants))
    return Embeddings(*(side.convolved[:, 0] for side in propagated))


def _check_pairs(
    users: np.ndarray, items: np.ndarray
) -> tuple[Int[np.ndarray, " E"], Int[np.ndarray, " E"]]:
    """Returns pairs in order of user and item, each once."""
    users, items = np.asarray(users), np.asarray(items)
    sound = users.shape == items.shape and users.ndim == 1 and len(users) > 0
    kinds = (np.issubdtype(x.dtype, np.integer) for x in (users, items))
    if not sound or not all(kinds) or min(users.min(), items.min()) < 0:
        raise UserError(
            "users and items must be integer arrays of the same length, not empty, with"
            " values from 0"
        )
    users, items = np.unique(np.stack([users, items]).astype(np.int64), axis=1)
    return users, items


def _split(
    users: np.ndarray,
    items: np.ndarray,
    features: builders.Features,
    validation: Pairs | None,
    seed: int,
) -> PairSplit:
    """Returns training and validation pairs; there are no test pairs."""
    users, items = _check_pairs(users, items)
    if validation is None:
        held = _hold_out(users, items, seed)
        valid_pairs = users[held], items[held]
        users, items = users[~held], items[~held]
    else:
        valid_pairs = _check_pairs(*validation)
    num_users = int(max(users.max(), valid_pairs[0].max(initial=0))) + 1
    num_items = int(max(items.max(), valid_pairs[1].max(initial=0))) + 1
    for name, x in features.items():
        if len(x) < num_items:
            raise UserError(
                f"features[{name!r}] has {len(x)} rows, but the pairs contain item"
                f" {num_items - 1}: pass a row for each item"
            )
    num_items = max([num_items, *map(len, features.values())])
    train = select(users, items, num_users)
    valid = select(*valid_pairs, num_users)
    nothing = np.zeros(0, np.int64)
    return PairSplit(
        train=train,
        valid=valid,
        test=select(nothing, nothing, num_users),
        num_users=num_users,
        num_items=num_items,
        user_ids=tuple(map(str, range(num_users))),
    )


def _hold_out(
    users: Int[np.ndarray, " E"], items: Int[np.ndarray, " E"], seed: int
) -> Bool[np.ndarray, " E"]:
    """Draws validation pairs; a user keeps at least one pair for training."""
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(users))
    held = rng.random(len(users)) < _VALIDATION_SHARE
    held[order[np.unique(users[order], return_index=True)[1]]] = False
    return held


def _take_rows(
    pairs: Positives, rows: Int[np.ndarray, " B"]
) -> tuple[Int[np.ndarray, " B1"], Int[np.ndarray, " E"]]:
    """Returns the items of some users as `(indptr, items)`."""
    counts = pairs.counts[rows]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    offsets = np.repeat(pairs.indptr[rows] - indptr[:-1], counts)
    return indptr, pairs.items[np.arange(indptr[-1]) + offsets]
