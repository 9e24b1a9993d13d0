# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer as a library: item vectors in, unique semantic codes out."""

import contextlib
import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
from jaxtyping import Float32, Int, Int32, Shaped
from safetensors import numpy as safetensors_numpy

from rfrec import config as cfg
from rfrec import files
from rfrec.codes import growth, table
from rfrec.config import UserError
from rfrec.data import features
from rfrec.tokenizer import fitting
from rfrec.tokenizer.encoder import Encoder
from rfrec.tokenizer.fitting import CRITERIA, Options, Tokenized
from rfrec.train.checkpoint import Checkpoints, MemoryCheckpoints
from rfrec.typing import PyTree

# The autoencoder learns first; k-means of its latents then fixes codes that collide
# rarely, and only the decoder learns on.
DEFAULTS = cfg.override(
    Options(), sizes=(256, 256, 256, 256), epochs=100, kmeans_restarts=4
)
_FILE = "tokenizer.safetensors"
_FORMAT = "rfrec tokenizer 1"


class ItemTokenizer:
    """Turns item vectors into short tuples of codes, unique for each item.

    An RQ-VAE encodes a vector into a latent and approximates it by a sum of code
    vectors, one of each level: the first level decides the rough region, each further
    one refines it (Lee et al. 2022, "Autoregressive Image Generation using Residual
    Quantization"; Rajput et al. 2023, "Recommender Systems with Generative Retrieval").
    Similar items share their first codes. Colliding codes are repaired at the least
    distance.

    Attributes:
      options: All options, see `rfrec.tokenizer.fitting.Options`.
      codes: Codes [N, Q] of the fitted items, int32, unique after `repair="assign"`.
      codes_before_repair: Nearest codes [N, Q], which may collide.
      report: Statistics: `codes` before and after the repair, `levels` (use and
        perplexity of each codebook), `energy_left` (share of the squared norm that the
        reconstruction misses), `seconds` and the metrics of each checkpoint, `models`.
    """

    def __init__(
        self,
        sizes: tuple[int, ...] = DEFAULTS.codebook.sizes,
        *,
        seed: int = 0,
        **options: Any,
    ):
        """Stores the options.

        Args:
          sizes: Number of codes of each level.
          seed: Seed of initialisation, order and k-means.
          **options: Options by the names of their fields in
            `rfrec.tokenizer.fitting.Options`, for example `latent_width`, `hidden`,
            `epochs`, `batch_size`, `lr`, `estimator="rotation"`, `repair="suffix"`, or
            `method="rkmeans"` for residual k-means without training.

        Raises:
          UserError: An option does not exist, is not allowed or cannot be combined with
            another.
        """
        self.options = cfg.override(DEFAULTS, sizes=sizes, seed=seed, **options)
        fitting.check(self.options)
        self._encoder: Encoder | None = None
        self._factor = np.float32(1.0)
        self._codes = self._nearest = np.zeros((0, len(sizes)), np.int32)
        self.report: dict[str, Any] = {}

    def __repr__(self) -> str:
        state = "not fitted"
        if self._encoder is not None:
            after = self.report["codes"]["after"]
            state = f"fitted on {after['items']} items, {after['distinct']} tuples"
        sizes, method = self.options.codebook.sizes, self.options.model.method
        return f"ItemTokenizer(sizes={tuple(sizes)}, method={method!r}, {state})"

    @property
    def codes(self) -> Int32[np.ndarray, "N _"]:
        """Codes of the fitted items after repair."""
        self._fitted()
        return self._codes

    @property
    def codes_before_repair(self) -> Int32[np.ndarray, "N Q"]:
        """Nearest codes of the fitted items."""
        self._fitted()
        return self._nearest

    def fit(
        self,
        vectors: Shaped[np.ndarray, "..."],
        workdir: str | os.PathLike[str] | None = None,
    ) -> "ItemTokenizer":
        """Trains the model, and tokenizes and repairs the items.

        Args:
          vectors: One finite vector for each item, [N, D]. They are scaled to mean
            square 1; results are in the original scale.
          workdir: Folder for metrics and checkpoints. An interrupted run resumes there,
            with the same result as without the interruption. None stores nothing.

        Returns:
          The tokenizer itself.

        Raises:
          UserError: The vectors are no finite matrix, are fewer than the codes of a
            level or more than there are code tuples, or the folder belongs to other
            vectors or options.
        """
        x = _check_vectors(vectors)
        _check_count(len(x), self.options)
        square = float(np.mean(x.astype(np.float64) ** 2))
        if square == 0:
            raise UserError("vectors: all values are zero; there is nothing to learn")
        factor = np.float32(1 / math.sqrt(square))
        x = x * factor
        started = time.monotonic()
        if self.options.model.method == "rkmeans":
            tokenized = fitting.cluster(x, self.options)
            measured: dict[str, Any] = {"seconds": time.monotonic() - started}
        else:
            fit = self._train(x, workdir)
            tokenized = fit.tokenized
            measured = {"seconds": fit.seconds, "models": fit.models}
        return self._set(tokenized, factor, measured)

    def _train(
        self, x: Float32[np.ndarray, "N D"], workdir: str | os.PathLike[str] | None
    ) -> fitting.Fit:
        folder = None if workdir is None else Path(workdir).expanduser()
        options = json.dumps(dataclasses.asdict(self.options), sort_keys=True)
        trainer = fitting.build_trainer(self.options, x)
        with contextlib.ExitStack() as stack:
            if folder is None:
                checkpoints = MemoryCheckpoints(lowest=CRITERIA)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                checkpoints = Checkpoints(folder, lowest=CRITERIA)
            stack.enter_context(checkpoints)
            return fitting.train(
                trainer,
                checkpoints,
                chosen=self.options.codes.checkpoint,
                notes={"items": features.fingerprint(x), "options": options},
                workdir=folder,
                what="item vectors or options",
            )

    @classmethod
    def from_fitted(
        cls, options: Options, tokenized: Tokenized, factor: float = 1.0
    ) -> "ItemTokenizer":
        """Returns a tokenizer with a trained model.

        Args:
          options: Options of the model.
          tokenized: The items of its training, tokenized.
          factor: Factor of the vectors before they are encoded.
        """
        tokenizer = cls.__new__(cls)
        plain = {field.name: getattr(options, field.name) for field in _FIELDS}
        tokenizer.options = Options(**plain)
        return tokenizer._set(tokenized, np.float32(factor), {})

    def _set(
        self, tokenized: Tokenized, factor: np.float32, measured: dict[str, Any]
    ) -> "ItemTokenizer":
        method = self.options.codes.repair
        repaired = tokenized.repair(method)
        self._encoder, self._factor = tokenized.encoder, factor
        self._codes = repaired.codes
        self._nearest = tokenized.codes.astype(np.int32)
        self.report = {
            "energy_left": tokenized.energy_left,
            "codes": {"repair": method, **tokenized.describe(repaired)},
            "levels": tokenized.levels(),
            **measured,
        }
        return self

    def encode(
        self, vectors: Shaped[np.ndarray, "..."], *, repair: bool = True
    ) -> Int32[np.ndarray, "n Q"]:
        """Returns the codes of new items; the model and known codes do not change.

        Args:
          vectors: One vector for each new item, [n, D].
          repair: Whether codes differ from each other and from those of the fitted
            items: an item whose nearest codes are taken gets the nearest free ones.
            Otherwise the nearest codes are returned.

        Raises:
          UserError: The tokenizer is not fitted, the vectors do not fit, the code space
            is full, or the codes have a suffix, which cannot grow.
        """
        encoder = self._fitted()
        nearest, latents = encoder.encode(self._scaled(vectors))
        if not repair:
            return nearest
        if self._codes.shape[1] != len(encoder.sizes):
            raise UserError(
                "codes with a suffix cannot grow; use repair='assign' in the"
                " constructor, or encode(vectors, repair=False)"
            )
        return growth.assign_new(self._codes, nearest, latents, encoder.codebooks)

    def decode(self, codes: Int[np.ndarray, "n _"]) -> Float32[np.ndarray, "n D"]:
        """Returns the vectors that codes stand for.

        Args:
          codes: Codes of each level; a suffix is ignored.

        Raises:
          UserError: The tokenizer is not fitted, or a code does not exist.
        """
        encoder = self._fitted()
        codes = np.asarray(codes)[:, : len(encoder.sizes)]
        table.check_codes(codes, encoder.sizes)
        return encoder.decode(codes) / self._factor

    def reconstruct(
        self, vectors: Shaped[np.ndarray, "..."]
    ) -> Float32[np.ndarray, "n D"]:
        """Returns the approximation of vectors [n, D] by their nearest codes."""
        return self.decode(self.encode(vectors, repair=False))

    def save_codes(
        self, path: str | os.PathLike[str], item_ids: list[str] | None = None
    ) -> None:
        """Writes the codes as MQL4GRec's JSON index, which other commands read.

        Args:
          path: File to write, such as `codes.json`.
          item_ids: Name of each item; None numbers them from 0.

        Raises:
          UserError: The tokenizer is not fitted, or the file cannot be written.
        """
        modality = self.options.codes.modality
        table.write_index(path, self.codes, modality=modality, item_ids=item_ids)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fitted tokenizer to one file in a folder, atomically.

        Raises:
          UserError: The tokenizer is not fitted, or the file cannot be written.
        """
        encoder, path = self._fitted(), Path(folder).expanduser()
        arrays = {"codes": self._codes, "nearest": self._nearest}
        arrays |= {f"codebook/{i}": b for i, b in enumerate(encoder.codebooks)}
        flat = flax.traverse_util.flatten_dict(encoder.variables, sep="/")
        arrays |= {f"variables/{name}": array for name, array in flat.items()}
        content = {
            "options": dataclasses.asdict(self.options),
            "width": encoder.arch.input_width if encoder.arch else None,
            "factor": float(self._factor),
            "report": self.report,
        }
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be created: {error.strerror}") from error
        with files.replacing(path / _FILE) as partial:
            safetensors_numpy.save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()},
                partial,
                {"format": _FORMAT, "tokenizer": json.dumps(content)},
            )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ItemTokenizer":
        """Reads a tokenizer that `save` has written.

        Raises:
          UserError: The folder contains no tokenizer, or it is damaged.
        """
        path = Path(folder).expanduser() / _FILE
        try:
            with safetensors.safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                names = list(file.keys())
                arrays = {name: file.get_tensor(name) for name in names}
            if metadata.get("format") != _FORMAT:
                raise UserError(
                    f"{path} is not of the format {_FORMAT!r}; save it again"
                )
            content = json.loads(metadata["tokenizer"])
            tokenizer = cls.__new__(cls)
            tokenizer.options = cfg.override(Options(), **content["options"])
            tokenizer._restore(content, arrays)
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist; save a tokenizer there") from error
        except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}); save it again") from error
        return tokenizer

    def _restore(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        levels = range(len(self.options.codebook.sizes))
        codebooks = tuple(arrays[f"codebook/{level}"] for level in levels)
        prefix = "variables/"
        flat = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        variables: PyTree = flax.traverse_util.unflatten_dict(flat, sep="/")
        width = content["width"]
        arch = fitting.architecture(self.options, width) if width else None
        self._encoder = Encoder(codebooks, arch, variables)
        self._factor = np.float32(content["factor"])
        self._codes, self._nearest = arrays["codes"], arrays["nearest"]
        self.report = content["report"]

    def _fitted(self) -> Encoder:
        if self._encoder is None:
            raise UserError("the ItemTokenizer is not fitted; call fit(vectors) first")
        return self._encoder

    def _scaled(self, vectors: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "n D"]:
        encoder, x = self._fitted(), _check_vectors(vectors)
        arch, book = encoder.arch, encoder.codebooks[0]
        width = book.shape[1] if arch is None else arch.input_width
        if x.shape[1] != width:
            raise UserError(
                f"vectors have width {x.shape[1]}, the tokenizer was fitted on vectors"
                f" of width {width}"
            )
        return x * self._factor


_FIELDS = dataclasses.fields(Options)


def _check_vectors(vectors: Any) -> Float32[np.ndarray, "N D"]:
    """Returns vectors in float32, or refuses them."""
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.size:
        raise UserError(
            f"vectors have the shape {array.shape}; pass a matrix [items, width]"
        )
    if array.dtype.kind not in "fiu":
        raise UserError(f"vectors have the type {array.dtype}; pass numbers")
    x = array.astype(np.float32)
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        raise UserError(
            f"vectors: row {int(finite.argmin())} contains NaN or an infinite value"
            f" ({int((~finite).sum())} of {len(x)} rows)"
        )
    return x


def _check_count(items: int, options: Options) -> None:
    """Refuses a number of items for which there are too few or too many codes."""
    sizes, kmeans = options.codebook.sizes, options.codebook.init == "kmeans"
    kmeans = kmeans or options.model.method == "rkmeans"
    if kmeans and items < max(sizes):
        raise UserError(
            f"{items} items are fewer than the {max(sizes)} codes of a level; use"
            " smaller sizes"
        )
    if options.codes.repair == "assign" and items > math.prod(sizes):
        raise UserError(
            f"{items} items need distinct codes, but sizes {sizes} give only"
            f" {math.prod(sizes)} tuples; use larger sizes or one more level"
        )
