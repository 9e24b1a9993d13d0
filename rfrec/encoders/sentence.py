# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""How a checkpoint turns token states into one vector; torch is not needed.

A folder of sentence-transformers lists its steps in `modules.json` (Reimers and
Gurevych 2019, Sentence-BERT). Other folders take the mean of the last hidden state over
the tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rfrec.config import UserError
from rfrec.encoders.folder import Folder, read_json

POOLINGS = ("mean", "cls", "last")
# Keys of the poolings in older files, and their names in newer ones.
_FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}
_NAMES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_ACTIVATIONS = {"Identity": lambda x: x, "Tanh": np.tanh}


class Dense(NamedTuple):
    """A layer after pooling, computed on the host: it is small.

    Attributes:
      kernel: Weights [O, I], as torch stores them.
      bias: Bias; None without one.
      activation: Name of the activation function.
    """

    kernel: Float32[np.ndarray, "O I"]
    bias: Float32[np.ndarray, " O"] | None
    activation: str


class Recipe(NamedTuple):
    """Steps before and after the transformer.

    Attributes:
      pooling: One of `POOLINGS`: `mean` over the tokens of the attention mask, `cls`:
        the first token, `last`: the last token.
      normalise: Whether vectors are scaled to length 1.
      max_tokens: Maximum number of tokens, with special ones; None if the folder states
        no limit.
      lower: Whether texts are converted to lower case.
      prompt: Text before each text.
      layers: Layers after pooling.
    """

    pooling: str = "mean"
    normalise: bool = False
    max_tokens: int | None = None
    lower: bool = False
    prompt: str = ""
    layers: tuple[Dense, ...] = ()


def read_recipe(folder: Folder) -> Recipe:
    """Reads the steps of a folder.

    Raises:
      UserError: The folder lists an unknown step, or one of its files is damaged.
    """
    if folder.modules is None:
        return Recipe()
    recipe = _prompted(folder, Recipe())
    for kind, path in folder.modules:
        if kind == "Transformer":
            recipe = _transformer(folder.path, path, recipe)
        elif kind == "Pooling":
            recipe = recipe._replace(pooling=_pooling(path, recipe.prompt))
        elif kind == "Dense":
            recipe = recipe._replace(layers=(*recipe.layers, _read_dense(path)))
        elif kind == "Normalize":
            recipe = recipe._replace(normalise=True)
        else:
            raise UserError(
                f"{folder.path}/modules.json: step {kind!r} is unknown; known:"
                " Transformer, Pooling, Dense, Normalize"
            )
    return recipe


def finish(
    pooled: Float32[np.ndarray, "B D"], layers: Sequence[Dense], normalise: bool
) -> Float32[np.ndarray, "B O"]:
    """Applies the layers after pooling; `normalise` scales vectors to length 1."""
    for layer in layers:
        pooled = pooled @ layer.kernel.T
        if layer.bias is not None:
            pooled = pooled + layer.bias
        pooled = _ACTIVATIONS[layer.activation](pooled)
    return unit_length(pooled) if normalise else pooled


def unit_length(x: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B D"]:
    """Returns rows scaled to length 1; rows of zeros are unchanged."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norm, np.float32(1e-12))


def _prompted(folder: Folder, recipe: Recipe) -> Recipe:
    file = folder.path / "config_sentence_transformers.json"
    if not file.is_file():
        return recipe
    settings = read_json(file)
    name = settings.get("default_prompt_name")
    if name is None:
        return recipe
    prompts = settings.get("prompts", {})
    if name not in prompts:
        raise UserError(
            f"{file}: default_prompt_name {name!r} is not among its prompts"
        )
    return recipe._replace(prompt=prompts[name])


def _transformer(root: Path, path: Path, recipe: Recipe) -> Recipe:
    if path.resolve() != root.resolve():
        raise UserError(
            f"{root}: its transformer is in {path.name}; use that folder itself, or"
            " move its files up"
        )
    file = path / "sentence_bert_config.json"
    if not file.is_file():
        return recipe
    settings = read_json(file)
    return recipe._replace(
        max_tokens=settings.get("max_seq_length"),
        lower=bool(settings.get("do_lower_case", False)),
    )


def _pooling(path: Path, prompt: str) -> str:
    file = path / "config.json"
    settings: dict[str, Any] = read_json(file)
    if prompt and not settings.get("include_prompt", True):
        raise UserError(
            f"{file}: include_prompt=false is not supported; choose another checkpoint"
        )
    if "pooling_mode" in settings:
        mode = settings["pooling_mode"]
        chosen = [_NAMES[mode]] if mode in _NAMES else []
    else:
        modes = [k for k, v in settings.items() if k.startswith("pooling_mode_") and v]
        chosen = [name for name, flag in _FLAGS.items() if modes == [flag]]
    if not chosen:
        raise UserError(
            f"{file}: the pooling is not one of {', '.join(POOLINGS)} alone;"
            " choose another checkpoint"
        )
    return chosen[0]


def _read_dense(path: Path) -> Dense:
    settings = read_json(path / "config.json")
    file = path / "model.safetensors"
    activation = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{path}/config.json: activation {activation!r} is unknown; known:"
            f" {', '.join(_ACTIVATIONS)}"
        )
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; use the checkpoint's safetensors, because pickles"
            " are never read"
        )
    try:
        arrays = load_file(file)
        kernel = np.asarray(arrays["linear.weight"], np.float32)
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{file}: is damaged ({error}); copy the checkpoint again"
        ) from error
    bias = arrays.get("linear.bias")
    return Dense(
        kernel, None if bias is None else np.asarray(bias, np.float32), activation
    )
