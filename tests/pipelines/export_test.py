# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export of a finished run: what it writes, and what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import interactions
from rfrec.launch import recommend
from rfrec.pipelines import export
from rfrec.serving import artefact, lines
from rfrec.serving.recommender import Recommender
from rfrec.serving.requests import Query
from tests.support.served import load_config


def make_config(name="export", **overrides):
    return load_config(name, **overrides)


def test_served_lists_are_those_that_recommend_makes(
    served_run, served_artefact, tmp_path, capsys
):
    path = served_run / "config.json"
    root = json.loads(path.read_text())["data"]["path"]
    inter = interactions.read_inter_json(Path(root) / "toy.inter.json")
    histories = [inter.history(user)[:-1].tolist() for user in range(12)]
    file = tmp_path / "histories.jsonl"
    texts = [json.dumps({"user": f"u{i}", "items": h}) for i, h in enumerate(histories)]
    file.write_text("\n".join(texts))
    for seen in (False, True):
        overrides = {
            "run": str(served_run),
            "search.beams": 12,
            "search.top_k": 5,
            "filter.seen": seen,
        }
        config = make_config("recommend", **overrides)
        recommend.main(config, None, str(file))
        wanted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        asked = Recommender(served_artefact, batch_sizes=(4,), max_items=64)
        requests = [json.loads(line) | {"filter_seen": seen} for line in texts]
        answers = lines.answer_lines(asked, map(json.dumps, requests), "in")
        found = list(map(json.loads, answers))
        assert len(found) == len(wanted) == 12
        for one, other in zip(found, wanted, strict=True):
            assert one["user"] == other["user"]
            assert one["items"] == other["items"]
            np.testing.assert_allclose(one["scores"], other["scores"], rtol=1e-5)


def test_the_manifest_names_run_and_task(served_run, served_artefact):
    manifest = artefact.read_manifest(served_artefact)
    assert manifest.t5.run == str(served_run)
    assert manifest.t5.step == 4
    assert (manifest.task, manifest.target, manifest.sources) == (
        *("seqrec", "text"),
        ("text",),
    )
    assert manifest.platforms == ("cpu", "cuda", "tpu")
    assert [bucket.slots for bucket in manifest.buckets] == [4, 8]
    assert (manifest.beams, manifest.top_k, manifest.max_history) == (12, 5, 8)
    assert manifest.room.items >= 1.25 * 50


def test_queries_longer_than_the_history_use_its_end(served_artefact):
    asked = Recommender(served_artefact, batch_sizes=(1,), max_items=64)
    long = Query("u", (*range(20), *range(8)), 5, False)
    short = long._replace(items=tuple(range(8)))
    assert asked.answer([long]) == asked.answer([short])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"run": None}, "config.run is required"),
        ({"platforms": ("cpu", "abacus")}, "config.platforms="),
        ({"platforms": ()}, "config.platforms="),
        ({"room": -0.1}, "config.room=-0.1: must be at least 0"),
        ({"search.top_k": 30}, "config.search.top_k=30 is more than"),
        ({"search.buckets": (8, 4)}, "must be ascending"),
        ({"task": "seqimage"}, "was not trained to continue histories by it"),
        ({"run": "/nowhere"}, "is this the folder of a run"),
    ],
)
def test_invalid_exports_are_refused(served_run, tmp_path, overrides, told):
    config = make_config(**({"run": str(served_run)} | overrides))
    with pytest.raises(UserError, match=told):
        export.export_run(config, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_refused(served_run, served_artefact):
    with pytest.raises(UserError, match="already exists: use another --workdir"):
        export.export_run(make_config(run=str(served_run)), served_artefact)
    assert artefact.read(served_artefact).manifest.beams == 12


def test_without_flatbuffers_the_error_names_the_extra(
    served_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    config = make_config(run=str(served_run))
    with pytest.raises(UserError, match=r"install rfrec\[serve\]"):
        export.export_run(config, tmp_path / "out")
    assert not list(tmp_path.iterdir())
