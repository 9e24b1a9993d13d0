# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is kept, exact values, damage told in one line."""

import shutil

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.train import checkpoint, state

LOWEST = ("collision_rate", "loss")


def make_state(value=0.0):
    rng = np.random.default_rng(int(value * 10))
    return state.TrainState(
        step=np.int32(value),
        params={"encoder": {"kernel": rng.normal(size=(3, 2)).astype("f4")}},
        model_state={"codebook": {"counts": rng.random((2, 4)).astype("f4")}},
        opt_state=({"mu": np.float32(1 / 3)}, np.int32(7)),
        key=np.array([1, 2**32 - 1], np.uint32),
    )


def leaves(tree):
    return {
        "kernel": tree.params["encoder"]["kernel"],
        "counts": tree.model_state["codebook"]["counts"],
        "step": tree.step,
        "key": tree.key,
        "mu": tree.opt_state[0]["mu"],
        "count": tree.opt_state[1],
    }


@pytest.fixture
def opened(tmp_path):
    made = []

    def open_again():
        made.append(checkpoint.Checkpoints(tmp_path, lowest=LOWEST))
        return made[-1]

    yield open_again
    for each in made:
        each.close()


def save(store, values):
    for step, (collisions, loss) in values.items():
        metrics = None
        if collisions is not None:
            metrics = {"collision_rate": collisions, "loss": loss}
        notes = {"seconds": step / 7, "sums": {"loss": 1 / 3}}
        store.save(step, make_state(step), notes=notes, metrics=metrics)
    store.wait()


def test_a_state_comes_back_exactly(opened):
    store = opened()
    assert store.latest() is None
    save(store, {3: (0.5, 1.0)})
    for each in (store, opened()):
        made = each.restore(3, make_state())
        assert made.step == 3
        assert made.notes == {"seconds": 3 / 7, "sums": {"loss": 1 / 3}}
        for name, wanted in leaves(make_state(3)).items():
            found = leaves(made.state)[name]
            assert np.asarray(found).dtype == np.asarray(wanted).dtype, name
            np.testing.assert_array_equal(found, wanted, err_msg=name)


def test_the_latest_and_the_best_by_each_criterion_are_kept(opened, tmp_path):
    store = opened()
    save(store, {1: (0.9, 5.0), 2: (0.1, 4.0), 3: (0.3, 2.0), 4: (0.2, 3.0)})
    save(store, {5: (0.4, 4.5)})
    for each in (store, opened()):
        assert each.latest() == 5
        assert each.best("collision_rate") == 2
        assert each.best("loss") == 3
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == {"2", "3", "5"}


def test_the_highest_is_kept_beside_the_lowest(tmp_path):
    def opened():
        return checkpoint.Checkpoints(tmp_path, lowest=("loss",), highest=("ndcg",))

    values = {1: (0.1, 5.0), 2: (0.9, 4.0), 3: (0.3, 2.0), 4: (-0.2, 3.0)}
    store = opened()
    assert store.criteria == ("loss", "ndcg")
    for step, (ndcg, loss) in values.items():
        metrics = {"ndcg": ndcg, "loss": loss}
        store.save(step, make_state(step), notes={}, metrics=metrics)
    store.save(5, make_state(5), notes={}, metrics=None)
    store.close()
    store = opened()
    assert (store.best("ndcg"), store.best("loss"), store.latest()) == (2, 3, 5)
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == {"2", "3", "5"}
    assert store.is_better("ndcg", 0.2, 0.1)
    assert not store.is_better("loss", 0.2, 0.1)
    assert not store.is_better("ndcg", 0.1, 0.1)
    store.close()


def test_the_best_is_kept_over_a_restart(opened, tmp_path):
    first = opened()
    save(first, {1: (0.1, 5.0), 2: (0.5, 1.0), 3: (0.6, 6.0)})
    first.close()
    second = opened()
    save(second, {4: (0.7, 7.0), 5: (0.8, 8.0)})
    assert (second.best("collision_rate"), second.best("loss")) == (1, 2)
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == {"1", "2", "5"}


