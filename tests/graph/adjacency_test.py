# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's graphs, against their definition entry by entry."""

import numpy as np
import pytest
import scipy.sparse as sp

from rfrec.config import UserError
from rfrec.graph import adjacency, neighbours

USERS, ITEMS = 9, 30


def data(modalities=2, seed=0):
    rng = np.random.default_rng(seed)
    lists = [rng.permutation(ITEMS - 2)[: rng.integers(1, 6)] for _ in range(USERS)]
    indptr = np.cumsum([0, *map(len, lists)])
    # Alike enough that modalities share some neighbours.
    base = rng.normal(size=(ITEMS, 4))
    features = {
        f"m{i}": (base + 0.3 * rng.normal(size=base.shape)).astype(np.float32)
        for i in range(modalities)
    }
    return indptr, np.concatenate(lists).astype(np.int32), features


def nearest(x, k):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    return [set(np.argsort(-row, kind="stable")[:k].tolist()) for row in cosine], cosine


def normalised(dense):
    degree = dense.sum(axis=1)
    factor = np.array([d**-0.5 if d > 0 else 0 for d in degree])
    return factor[:, None] * dense * factor[None, :]


@pytest.mark.parametrize("k", [1, 4, 10])
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_graphs_equal_their_definition(modalities, k):
    indptr, items, features = data(modalities)
    built = adjacency.build(indptr, items, features, adjacency.Options(neighbours=k))
    found = [nearest(x.astype(np.float64), k) for x in features.values()]
    for graph, (sets, cosine) in zip(built.similar, found, strict=True):
        mask = np.array([[j in sets[i] for j in range(ITEMS)] for i in range(ITEMS)])
        wanted = normalised(cosine * mask)
        np.testing.assert_allclose(graph.toarray(), wanted, atol=1e-6)
    whole = np.zeros((USERS + ITEMS, USERS + ITEMS))
    for user in range(USERS):
        for item in items[indptr[user] : indptr[user + 1]]:
            whole[user, USERS + item] = whole[USERS + item, user] = 1
    for i in range(ITEMS):
        for j in set.intersection(*(sets[i] for sets, _ in found)) - {i}:
            whole[USERS + i, USERS + j] = 1
    whole = normalised(whole)
    np.testing.assert_allclose(built.adjacency.toarray(), whole, atol=1e-6)
    upper = whole[:USERS, USERS:]
    np.testing.assert_allclose(built.user_item.toarray(), upper, atol=1e-6)


def test_edges_between_items_have_a_direction():
    indptr, items, features = data()
    built = adjacency.build(indptr, items, features, adjacency.Options(4))
    part = built.adjacency[USERS:, USERS:].toarray() > 0
    assert part.any() and (part != part.T).any() and not part.diagonal().any()


def test_repeated_pairs_count_once_and_lonely_items_are_no_trouble():
    joined = sp.csr_matrix((4, 4), dtype=np.float32)
    pairs = np.array([0, 2, 2, 0]), np.array([0, 3, 4])
    whole, part = adjacency.user_item(pairs[1], pairs[0], 4, joined)
    wanted = [[0.5, 0, 2**-0.5, 0], [2**-0.5, 0, 0, 0]]
    np.testing.assert_allclose(part.toarray(), wanted, atol=1e-7)
    assert np.isfinite(whole.data).all() and whole.nnz == 6


def test_an_item_without_a_vector_keeps_itself_and_joins_nobody():
    indptr, items, features = data()
    features["m1"][5] = 0
    built = adjacency.build(indptr, items, features, adjacency.Options(6))
    row = built.similar[1].toarray()[5]
    assert row[5] == 1 and np.count_nonzero(row) == 1
    assert built.adjacency[USERS + 5, USERS:].nnz == 0
    assert built.adjacency[USERS:, USERS + 5].nnz == 0


def test_neighbours_of_negative_similarity_do_not_make_nan():
    x = np.array([[1, 0], [-1, 0.1], [0, 1]], np.float32)
    graph = adjacency.similarity(neighbours.find(x, 3))
    assert np.isfinite(graph.toarray()).all()


def test_placed_graphs_hold_the_same(tmp_path):
    indptr, items, features = data()
    options = adjacency.Options(4, cache=str(tmp_path))
    built = adjacency.build(indptr, items, features, options)
    again = adjacency.build(indptr, items, features, options)
    placed = adjacency.place(again)
    assert len(list(tmp_path.iterdir())) == 2
    pairs = [
        (placed.user_item, built.user_item),
        (placed.joined, built.adjacency[USERS:, USERS:]),
        *zip(placed.similar, built.similar, strict=True),
    ]
    for graph, matrix in pairs:
        np.testing.assert_array_equal(graph.forward.todense(), matrix.toarray())
        np.testing.assert_array_equal(graph.transpose.todense(), matrix.toarray().T)
    # The part that leads back needs no graph of its own.
    lower = built.adjacency[USERS:, :USERS].toarray()
    np.testing.assert_array_equal(lower, built.user_item.toarray().T)
    assert built.adjacency[:USERS, :USERS].nnz == 0


def test_refuses_features_of_another_number_of_items():
    indptr, items, features = data()
    settings = adjacency.Options(4)
    with pytest.raises(UserError, match="m0 30, m1 29"):
        wrong = {**features, "m1": features["m1"][:-1]}
        adjacency.build(indptr, items, wrong, settings)
    with pytest.raises(UserError, match="pairs contain items"):
        few = {name: x[:8] for name, x in features.items()}
        adjacency.build(indptr, items, few, settings)
    with pytest.raises(UserError, match="at least one modality"):
        adjacency.build(indptr, items, {}, settings)
