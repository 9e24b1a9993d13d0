# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a tokenizer's run in; its frozen encoder and codebooks out."""

import dataclasses
import zipfile
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32
from ml_collections import ConfigDict
from tqdm import tqdm

from rfrec.codes import catalogue
from rfrec.config import UserError, read_config
from rfrec.launch import rqvae as rqvae_main
from rfrec.pipelines import tokenizer
from rfrec.tokenizer import quantizer, rqvae
from rfrec.train import optim
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import create
from rfrec.typing import PyTree

# Most new items of one call.
_BLOCK = 1024


class Frozen(NamedTuple):
    """A trained tokenizer that learns no more.

    Attributes:
      codebooks: code vectors of each level.
      arch: of the model; None if latents are the vectors themselves.
      variables: of the model.
      version: what identifies it.
    """

    codebooks: tuple[Float32[np.ndarray, "_ W"], ...]
    arch: rqvae.Architecture | None
    variables: PyTree
    version: catalogue.Tokenizer


def read(run: Path, checkpoint: str | None, width: int) -> Frozen:
    """Reads the tokenizer that made the codes of a run; nothing in its folder changes.

    Args:
      run: its folder.
      checkpoint: criterion, or `last`; None takes what the run's config says.
      width: of the vectors that it is to read.

    Raises:
      UserError: it has not exported codes, reads vectors of another width, or its codes
        were made by another checkpoint.
    """
    config = read_config(run / "config.json")
    exported = _read_codebooks(run / "latents.npz", len(config.codebook.sizes))
    if config.model.method == "rkmeans":
        arrays = {f"codebook_{i}": book for i, book in enumerate(exported)}
        version = catalogue.Tokenizer(str(run), 0, catalogue.fingerprint(arrays))
        return Frozen(exported, None, {}, version)
    chosen = checkpoint or config.codes.checkpoint
    frozen = _read_model(run, config, chosen, width)
    pairs = zip(frozen.codebooks, exported, strict=True)
    if not all(np.array_equal(*pair) for pair in pairs):
        raise UserError(
            f"{run}: its codes, with latents.npz beside them, were not made by its"
            f" checkpoint {chosen}, step {frozen.version.step}: name the one they were"
            " made by, --config.checkpoint=collision_rate, loss or last"
        )
    return frozen


def _read_codebooks(path: Path, levels: int) -> tuple[Float32[np.ndarray, "_ W"], ...]:
    """Reads the code vectors that the exported codes belong to."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(file[f"codebook_{level}"] for level in range(levels))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: finish the run of rfrec.launch.rqvae"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): export again by rfrec.launch.codes"
        ) from error


def _read_model(run: Path, config: ConfigDict, checkpoint: str, width: int) -> Frozen:
    """Restores a checkpoint, all but its decoder."""
    arch = tokenizer.architecture(config, width)
    checkpoints = Checkpoints(run, lowest=rqvae_main.CRITERIA, read_only=True)
    try:
        best = checkpoint in checkpoints.criteria
        step = checkpoints.best(checkpoint) if best else checkpoints.latest()
        if step is None:
            raise UserError(f"{run} holds no checkpoint yet: train it first")
        state = checkpoints.restore(step, _template(config, arch)).state
    finally:
        checkpoints.close()
    codebooks = rqvae_main.code_vectors(state, arch)
    variables = {"params": state.params, **state.model_state}
    reads = jax.tree_util.tree_leaves_with_path(variables)
    arrays = {jax.tree_util.keystr(k): np.asarray(v) for k, v in reads}
    arrays = {k: v for k, v in arrays.items() if "decoder" not in k}
    # What two models of the same arrays may do differently.
    how = (arch.dtype, arch.l2_normalize, arch.quantization.distance)
    arrays["how"] = np.frombuffer(repr(how).encode(), np.uint8)
    version = catalogue.Tokenizer(str(run), step, catalogue.fingerprint(arrays))
    return Frozen(codebooks, arch, variables, version)


def _template(config: ConfigDict, arch: rqvae.Architecture) -> PyTree:
    """Returns a state with the arrays of a run, of no values."""
    optimizer = optim.build(optim.Optimizer(**config.optim), 1)
    model = rqvae.RQVAE(arch)

    def make():
        x = jnp.zeros((1, arch.input_width))
        variables = model.init(jax.random.key(0), x, method="reconstruct")
        params = variables.pop("params")
        return create(params=params, model_state=variables, optimizer=optimizer, seed=0)

    return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), jax.eval_shape(make))


def tokenize(
    frozen: Frozen, values: Float32[np.ndarray, "n D"], sizes: tuple[int, ...]
) -> tuple[Int32[np.ndarray, "n Q"], Float32[np.ndarray, "n W"]]:
    """Encodes vectors, and finds the nearest of the first `sizes` codes of each level.

    Args:
      frozen: the tokenizer.
      values: any number of vectors, of its width.
      sizes: at most as many as its codebooks have.

    Returns:
      Nearest codes and latents.
    """
    spec = quantizer.Quantization(sizes)
    if frozen.arch is not None:
        spec = dataclasses.replace(frozen.arch.quantization, sizes=sizes)
    books = [book[:size] for book, size in zip(frozen.codebooks, sizes, strict=True)]
    vectors = rqvae.pad_codebooks([jnp.asarray(book) for book in books], max(sizes))

    @jax.jit
    def block(x):
        z = x
        if frozen.arch is not None:
            model = rqvae.RQVAE(frozen.arch)
            z = cast(jax.Array, model.apply(frozen.variables, x, method="encode"))
        return quantizer.quantize_batch(z, vectors, spec, training=False).codes, z

    codes, latents = [], []
    with tqdm(total=len(values), unit="item", desc="encode", disable=None) as bar:
        for start in range(0, len(values), _BLOCK):
            part = values[start : start + _BLOCK]
            # Every block is full, so that one program serves all.
            full = np.resize(part, (_BLOCK, part.shape[1]))
            made = jax.device_get(block(full))
            codes.append(made[0][: len(part)])
            latents.append(made[1][: len(part)])
            bar.update(len(part))
    return np.concatenate(codes).astype(np.int32), np.concatenate(latents)
