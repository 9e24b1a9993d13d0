# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of a T5, its search and an ensemble: other sizes pass, wrong numbers fail."""

import functools
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from rfrec.parity import checks, retrieval

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"


@functools.cache
def _file(stem):
    return checks.read(GOLDEN / f"{stem}.npz")


def _t5(**changes):
    named = {n.replace("__", "/"): np.asarray(a) for n, a in changes.items()}
    return {**_file("t5_constrained_beam"), **named}


def _ensemble(**changes):
    named = {name: np.asarray(a) for name, a in changes.items()}
    return {**_file("mql4grec_ensemble"), **named}


def _failed(results):
    return {check.name for check in results if not check.ok}


SHAPE = {
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}

# A record of other sizes, made here by transformers.


def _catalogue(rng, items, sizes, first):
    every = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    codes = every[rng.permutation(len(every))[:items]]
    return codes, codes + first + np.cumsum([0, *sizes[:-1]])


def _legal(tokens):
    """Returns the tokens that may follow a sequence."""
    rows = [(0, *row, 1) for row in tokens.tolist()]

    def allowed(_, before):
        before = tuple(before.tolist())
        n = len(before)
        return sorted({row[n] for row in rows if row[:n] == before and row[n:]}) or [0]

    return allowed


def _record(beams, *, users=3, items=14, sizes=(4, 3, 5), seed=2, **changes):
    """Records a small model: logits, loss, gradients, beams and all items."""
    torch = pytest.importorskip("torch", reason="records what transformers computes")
    import transformers

    torch.manual_seed(seed)
    rng, levels = np.random.default_rng(seed), len(sizes)
    config = transformers.T5Config.from_dict(
        SHAPE | {"vocab_size": 7 + sum(sizes)} | changes
    )
    model: Any = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.0 + torch.rand_like(weight))
    codes, tokens = _catalogue(rng, items, sizes, 7)
    lengths = rng.integers(1, 5, users) * levels
    ids = rng.integers(7, 7 + sum(sizes), (users, max(lengths) + 1))
    place = np.arange(ids.shape[1])
    ids = np.where(place < lengths[:, None], ids, place == lengths[:, None])
    labels = np.pad(tokens[:users], ((0, 0), (0, 1)), constant_values=1)
    labels[0, -1] = -100
    inputs = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(ids > 0).long(),
    }
    done = model(**inputs, labels=torch.tensor(labels))
    done.loss.backward()
    record = {name: t.numpy() for name, t in inputs.items()} | {
        "labels": labels,
        "catalogue_codes": codes,
        "catalogue_tokens": tokens,
        "logits": done.logits.detach().numpy(),
        "loss": done.loss.detach().numpy(),
        "config": np.array(json.dumps(model.config.to_dict(), default=str)),
    }
    state = model.state_dict().items()
    record |= {f"hf/{n}": w.detach().numpy().copy() for n, w in state}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            record[f"grad/{name}"] = weight.grad.numpy().copy()
    for count in beams:
        found = model.generate(
            **inputs,
            num_beams=count,
            num_return_sequences=count,
            max_new_tokens=levels + 1,
            early_stopping=True,
            # Its cache takes encoder and decoder to have as many layers.
            use_cache=False,
            prefix_allowed_tokens_fn=_legal(tokens),
            output_scores=True,
            return_dict_in_generate=True,
        )
        shape = (users, count, levels + 2)
        record[f"beam{count}/sequences"] = found.sequences.reshape(shape).numpy()
        if count > 1:
            scores = found.sequences_scores.reshape(users, count)
            record[f"beam{count}/scores"] = scores.numpy()
    answers = np.pad(tokens, ((0, 0), (0, 1)), constant_values=1)
    every = np.empty((users, items), np.float32)
    for user in range(users):
        rows = {n: t[user : user + 1].expand(items, -1) for n, t in inputs.items()}
        with torch.no_grad():
            logits = model(**rows, labels=torch.tensor(answers)).logits
        logs = torch.log_softmax(logits, -1).numpy()
        every[user] = np.take_along_axis(logs, answers[..., None], 2)[..., 0].sum(1)
    return record | {"exhaustive_logprob": every}


@pytest.mark.parametrize(
    ("beams", "changes"),
    [
        ((1, 3, 7), {}),
        ((4,), {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ],
)
def test_a_record_of_other_sizes_passes(beams, changes):
    results = retrieval.check_t5(_record(beams, **changes))
    assert _failed(results) == set()
    assert f"beam{beams[-1]}/sequences" in {check.name for check in results}


# Changed numbers.


def test_changed_numbers_fail_their_checks_and_no_others():
    arrays = _file("t5_constrained_beam")
    sequences = arrays["beam5/sequences"].copy()
    sequences[2, [0, 1]] = sequences[2, [1, 0]]
    scores = arrays["beam20/scores"].copy()
    scores[3, 4] += 1e-3
    gradient = "grad/decoder.block.1.layer.1.EncDecAttention.k.weight"
    every = arrays["exhaustive_logprob"].copy()
    every[5, 59] = np.nan
    changed = {
        "logits": arrays["logits"] * 1.0001,
        "loss": np.asarray(arrays["loss"] + 1e-3),
        gradient: arrays[gradient] * 1.001,
        "beam5/sequences": sequences,
        "beam20/scores": scores,
        "exhaustive_logprob": every,
    }
    assert _failed(retrieval.check_t5(_t5() | changed)) == set(changed)


def test_a_changed_metric_of_the_ensemble_fails_alone():
    metrics = _file("mql4grec_ensemble")["metrics"].copy()
    metrics[4] *= 1.001
    assert _failed(retrieval.check_ensemble(_ensemble(metrics=metrics))) == {
        "metrics ndcg@10"
    }


def test_an_ensemble_of_longer_lists_and_other_metrics_passes():
    """Counts by hand: who is in both lists comes first, the mean decides."""
    record = {
        "text_items": np.array([[4, 7, 2]]),
        "text_scores": np.array([[-0.1, -0.2, -0.9]]),
        "image_items": np.array([[9, 2, 8, 3]]),
        "image_scores": np.array([[-0.05, -0.5, -0.6, -0.7]]),
        "target": np.array([2]),
        "metric_names": np.array(["hit@1", "ndcg@3"]),
        "metrics": np.array([1.0, 1.0]),
        "text_only_metrics": np.array([0.0, 0.5]),
    }
    assert _failed(retrieval.check_ensemble(record)) == set()
