# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A synthetic multimodal catalogue with known clusters, and its users.

Clusters form a tree: there are `num_clusters` at the top, and each splits into
`BRANCHING` clusters at every further level. Every modality observes the same tree
through its own random map, and users mostly stay within a few top clusters.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Int

from rfrec.config import UserError
from rfrec.data.dataset import DataSet, Request, choose_features
from rfrec.data.features import CHUNK_ROWS, ItemVectors
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature, join

FEATURES = ("text", "image")
BRANCHING = 8
DEPTH = 3

# Independent streams of random numbers.
_PATHS, _CENTRES, _NOISE, _USERS = range(4)


class SyntheticDataSet(DataSet):
    """The synthetic catalogue and histories of one seed."""

    name = "synthetic"

    def __init__(self, request: Request):
        """Keeps the request; data are drawn when they are needed."""
        self._request = request

    def read_features(self, names: tuple[str, ...]) -> list[Feature]:
        """Draws `text` and `image`, or those that are named."""
        chosen = choose_features(names, FEATURES, self.name)
        return draw_features(
            self._request.num_items,
            widths=dict.fromkeys(chosen, self._request.text_width),
            seed=self._request.seed,
        )

    def read_interactions(self) -> Interactions:
        """Draws the histories."""
        return histories(
            self._request.num_users,
            num_items=self._request.num_items,
            seed=self._request.seed,
        )


def open_source(request: Request) -> SyntheticDataSet:
    """Opens the synthetic data set."""
    return SyntheticDataSet(request)


def cluster_paths(
    num_items: int, *, num_clusters: int = 32, seed: int = 0
) -> Int[np.ndarray, "N Q"]:
    """Draws the clusters of each item.

    Top clusters have unequal sizes: their weights are one over the square root of the
    rank. Further levels split evenly.

    Args:
      num_items: Number of items, at least 1.
      num_clusters: Number of top clusters, at least 1.
      seed: Seed, at least 0.

    Returns:
      The cluster of each item at each of `DEPTH` levels. Clusters are numbered over the
      whole level, so column l has up to `num_clusters * BRANCHING**l` values.

    Raises:
      UserError: A number is below 1.
    """
    if num_items < 1 or num_clusters < 1:
        raise UserError(
            f"num_items {num_items} and num_clusters {num_clusters} must be at least 1"
        )
    rng = np.random.default_rng((seed, _PATHS))
    weights = np.arange(1, num_clusters + 1) ** -0.5
    paths = np.empty((num_items, DEPTH), np.int64)
    paths[:, 0] = rng.choice(num_clusters, num_items, p=weights / weights.sum())
    for level in range(1, DEPTH):
        branch = rng.integers(BRANCHING, size=num_items)
        paths[:, level] = paths[:, level - 1] * BRANCHING + branch
    return paths


def catalogue(
    num_items: int,
    *,
    widths: Mapping[str, int],
    num_clusters: int = 32,
    noise: float = 0.3,
    latent: int = 16,
    scale: str = "none",
    seed: int = 0,
) -> ItemVectors:
    """Joins the features of `draw_features`, which has the same arguments.

    Args:
      scale: Scale of the features, as for `rfrec.data.join.join`.

    Returns:
      One dense block for each modality, float32.
    """
    features = draw_features(
        num_items,
        widths=widths,
        num_clusters=num_clusters,
        noise=noise,
        latent=latent,
        seed=seed,
    )
    return join(features, name="synthetic", scale=scale)


def draw_features(
    num_items: int,
    *,
    widths: Mapping[str, int],
    num_clusters: int = 32,
    noise: float = 0.3,
    latent: int = 16,
    seed: int = 0,
) -> list[Feature]:
    """Draws items whose modalities share one tree of clusters.

    The latent vector of an item is the sum of the Gaussian centres of its clusters; the
    scale of the centres halves from level to level. A modality is a random linear map
    of the latent vector to its width, plus white noise.

    Args:
      num_items: Number of items, at least 1.
      widths: Width of each modality, at least 1.
      num_clusters: Number of top clusters.
      noise: Standard deviation of the noise; that of the signal is about 1.15.
      latent: Width of the latent vectors.
      seed: Seed, at least 0; equal seeds give equal bytes.

    Returns:
      One dense float32 feature for each modality.

    Raises:
      UserError: A size is below 1.
    """
    if not widths or min(widths.values()) < 1:
        raise UserError(f"widths {dict(widths)} of the modalities must be at least 1")
    paths = cluster_paths(num_items, num_clusters=num_clusters, seed=seed)
    rng = np.random.default_rng((seed, _CENTRES))
    sizes = [num_clusters * BRANCHING**level for level in range(DEPTH)]
    centres = [rng.standard_normal((k, latent)) * 0.5**i for i, k in enumerate(sizes)]
    features = []
    for number, (name, width) in enumerate(widths.items()):
        rng = np.random.default_rng((seed, _NOISE, number))
        view = rng.standard_normal((latent, width)) * latent**-0.5
        seen = [(level @ view).astype(np.float32) for level in centres]
        values = _observe(seen, paths, noise, rng)
        features.append(Feature(name, values, "dense", f"synthetic {name}"))
    return features


