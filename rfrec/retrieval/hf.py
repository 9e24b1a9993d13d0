# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes folders of Hugging Face T5 models, without PyTorch.

A folder contains `config.json`, `model.safetensors` (or the shards of
`model.safetensors.index.json`) and the files of a tokenizer. The weights of linear
layers are [out, in] in Hugging Face and [in, out] in rfrec.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
from flax import traverse_util
from jax import numpy as jnp
from safetensors import numpy as safetensors_numpy

from rfrec import files
from rfrec.config import UserError
from rfrec.retrieval import hf_vocab, t5
from rfrec.retrieval.vocab import Vocabulary
from rfrec.typing import PyTree

_CONFIG, _TENSORS = "config.json", "model.safetensors"
_INDEX = f"{_TENSORS}.index.json"
_SHARED, _HEAD = "shared.weight", "lm_head.weight"
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Written by early versions of transformers and never read.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
# Names of the fields of an architecture in rfrec and in Hugging Face.
_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "d_ff": "d_ff",
    "d_kv": "d_kv",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_max_distance": "relative_attention_max_distance",
}

# Values of keys that early versions of transformers did not write.
_DEFAULTS = {"relative_buckets": 32, "relative_max_distance": 128}
# What to do if a file of a folder cannot be read.
_REMEDY = "use a folder that save_pretrained wrote"
_GENERATION = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


class Weights(NamedTuple):
    """A model: its shape and its parameters, host arrays in float32."""

    arch: t5.Architecture
    params: PyTree


def names(arch: t5.Architecture) -> dict[str, str]:
    """Returns the parameter name in rfrec of every tensor of Hugging Face.

    Raises:
      UserError: The model has a head for each level, which the T5 there lacks.
    """
    if arch.level_heads:
        raise UserError(
            "a model with a head for each level (TIGER's) has no Hugging Face form;"
            " train one without level heads"
        )
    by_tensor = {_SHARED: "embedding"} | ({} if arch.tied else {_HEAD: "output"})
    for stack, count in (
        ("encoder", arch.num_layers),
        ("decoder", arch.num_decoder_layers),
    ):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        by_tensor[bias] = f"{stack}/relative_bias"
        by_tensor[f"{stack}.final_layer_norm.weight"] = f"{stack}/final_norm/scale"
        for i in range(count):
            by_tensor |= _layer_names(arch, stack, i)
    return by_tensor


def _layer_names(arch: t5.Architecture, stack: str, i: int) -> dict[str, str]:
    parts = [("SelfAttention", "attention")]
    parts += [("EncDecAttention", "cross_attention")] * (stack == "decoder")
    parts += [("DenseReluDense", "feed_forward")]
    matrices = {"wi": "wi", "wo": "wo"}
    if arch.feed_forward == "gated-gelu":
        matrices = {"wi_0": "wi_gate", "wi_1": "wi", "wo": "wo"}
    by_tensor = {}
    for number, (theirs, ours) in enumerate(parts):
        there, here = f"{stack}.block.{i}.layer.{number}", f"{stack}/layers_{i}/{ours}"
        inside = matrices if ours == "feed_forward" else dict.fromkeys("qkvo")
        for name, own in inside.items():
            by_tensor[f"{there}.{theirs}.{name}.weight"] = f"{here}/{own or name}"
        by_tensor[f"{there}.layer_norm.weight"] = f"{here}_norm/scale"
    return by_tensor


def _is_linear(name: str) -> bool:
    return "Attention." in name and "bias" not in name or "DenseReluDense." in name


def to_tensors(weights: Weights) -> dict[str, np.ndarray]:
    """Returns the tensors by their names in Hugging Face, the embedding once.

    Raises:
      UserError: The model has a head for each level.
    """
    flat = traverse_util.flatten_dict(weights.params, sep="/")
    tensors = {}
    for name, own in names(weights.arch).items():
        array = np.asarray(flat[own], np.float32)
        tensors[name] = np.ascontiguousarray(array.T if _is_linear(name) else array)
    return tensors


