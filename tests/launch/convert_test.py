# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""MQL4GRec checkpoints."""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.tokenizer import mql4grec, quantizer, rqvae

GOLDEN = Path(__file__).parents[2] / "third_party/golden/mql4grec_rqvae_equal.npz"


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


def weights_of(recorded) -> dict[str, np.ndarray]:
    return {k[5:]: v for k, v in recorded.items() if k.startswith("init/")}


def test_checkpoint_gives_the_recorded_codes(recorded, tmp_path):
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    state = {k: torch.tensor(v) for k, v in weights_of(recorded).items()}
    path = tmp_path / "model.pth"
    content = {"args": argparse.Namespace(e_dim=16), "epoch": 1, "state_dict": state}
    torch.save(content, path)
    weights = mql4grec.read_checkpoint(path)
    arch = rqvae.Architecture(
        input_width=weights.input_width,
        hidden=weights.hidden,
        latent_width=weights.latent_width,
        quantization=quantizer.Quantization(weights.sizes),
    )
    codes = rqvae.RQVAE(arch).apply(
        {"params": weights.params}, jnp.asarray(recorded["x"]), method="tokenize"
    )
    np.testing.assert_array_equal(np.asarray(codes), recorded["nn/codes"])


def test_shape_is_read_from_the_arrays(recorded):
    weights = mql4grec.read_state_dict(weights_of(recorded))
    assert weights[2:] == (48, (40, 24), 16, (16, 16, 16, 16))


def test_pickled_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    path = tmp_path / "model.pth"
    torch.save({"state_dict": {}, "hook": print}, path)
    with pytest.raises(UserError, match="no MQL4GRec checkpoint"):
        mql4grec.read_checkpoint(path)


def test_foreign_array_is_named(recorded):
    arrays = weights_of(recorded) | {"head.weight": np.zeros((2, 2), "f4")}
    with pytest.raises(UserError, match=r"head\.weight is not a parameter"):
        mql4grec.read_state_dict(arrays)


def test_missing_bias_is_named(recorded):
    arrays = weights_of(recorded)
    del arrays["encoder.mlp_layers.4.bias"]
    with pytest.raises(UserError, match=r"encoder\.mlp_layers\.4 lacks"):
        mql4grec.read_state_dict(arrays)