def test_a_state_that_was_not_evaluated_is_the_latest_but_never_the_best(opened):
    store = opened()
    save(store, {1: (None, None)})
    assert store.best("loss") == 1
    save(store, {2: (0.9, 9.0), 3: (None, None)})
    assert store.latest() == 3
    assert store.best("loss") == store.best("collision_rate") == 2


def test_a_folder_left_by_a_kill_while_writing_is_no_checkpoint(opened, tmp_path):
    save(opened(), {1: (0.5, 1.0)})
    folder = tmp_path / "checkpoints"
    torn = folder / "2.orbax-checkpoint-tmp-17"
    shutil.copytree(folder / "1", torn)
    (torn / "commit_success.txt").unlink(missing_ok=True)
    store = opened()
    assert store.latest() == 1
    save(store, {2: (0.4, 0.5)})
    assert store.latest() == 2
    np.testing.assert_array_equal(store.restore(2, make_state()).state.step, 2)


@pytest.mark.parametrize(
    "gone", [("_CHECKPOINT_METADATA",), ("state",), ("metrics", "notes"), "all"]
)
def test_the_rest_of_a_removed_checkpoint_is_no_checkpoint(opened, tmp_path, gone):
    # A kill while an old checkpoint is removed leaves any part of it.
    store = opened()
    save(store, {1: (0.9, 9.0)})
    old, rest = tmp_path / "checkpoints" / "1", tmp_path / "rest"
    shutil.copytree(old, rest)
    save(store, {2: (0.5, 5.0), 3: (0.6, 6.0)})
    store.close()
    assert not old.exists()
    shutil.copytree(rest, old)
    for path in list(old.iterdir()):
        if gone == "all" or path.name in gone:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    after = opened()
    assert after.latest() == 3
    assert after.best("loss") == after.best("collision_rate") == 2
    save(after, {4: (0.7, 7.0)})
    assert (after.latest(), after.best("loss")) == (4, 2)
    np.testing.assert_array_equal(after.restore(2, make_state()).state.step, 2)


def damages(folder):
    """Every way to damage one file of a checkpoint, as (name, function)."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder)
            yield f"{name} cut", lambda p=path: p.write_bytes(p.read_bytes()[:-5])
            yield f"{name} empty", lambda p=path: p.write_bytes(b"")
            yield f"{name} gone", lambda p=path: p.unlink()


def test_damage_gives_one_line_or_the_right_state(tmp_path, opened):
    good = tmp_path / "good"
    store = checkpoint.Checkpoints(good, lowest=LOWEST)
    save(store, {1: (0.5, 1.0)})
    store.close()
    wrong, refused = [], 0
    for i, (what, _) in enumerate(damages(good / "checkpoints" / "1")):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(good, copy)
        dict(damages(copy / "checkpoints" / "1"))[what]()
        try:
            hurt = checkpoint.Checkpoints(copy, lowest=LOWEST)
            latest = hurt.latest()
            if latest is None:
                wrong.append(f"{what}: silently no checkpoint")
                continue
            made = hurt.restore(latest, make_state()).state
            for name, wanted in leaves(make_state(1)).items():
                np.testing.assert_array_equal(leaves(made)[name], wanted)
            hurt.best("loss")
        except UserError as error:
            refused += 1
            if "\n" in str(error) or "checkpoints" not in str(error):
                wrong.append(f"{what}: {error}")
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__} {str(error)[:80]}")
    assert refused
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("shape", "kernel.* has shape"),
        ("missing", r"another model: 1 .* such as encoder.bias"),
        ("other", r"another model: 2 .* such as encoder.kernel"),
    ],
)
def test_a_state_of_another_model_is_refused(opened, change, told):
    store = opened()
    save(store, {1: (0.5, 1.0)})
    template = make_state()
    encoder = dict(template.params["encoder"])
    if change == "shape":
        encoder["kernel"] = np.zeros((3, 5), "f4")
    elif change == "missing":
        encoder["bias"] = np.zeros(3, "f4")
    else:
        encoder = {"kernel": {"deeper": np.zeros((3, 2), "f4")}}
    with pytest.raises(UserError, match=told) as error:
        store.restore(1, template.replace(params={"encoder": encoder}))
    assert "\n" not in str(error.value)
    assert "checkpoints/1" in str(error.value)