def from_tensors(arch: t5.Architecture, tensors: Mapping[str, np.ndarray]) -> PyTree:
    """Returns parameters (or gradients, which have the same names and shapes).

    Args:
      arch: Shape of the model.
      tensors: Tensors by their names in Hugging Face, possibly with copies of the
        embedding.

    Raises:
      UserError: A tensor is missing, unknown, or has another shape or type.
    """
    wanted = names(arch)
    surplus = {*_COPIES, _UNUSED} | ({_HEAD} if arch.tied else set())
    for name in sorted(tensors.keys() - wanted.keys() - surplus):
        raise UserError(f"tensor {name} is none of this T5")
    shapes: dict[str, Any] = traverse_util.flatten_dict(_shapes(arch), sep="/")
    flat = {}
    for name, own in wanted.items():
        if name not in tensors:
            raise UserError(f"tensor {name} is missing")
        array = np.asarray(tensors[name])
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise UserError(f"tensor {name} of type {array.dtype} holds no weights")
        shape = shapes[own].shape[::-1] if _is_linear(name) else shapes[own].shape
        if array.shape != shape:
            raise UserError(f"tensor {name} has shape {array.shape}, not {shape}")
        array = array.astype(np.float32)
        flat[own] = np.ascontiguousarray(array.T if _is_linear(name) else array)
    return traverse_util.unflatten_dict(flat, sep="/")


def _shapes(arch: t5.Architecture) -> PyTree:
    return jax.eval_shape(lambda: t5.init(arch, jax.random.key(0)))


def architecture(config: Mapping[str, Any], *, tied: bool = True) -> t5.Architecture:
    """Returns the shape that a `config.json` describes.

    Args:
      config: Content of the file.
      tied: Whether the output is the embedding.

    Raises:
      UserError: The model is no T5, or of a kind that is not supported; names the key.
    """
    # A key without a value counts as missing.
    config = {name: value for name, value in config.items() if value is not None}
    _check_kind(config)
    sizes: dict[str, Any] = dict(_DEFAULTS)
    sizes["num_decoder_layers"] = config.get("num_layers")
    sizes |= {own: config[name] for own, name in _SIZES.items() if name in config}
    for own, name in _SIZES.items():
        value = sizes.get(own)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name} is {value!r}: must be a whole number >= 1")
    rates = {"dropout_rate": 0.1, "layer_norm_epsilon": 1e-6} | dict(config)
    for name in ("dropout_rate", "layer_norm_epsilon"):
        if not isinstance(rates[name], int | float) or not 0 <= rates[name] < 1:
            raise UserError(f"{name} is {rates[name]!r}: must be a number in [0, 1)")
    return t5.Architecture(
        **sizes,
        feed_forward=config.get("feed_forward_proj", "relu"),
        dropout=float(rates["dropout_rate"]),
        epsilon=float(rates["layer_norm_epsilon"]),
        tied=tied,
    )


def _check_kind(config: Mapping[str, Any]) -> None:
    """Refuses other models, and a T5 with unsupported layers or tokens."""
    if config.get("model_type") != "t5":
        raise UserError(f"model_type is {config.get('model_type')!r}: not a T5")
    # By default a T5 starts its decoder with padding.
    for name, needed in _GENERATION.items():
        if config.get(name, needed) not in (needed, [needed]):
            raise UserError(f"{name} is {config[name]!r}: only {needed} is supported")
    feed_forward = config.get("feed_forward_proj", "relu")
    if feed_forward not in ("relu", "gated-gelu"):
        raise UserError(
            f"feed_forward_proj is {feed_forward!r}: use relu or gated-gelu"
        )


