# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the tokenizer of a finished run, to encode new items with it."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.pipelines import run_folder
from rfrec.pipelines.tokenizer import Options
from rfrec.tokenizer import fitting, rqvae
from rfrec.tokenizer.encoder import Encoder
from rfrec.train import optim
from rfrec.train.state import create
from rfrec.typing import PyTree


class Tokenizer(NamedTuple):
    """A trained tokenizer of a run.

    Attributes:
      encoder: Encodes vectors.
      version: Identifies run, step and parameters.
    """

    encoder: Encoder
    version: catalogue.TokenizerRecord


def read(run: Path, options: Options, checkpoint: str | None, width: int) -> Tokenizer:
    """Reads the tokenizer that made the codes of a run; its folder is only read.

    Args:
      run: Folder of the run.
      options: Options of the run.
      checkpoint: Criterion whose best checkpoint made the codes, or `last`; None takes
        the value of the run's config.
      width: Width of the vectors to encode.

    Raises:
      UserError: The run has not exported codes, encodes vectors of another width, or
        its codes were made by another checkpoint.
    """
    exported = _read_codebooks(run / "latents.npz", len(options.codebook.sizes))
    if options.model.method == "rkmeans":
        arrays = {f"codebook_{i}": book for i, book in enumerate(exported)}
        version = catalogue.TokenizerRecord(str(run), 0, catalogue.fingerprint(arrays))
        return Tokenizer(Encoder(exported, None, {}), version)
    chosen = checkpoint or options.codes.checkpoint
    tokenizer = _read_model(run, options, chosen, width)
    pairs = zip(tokenizer.encoder.codebooks, exported, strict=True)
    if not all(np.array_equal(*pair) for pair in pairs):
        raise UserError(
            f"{run}: its codes and latents.npz were not made by its checkpoint"
            f" {chosen}, step {tokenizer.version.step}; name the one that made them"
            " with --config.checkpoint=collision_rate, loss or last"
        )
    return tokenizer


def _read_codebooks(path: Path, levels: int) -> tuple[Float32[np.ndarray, "_ W"], ...]:
    """Reads the code vectors that the exported codes belong to."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(file[f"codebook_{level}"] for level in range(levels))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist; finish the run of rfrec.launch.rqvae"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}); export again with rfrec.launch.codes"
        ) from error


def _read_model(run: Path, options: Options, checkpoint: str, width: int) -> Tokenizer:
    """Restores a checkpoint; its version does not depend on the decoder."""
    arch = fitting.architecture(options, width)
    restored = run_folder.restore_best(
        run, checkpoint, _template(options, arch), lowest=fitting.CRITERIA
    )
    encoder = fitting.make_encoder(restored.state, arch)
    leaves = jax.tree_util.tree_leaves_with_path(encoder.variables)
    arrays = {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}
    arrays = {k: v for k, v in arrays.items() if "decoder" not in k}
    # Settings by which models of the same arrays differ.
    spec = arch.quantization
    settings = (jnp.dtype(arch.dtype), spec.l2_normalize, spec.distance)
    arrays["how"] = np.frombuffer(repr(settings).encode(), np.uint8)
    identity = catalogue.TokenizerRecord(
        str(run), restored.step, catalogue.fingerprint(arrays)
    )
    return Tokenizer(encoder, identity)


def _template(options: Options, arch: rqvae.Architecture) -> PyTree:
    """Returns a state with the arrays of a run, without values."""
    optimizer = optim.build(options.optim, 1)
    model = rqvae.RQVAE(arch)

    def init():
        x = jnp.zeros((1, arch.input_width))
        variables = model.init(jax.random.key(0), x, method="reconstruct")
        params = variables.pop("params")
        return create(params=params, model_state=variables, optimizer=optimizer, seed=0)

    return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), jax.eval_shape(init))
