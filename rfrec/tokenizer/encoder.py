# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A trained tokenizer that no longer learns: vectors in, codes out, and back."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped
from tqdm import tqdm

from rfrec.tokenizer import quantizer, rqvae
from rfrec.typing import PyTree

# Number of vectors in one call.
_BLOCK = 1024


class Encoder(NamedTuple):
    """A trained model without the state of its training.

    Attributes:
      codebooks: Code vectors of each level.
      arch: Architecture of the model; None if latents are the vectors themselves.
      variables: Variables of the model, empty without one.
    """

    codebooks: tuple[Float32[np.ndarray, "_ W"], ...]
    arch: rqvae.Architecture | None
    variables: PyTree

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return tuple(map(len, self.codebooks))

    def encode(
        self, values: Float32[np.ndarray, "n D"], sizes: tuple[int, ...] | None = None
    ) -> tuple[Int32[np.ndarray, "n Q"], Float32[np.ndarray, "n W"]]:
        """Returns the nearest codes and the latents of vectors.

        Args:
          values: Vectors of the model's input width.
          sizes: Restricts each level to its first codes; None allows all.
        """
        sizes = self.sizes if sizes is None else sizes
        spec = quantizer.Quantization(sizes)
        if self.arch is not None:
            spec = dataclasses.replace(self.arch.quantization, sizes=sizes)
        books = [book[:k] for book, k in zip(self.codebooks, sizes, strict=True)]
        vectors = rqvae.pad_codebooks([jnp.asarray(book) for book in books], max(sizes))

        @jax.jit
        def encode_block(x):
            z = x
            if self.arch is not None:
                model = rqvae.RQVAE(self.arch)
                z = cast(jax.Array, model.apply(self.variables, x, method="encode"))
            return quantizer.quantize_batch(z, vectors, spec, training=False).codes, z

        codes, latents = _in_blocks(encode_block, values, "encode")
        return codes.astype(np.int32), latents

    def decode(self, codes: Int[np.ndarray, "n Q"]) -> Float32[np.ndarray, "n D"]:
        """Returns the vectors that codes stand for.

        Args:
          codes: Codes of each level, below its size.
        """
        books = zip(self.codebooks, codes.T, strict=True)
        latents = np.sum([book[column] for book, column in books], axis=0)
        if self.arch is None:
            return latents

        @jax.jit
        def decode_block(z):
            model = rqvae.RQVAE(cast(rqvae.Architecture, self.arch))
            return (model.apply(self.variables, z, method="decode"),)

        return _in_blocks(decode_block, latents, "decode")[0]


def _in_blocks(
    function: Callable, values: Float32[np.ndarray, "n D"], what: str
) -> tuple[Shaped[np.ndarray, "n ..."], ...]:
    """Applies a compiled function block by block; shows progress on a terminal."""
    parts = []
    with tqdm(total=len(values), unit="item", desc=what, disable=None) as bar:
        for start in range(0, len(values), _BLOCK):
            part = values[start : start + _BLOCK]
            # Every block is full, so that one program serves all.
            full = np.resize(part, (_BLOCK, part.shape[1]))
            results = jax.device_get(function(full))
            parts.append([array[: len(part)] for array in results])
            bar.update(len(part))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