def to_config(arch: t5.Architecture) -> dict[str, Any]:
    """Returns the content of `config.json`."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **{name: getattr(arch, own) for own, name in _SIZES.items()},
        "feed_forward_proj": arch.feed_forward,
        "dropout_rate": arch.dropout,
        "layer_norm_epsilon": arch.epsilon,
        # Without this key, readers do not scale the decoder's output.
        "tie_word_embeddings": arch.tied,
        "scale_decoder_outputs": arch.tied,
        **_GENERATION,
        "use_cache": True,
        "dtype": "float32",
    }


def build(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Weights:
    """Returns the model of a config and its tensors.

    A tied output without scaling, and a free one with scaling, become a free output
    with the same logits.

    Raises:
      UserError: The config or a tensor is not supported, or they do not match.
    """
    tensors = dict(tensors)
    for name in _COPIES:
        if name in tensors:
            copy = tensors.pop(name)
            if not np.array_equal(copy, tensors.setdefault(_SHARED, copy)):
                raise UserError(f"tensor {name} differs from {_SHARED}: not a T5's")
    if _SHARED not in tensors:
        raise UserError(f"tensor {_SHARED} is missing")
    head = tensors.pop(_HEAD, tensors[_SHARED])
    tied = np.array_equal(head, tensors[_SHARED])
    scaled = config.get("scale_decoder_outputs")
    if scaled is None:
        scaled = config.get("tie_word_embeddings") is not False
    arch = architecture(config, tied=tied and bool(scaled))
    if not arch.tied:
        scale = arch.d_model**-0.5 if scaled else 1.0
        tensors[_HEAD] = np.asarray(head, np.float32) * np.float32(scale)
    return Weights(arch, from_tensors(arch, tensors))


def trim(weights: Weights, size: int) -> Weights:
    """Returns the model without the rows from token `size` on."""
    params = {
        name: value[:size] if name in ("embedding", "output") else value
        for name, value in weights.params.items()
    }
    return Weights(dataclasses.replace(weights.arch, vocab_size=size), params)


def read(folder: Path) -> Weights:
    """Reads a model.

    Raises:
      UserError: A file is missing or damaged, or contains no supported T5.
    """
    config = files.read_json(folder / _CONFIG, _REMEDY)
    tensors = _read_tensors(folder)
    try:
        return build(config, tensors)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    shard_files = [_TENSORS]
    if not (folder / _TENSORS).exists() and (folder / _INDEX).exists():
        shards = files.read_json(folder / _INDEX, _REMEDY).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise UserError(f"{folder / _INDEX} lists no shards; copy it again")
        shard_files = sorted({str(name) for name in shards.values()})
    tensors = {}
    for file in shard_files:
        path = folder / Path(file).name
        if not path.is_file():
            raise UserError(
                f"{path} does not exist; save the model with save_pretrained, which"
                " writes safetensors"
            )
        try:
            tensors |= safetensors_numpy.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{path} is damaged ({reason}); copy it again") from error
    return tensors


def write(
    folder: Path,
    weights: Weights,
    vocabulary: Vocabulary,
    *,
    tokenizer_of: Path | None = None,
) -> None:
    """Writes a folder that `from_pretrained` loads, whole or not at all.

    Args:
      folder: New or empty folder.
      weights: Model with one output over the vocabulary.
      vocabulary: Vocabulary of the model.
      tokenizer_of: Folder of a model whose tokenizer files are copied; None writes
        those of the vocabulary.

    Raises:
      UserError: The folder is not empty, the model has a head for each level, or the
        vocabulary is larger than the model's.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; use a new folder")
    arch = weights.arch
    if vocabulary.size > arch.vocab_size:
        raise UserError(
            f"the vocabulary has {vocabulary.size} tokens, the model {arch.vocab_size};"
            " use the model's own"
        )
    tensors = to_tensors(weights)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
        _write_model(partial, arch, tensors)
        hf_vocab.write(partial, vocabulary, copied_from=tokenizer_of)
        os.replace(partial, folder)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{folder} cannot be written ({reason})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_model(
    folder: Path, arch: t5.Architecture, tensors: dict[str, np.ndarray]
) -> None:
    _write_json(folder / _CONFIG, to_config(arch))
    _write_json(folder / "generation_config.json", _GENERATION)
    safetensors_numpy.save_file(tensors, folder / _TENSORS, metadata={"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
