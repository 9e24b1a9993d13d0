# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Item vectors of a trained GUME as a feature of the tokenizer."""

import json

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.launch import gume
from rfrec.pipelines import collaborative, finished_graph, tokenizer
from tests.support.commands import load_config

ITEMS, USERS, COLD = 40, 50, 7


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data in which nobody has used item COLD."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    others = np.delete(np.arange(ITEMS), COLD)
    # Every other item is somebody's first one, and so a training pair.
    histories = {
        str(user): [
            int(others[user % len(others)]),
            *(int(i) for i in rng.permutation(others)[:7] if i != others[user % 39]),
        ]
        for user in range(USERS)
    }
    (folder / "shop.inter.json").write_text(json.dumps(histories))
    np.save(folder / "shop.text.npy", rng.normal(size=(ITEMS, 6)).astype("f4"))
    return folder


def graph_config(data, **overrides):
    made = {
        "data.source": "folder",
        "data.path": str(data),
        "data.features": ("text",),
        "graph.neighbours": 4,
        "model.width": 8,
        "train.epochs": 2,
        "train.eval_every": 1,
        "train.batch_size": 64,
        "eval.resamples": 10,
        "rf.use_rf": True,
        "rf.hidden_dim": 8,
        "rf.rows": 32,
    }
    return load_config("gume", "smoke", **(made | overrides))


@pytest.fixture(scope="module")
def graph(data, tmp_path_factory):
    """The folder of a run of GUME with the flow."""
    workdir = tmp_path_factory.mktemp("graph") / "run"
    gume.main(graph_config(data), workdir)
    return workdir


def tokenizer_config(data, graph, **overrides):
    made = {
        "data.source": "folder",
        "data.path": str(data),
        "data.features": ("text", "rf"),
        "data.graph": str(graph),
        "model.hidden": (8,),
        "model.latent_width": 4,
        "codebook.sizes": (8, 8, 8),
        "codebook.init_epoch": 1,
        "train.epochs": 2,
        "train.eval_every": 1,
    }
    return load_config("rqvae", "smoke", **(made | overrides))


def load_items(config):
    return tokenizer.load_items(tokenizer.check(config), config.rf)


def behaviour_of(run):
    """H of items by the model's own function, on its parameters as stored."""
    flow = run.trainer.model
    propagated = flow.base.propagate(run.state.params, run.trainer.constants)
    return np.asarray(propagated.items.convolved[:, 0])


def test_used_items_have_their_embedding_and_others_a_generated_one(data, graph):
    config = tokenizer_config(data, graph)
    items = load_items(config)
    assert [(b.name, b.width) for b in items.blocks] == [("text", 6), ("rf", 8)]
    config.data.features = ("rf",)
    config.data.scale = "none"
    alone = load_items(config).values
    wanted = behaviour_of(finished_graph.open_run(graph))
    used = np.delete(np.arange(ITEMS), COLD)
    np.testing.assert_allclose(alone[used], wanted[used], rtol=1e-5, atol=1e-7)
    assert np.abs(alone[COLD] - wanted[COLD]).max() > 1e-3
    # Beside the text they are brought to mean square 1.
    block = items.values[:, 6:]
    np.testing.assert_allclose(np.mean(block**2), 1, rtol=1e-5)
    np.testing.assert_allclose(block / block[0, 0], alone / alone[0, 0], rtol=2e-5)


def test_the_section_rf_says_how_rows_are_generated(data, graph):
    one, two = (
        load_items(
            tokenizer_config(
                data, graph, **{"data.scale": "none", "rf.sampling_steps": steps}
            )
        ).values
        for steps in (None, 10)
    )
    used = np.delete(np.arange(ITEMS), COLD)
    np.testing.assert_array_equal(one[used], two[used])
    assert (one[COLD, :6] == two[COLD, :6]).all()
    assert (one[COLD, 6:] != two[COLD, 6:]).any()


def test_codes_are_made_of_them(data, graph, tmp_path):
    tokenizer.run(tokenizer_config(data, graph), tmp_path / "run")
    table = json.loads((tmp_path / "run/codes.json").read_text())
    assert len({tuple(codes) for codes in table.values()}) == len(table) == ITEMS


def test_a_run_without_the_flow_needs_pairs_of_all_items(data, tmp_path):
    plain = graph_config(data, **{"rf.use_rf": False})
    gume.main(plain, tmp_path / "plain")
    with pytest.raises(
        UserError, match=f"1 of its items have .*such as {COLD}.; train"
    ):
        none = load_config("gume").rf
        collaborative.load(tmp_path / "plain", none)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.graph": None}, "data.graph=None"),
        (
            {"data.features": ("text",)},
            "with data.features without 'rf'",
        ),
        ({"rf.hidden_dim": 16}, "config.rf.hidden_dim=16 is fixed by the run"),
        ({"data.graph": "nowhere"}, "nowhere/config.json does not exist"),
        ({"data.names": ("shop", "other")}, "several data.names"),
    ],
)
def test_what_does_not_fit_is_refused(data, graph, tmp_path, overrides, message):
    config = tokenizer_config(data, graph, **overrides)
    with pytest.raises(UserError, match=message):
        tokenizer.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_graph_of_other_items_is_refused(data, graph, tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "shop.text.npy", rng.normal(size=(ITEMS + 1, 6)).astype("f4"))
    config = tokenizer_config(tmp_path, graph)
    with pytest.raises(UserError, match="has 40 items, which are not the 41"):
        load_items(config)