def histories(
    num_users: int,
    *,
    num_items: int,
    num_clusters: int = 32,
    mean_length: float = 8.0,
    min_length: int = 5,
    max_length: int = 50,
    affinity: float = 0.8,
    seed: int = 0,
) -> Interactions:
    """Draws users who mostly stay within two top clusters.

    Each step selects one of the user's two clusters with probability `affinity`, and
    otherwise any cluster in proportion to its size. The items of a cluster form a fixed
    ring, along which each user walks from a random starting point. Consecutive items
    are therefore related, and no item occurs twice.

    Args:
      num_users: Number of users, at least 1.
      num_items: Size of the catalogue of the same seed, at least `max_length`.
      num_clusters: Number of top clusters of the catalogue.
      mean_length: Mean of the geometric distribution of lengths, above `min_length`.
      min_length: Smallest length of a history.
      max_length: Largest length; longer histories are cut.
      affinity: Probability of a preferred cluster, 0 to 1.
      seed: Seed of the catalogue.

    Returns:
      Histories, oldest item first.

    Raises:
      UserError: The sizes contradict each other.
    """
    if num_users < 1 or not 1 <= min_length < mean_length:
        raise UserError(
            f"num_users {num_users} must be at least 1 and min_length {min_length}"
            f" from 1 to below mean_length {mean_length}"
        )
    if not min_length <= max_length <= num_items:
        raise UserError(
            f"max_length {max_length} must be from min_length {min_length} to"
            f" num_items {num_items}, because no user has an item twice"
        )
    top = cluster_paths(num_items, num_clusters=num_clusters, seed=seed)[:, 0]
    rng = np.random.default_rng((seed, _USERS))
    spread = rng.geometric(1 / (mean_length - min_length + 1), num_users) - 1
    lengths = np.minimum(min_length + spread, max_length)
    users = np.repeat(np.arange(num_users), lengths)
    liked = top[rng.integers(num_items, size=(num_users, 2))]
    cluster = liked[users, rng.integers(2, size=len(users))]
    astray = rng.random(len(users)) >= affinity
    cluster[astray] = top[rng.integers(num_items, size=astray.sum())]
    items = _walk(users, cluster, top, rng)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    _fill(items, indptr, num_items, rng)
    names = tuple(map(str, range(num_users)))
    return Interactions(indptr, items.astype(np.int32), num_items, names)


def _observe(
    seen: list[Float32[np.ndarray, "_ D"]],
    paths: Int[np.ndarray, "N Q"],
    noise: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "N D"]:
    """Sums the centres along each path and adds noise, chunk by chunk."""
    values = np.empty((len(paths), seen[0].shape[1]), np.float32)
    for start in range(0, len(paths), CHUNK_ROWS):
        rows = values[start : start + CHUNK_ROWS]
        rng.standard_normal(out=rows, dtype=np.float32)
        rows *= np.float32(noise)
        for level, path in zip(seen, paths[start : start + CHUNK_ROWS].T, strict=True):
            rows += level[path]
    return values


def _walk(
    users: Int[np.ndarray, "E"],
    cluster: Int[np.ndarray, "E"],
    top: Int[np.ndarray, "N"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "E"]:
    """Returns each user's next item on the ring of each cluster; -1 after one round."""
    num_clusters = int(top.max()) + 1
    ring = rng.permutation(len(top))
    ring = ring[np.argsort(top[ring], kind="stable")]
    size = np.bincount(top, minlength=num_clusters)
    first = np.cumsum(size) - size
    # A visit's number within its user and cluster: sort, then count from the start.
    keys = users * num_clusters + cluster
    order = np.argsort(keys, kind="stable")
    _, inverse = np.unique(keys, return_inverse=True)
    group_first = np.zeros(inverse.max() + 1, np.int64)
    group_size = np.bincount(inverse)
    group_first[1:] = np.cumsum(group_size)[:-1]
    visit = np.empty(len(keys), np.int64)
    visit[order] = np.arange(len(keys)) - group_first[inverse[order]]
    # Squaring favours the head of each ring: popular and rare items.
    start = rng.random(len(group_size))[inverse] ** 2
    position = (start * size[cluster]).astype(np.int64) + visit
    items = ring[first[cluster] + position % size[cluster]]
    return np.where(visit < size[cluster], items, -1)


def _fill(
    items: Int[np.ndarray, "E"],
    indptr: Int[np.ndarray, "U1"],
    num_items: int,
    rng: np.random.Generator,
) -> None:
    """Replaces -1 in place by items that the user does not have; rarely needed."""
    missing = np.flatnonzero(items < 0)
    for user in np.unique(np.searchsorted(indptr, missing, side="right") - 1):
        history = items[indptr[user] : indptr[user + 1]]
        unused = np.setdiff1d(np.arange(num_items), history)
        holes = history < 0
        history[holes] = rng.choice(unused, holes.sum(), replace=False)
