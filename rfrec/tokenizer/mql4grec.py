# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads an RQ-VAE in MQL4GRec's layout: its state dict in, our parameters out.

Layers of its encoder and decoder are numbered as they stand in a torch Sequential:
dropout, linear, [batch norm], ReLU; codebooks are `rq.vq_layers.L.embedding.weight`.
A torch linear layer holds [out, in].
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rfrec.config import UserError
from rfrec.tokenizer import rqvae
from rfrec.typing import PyTree

_LAYER = re.compile(r"(encoder|decoder)\.mlp_layers\.(\d+)\.(\w+)")
_CODEBOOK = re.compile(r"rq\.vq_layers\.(\d+)\.embedding\.weight")


class Weights(NamedTuple):
    """A model as we hold it, and its shape.

    Attributes:
      params: Parameters of `rqvae.RQVAE`.
      batch_stats: Statistics of its batch norms; empty without.
      input_width: Width of an item vector.
      hidden: Widths of the encoder's hidden layers.
      latent_width: Width of the latent.
      sizes: Number of codes of each level.
    """

    params: PyTree
    batch_stats: PyTree
    input_width: int
    hidden: tuple[int, ...]
    latent_width: int
    sizes: tuple[int, ...]


def read_checkpoint(path: Path) -> Weights:
    """Reads a checkpoint that MQL4GRec wrote with torch.

    Only tensors are read, never pickled code.

    Raises:
      UserError: PyTorch is missing, or the file is not such a checkpoint.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("convert needs torch: pip install 'rfrec[torch]'") from error
    if not path.exists():
        raise UserError(f"{path} does not exist; correct --checkpoint")
    try:
        # MQL4GRec stores its command line beside the weights; a Namespace is harmless.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = content["state_dict"]
        arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # A damaged file can make torch raise anything.
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"{path} is no MQL4GRec checkpoint ({reason})") from error
    return read_state_dict(arrays)


def read_state_dict(arrays: Mapping[str, np.ndarray]) -> Weights:
    """Translates names and layouts.

    Args:
      arrays: By MQL4GRec's parameter names.

    Raises:
      UserError: An array is missing or not understood; names it.
    """
    layers: dict[str, dict[int, dict[str, np.ndarray]]] = {"encoder": {}, "decoder": {}}
    codebooks: dict[int, np.ndarray] = {}
    for name, array in arrays.items():
        if match := _LAYER.fullmatch(name):
            part, number, kind = match.groups()
            layers[part].setdefault(int(number), {})[kind] = np.asarray(array)
        elif match := _CODEBOOK.fullmatch(name):
            codebooks[int(match[1])] = np.asarray(array)
        else:
            raise UserError(f"{name} is not a parameter of a MQL4GRec RQ-VAE")
    if not (layers["encoder"] and layers["decoder"] and codebooks):
        raise UserError(
            "encoder, decoder or codebooks of a MQL4GRec RQ-VAE are missing"
        )
    encoder, encoder_stats = _mlp(layers["encoder"], "encoder")
    decoder, decoder_stats = _mlp(layers["decoder"], "decoder")
    books = [codebooks[level] for level in sorted(codebooks)]
    sizes = tuple(map(len, books))
    kernels = [encoder[f"linear_{i}"]["kernel"] for i in range(_depth(encoder))]
    widths = tuple(kernel.shape[1] for kernel in kernels)
    params = {
        "encoder": encoder,
        "decoder": decoder,
        "codebook": np.asarray(
            rqvae.pad_codebooks([jnp.asarray(b) for b in books], max(sizes))
        ),
    }
    stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    return Weights(
        params=params,
        batch_stats=stats if encoder_stats else {},
        input_width=kernels[0].shape[0],
        hidden=widths[:-1],
        latent_width=widths[-1],
        sizes=sizes,
    )


def _depth(mlp: PyTree) -> int:
    return sum(name.startswith("linear_") for name in mlp)


def _mlp(layers: dict[int, dict[str, np.ndarray]], part: str) -> tuple[PyTree, PyTree]:
    """Numbers linear layers and norms from 0; returns parameters and statistics."""
    params, stats, i = {}, {}, -1
    for number in sorted(layers):
        layer = layers[number]
        if "weight" not in layer or "bias" not in layer:
            raise UserError(f"{part}.mlp_layers.{number} lacks its weight or bias")
        if layer["weight"].ndim == 2:
            i += 1
            params[f"linear_{i}"] = {"kernel": layer["weight"].T, "bias": layer["bias"]}
        else:
            params[f"norm_{i}"] = {"scale": layer["weight"], "bias": layer["bias"]}
            stats[f"norm_{i}"] = {
                "mean": layer["running_mean"],
                "var": layer["running_var"],
            }
    return params, stats
