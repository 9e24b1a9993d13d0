# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The synthetic catalogue has the clusters it claims, and users who follow them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfrec.config import UserError
from rfrec.data import synthetic
from rfrec.data.features import Block

WIDTHS = {"text": 12, "image": 20}


def test_items_have_the_widths_asked_for():
    items = synthetic.catalogue(300, widths=WIDTHS, seed=1)
    assert items.blocks == (Block("text", 12, "dense"), Block("image", 20, "dense"))
    assert items.values.shape == (300, 32)
    assert items.values.dtype == np.float32
    assert items.warnings == ()


def test_bytes_depend_on_the_seed_alone(monkeypatch):
    first = synthetic.catalogue(300, widths=WIDTHS, seed=1)
    assert (
        first.fingerprint == synthetic.catalogue(300, widths=WIDTHS, seed=1).fingerprint
    )
    assert (
        first.fingerprint != synthetic.catalogue(300, widths=WIDTHS, seed=2).fingerprint
    )
    monkeypatch.setattr(synthetic, "CHUNK_ROWS", 64)
    assert (
        first.fingerprint == synthetic.catalogue(300, widths=WIDTHS, seed=1).fingerprint
    )


def test_modality_does_not_depend_on_the_others():
    both = synthetic.catalogue(100, widths=WIDTHS).values
    text = synthetic.catalogue(100, widths={"text": 12}).values
    np.testing.assert_array_equal(both[:, :12], text)


def test_paths_form_a_tree():
    paths = synthetic.cluster_paths(5000, num_clusters=6, seed=3)
    np.testing.assert_array_equal(paths[:, 1] // synthetic.BRANCHING, paths[:, 0])
    np.testing.assert_array_equal(paths[:, 2] // synthetic.BRANCHING, paths[:, 1])
    assert set(paths[:, 0]) == set(range(6))
    counts = np.bincount(paths[:, 0])
    assert counts[0] > 1.5 * counts[5]


@pytest.mark.parametrize("block", [0, 1])
def test_each_level_explains_variance_in_each_modality(block):
    items = synthetic.catalogue(4000, widths=WIDTHS, num_clusters=4, seed=0)
    x = np.split(items.values, [12], axis=1)[block].astype(np.float64)
    paths = synthetic.cluster_paths(4000, num_clusters=4, seed=0)
    left = [np.square(x - x.mean(0)).mean()]
    for level in paths.T:
        size = np.maximum(np.bincount(level), 1)
        mean = np.stack(
            [np.bincount(level, column) / size[: level.max() + 1] for column in x.T]
        )
        left.append(np.square(x - mean.T[level]).mean())
    assert left[0] > 1.5 * left[1] > 1.5 * left[2] > 1.5 * left[3]
    # What is left within a leaf is the noise, less the means' degrees of freedom.
    leaves = len(np.unique(paths[:, 2]))
    assert left[3] == pytest.approx(0.3**2 * (1 - leaves / 4000), rel=0.05)


def test_scale_is_applied_per_modality():
    items = synthetic.catalogue(300, widths=WIDTHS, scale="mean_square")
    for part in np.split(items.values, [12], axis=1):
        assert np.square(part).mean() == pytest.approx(1, abs=1e-5)


@given(
    num_items=st.integers(1, 80),
    num_users=st.integers(1, 30),
    num_clusters=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_no_user_has_an_item_twice(num_items, num_users, num_clusters, seed):
    shortest = min(3, num_items)
    inter = synthetic.histories(
        num_users,
        num_items=num_items,
        num_clusters=num_clusters,
        mean_length=shortest + 4.0,
        min_length=shortest,
        max_length=num_items,
        seed=seed,
    )
    assert inter.num_users == num_users
    for user in range(num_users):
        history = inter.history(user).tolist()
        assert shortest <= len(history) <= num_items
        assert len(set(history)) == len(history)
        assert set(history) <= set(range(num_items))


def test_histories_depend_on_the_seed_alone():
    first, again, other = (
        synthetic.histories(50, num_items=100, seed=seed) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.items, again.items)
    assert not np.array_equal(first.items[:20], other.items[:20])


def test_users_stay_within_few_clusters():
    top = synthetic.cluster_paths(2000, seed=2)[:, 0]

    def share(affinity):
        inter = synthetic.histories(400, num_items=2000, affinity=affinity, seed=2)
        counts = [np.bincount(top[inter.history(u)]) for u in range(400)]
        return np.mean([np.sort(c)[-2:].sum() / c.sum() for c in counts])

    assert share(1.0) == 1
    assert share(0.8) > 0.8
    assert share(0.0) < 0.5


def test_lengths_have_the_mean_asked_for():
    inter = synthetic.histories(20_000, num_items=3000, mean_length=9.0, max_length=200)
    assert len(inter.items) / inter.num_users == pytest.approx(9, rel=0.02)


def test_neighbours_on_a_ring_follow_each_other():
    inter = synthetic.histories(4000, num_items=400, affinity=1.0, seed=6)
    pairs = np.stack([inter.items[:-1], inter.items[1:]])
    pairs = np.delete(pairs, inter.indptr[1:-1] - 1, axis=1)
    _, counts = np.unique(pairs, axis=1, return_counts=True)
    independent = pairs.shape[1] / 400**2
    assert np.sort(counts)[-400:].mean() > 50 * independent


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_users": 0}, "num_users 0 must be at least 1"),
        ({"num_items": 20}, "max_length 50 must be .* num_items 20"),
        ({"mean_length": 5.0}, "below mean_length 5.0"),
        ({"max_length": 4}, "max_length 4 must be from min_length 5"),
        ({"num_clusters": 0}, "num_clusters 0 must be at least 1"),
    ],
)
def test_contradicting_sizes_are_refused(kwargs, message):
    sizes = {"num_users": 5, "num_items": 100, **kwargs}
    with pytest.raises(UserError, match=message):
        synthetic.histories(sizes.pop("num_users"), **sizes)


@pytest.mark.parametrize(
    ("num_items", "widths"), [(0, WIDTHS), (5, {}), (5, {"text": 0})]
)
def test_catalogue_without_size_is_refused(num_items, widths):
    with pytest.raises(UserError, match="must be at least 1"):
        synthetic.catalogue(num_items, widths=widths)
