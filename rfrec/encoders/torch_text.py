# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text encoders of Hugging Face folders: texts in, vectors out.

Language models such as LLaMA give the mean of the last hidden state over the tokens, as
MQL4GRec takes it; sentence encoders what their own files say, see
`rfrec.encoders.sentence`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from rfrec.config import UserError
from rfrec.encoders import sentence, torch_models
from rfrec.encoders.folder import Folder
from rfrec.encoders.sentence import Recipe

_BIDIRECTIONAL = (
    *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra"),
    *("modernbert", "mpnet", "roberta", "t5", "xlm-roberta"),
)
_CAUSAL = (
    *("gemma", "gemma2", "gpt2", "gpt_neox", "llama", "mistral", "opt", "phi3"),
    *("qwen2", "qwen3"),
)
MODEL_TYPES = (*_BIDIRECTIONAL, *_CAUSAL)
# They number positions from the padding token's number on, and lose as many.
_OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta")
_TOKENIZERS = ("tokenizer.json", "vocab.*", "*.model")
# Tokenized at once.
_CHUNK = 1024

Tokens = Int[np.ndarray, "_"]


class Encoder(NamedTuple):
    """A loaded text encoder.

    Attributes:
      model: Gives the last hidden state.
      tokenizer: Its own.
      recipe: From states to vectors.
      max_tokens: Longest input.
      device: Where the model is.
    """

    model: Any
    tokenizer: Any
    recipe: Recipe
    max_tokens: int
    device: str


def load(
    folder: Folder, recipe: Recipe, *, max_tokens: int | None, dtype: str, device: str
) -> Encoder:
    """Loads an encoder.

    Args:
      folder: Checkpoint of one of `MODEL_TYPES`.
      recipe: How token states become vectors.
      max_tokens: Maximum number of tokens, with special ones; None uses the limit of
        the folder.
      dtype: Data type of the weights, one of `torch_models.DTYPES`.
      device: Device, `cpu` or `cuda`.

    Raises:
      UserError: The folder is damaged, or its limit is below `max_tokens` or unknown.
    """
    import transformers

    if not any(any(folder.path.glob(form)) for form in _TOKENIZERS):
        # Transformers would create an empty tokenizer, without any word.
        raise UserError(
            f"{folder.path}: contains no tokenizer ({', '.join(_TOKENIZERS)}); copy its"
            " files from the checkpoint"
        )
    tokenizer = torch_models.load_processor(transformers.AutoTokenizer, folder.path)
    if tokenizer.pad_token_id is None:
        # Language models have none; padding is masked anyway.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{folder.path}: its tokenizer has no padding token; set"
            " pad_token in tokenizer_config.json"
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    # T5 is used without its decoder.
    name = "T5EncoderModel" if folder.model_type == "t5" else "AutoModel"
    model: Any = torch_models.load_model(
        getattr(transformers, name),
        folder.path,
        dtype=dtype,
        device=device,
        unused=("pooler.",),
    )
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise UserError(
            f"{folder.path}: its tokenizer has {len(tokenizer)} tokens and its model"
            f" {rows}; they belong to different checkpoints, copy it again"
        )
    longest = _limit(folder, recipe, tokenizer, model, max_tokens)
    return Encoder(model, tokenizer, recipe, longest, device)


def tokenize(encoder: Encoder, texts: Sequence[str]) -> tuple[list[Tokens], int]:
    """Tokenizes texts, with special tokens.

    Returns:
      The tokens of each text, and the number of texts that were truncated.
    """
    tokens: list[Tokens] = []
    cut = 0
    recipe, options = encoder.recipe, {"add_special_tokens": True, "verbose": False}
    for start in range(0, len(texts), _CHUNK):
        chunk = [recipe.prompt + text for text in texts[start : start + _CHUNK]]
        chunk = [text.lower() for text in chunk] if recipe.lower else chunk
        listed = encoder.tokenizer(chunk, **options)["input_ids"]
        for row, ids in enumerate(listed):
            if len(ids) > encoder.max_tokens:
                cut += 1
                # Tokenized again, because special tokens at the end must be kept.
                ids = encoder.tokenizer(
                    chunk[row],
                    truncation=True,
                    max_length=encoder.max_tokens,
                    **options,
                )["input_ids"]
            tokens.append(np.asarray(ids, np.int32))
    return tokens, cut


def pad(encoder: Encoder, tokens: Sequence[Tokens]) -> dict[str, Any]:
    """Returns a padded batch of tensors, with the attention mask."""
    rows = [ids.tolist() for ids in tokens]
    return dict(encoder.tokenizer.pad({"input_ids": rows}, return_tensors="pt"))


def encode(encoder: Encoder, batch: dict[str, Any]) -> Float32[np.ndarray, "B D"]:
    """Encodes a batch of `pad`.

    Raises:
      UserError: The batch does not fit into the GPU's memory.
    """
    import torch

    mask = batch["attention_mask"].to(encoder.device)
    ids = batch["input_ids"].to(encoder.device)
    with (
        torch_models.out_of_memory("a smaller config.text.batch_size or max_tokens"),
        torch.inference_mode(),
    ):
        states = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = _pool(states.float(), mask, encoder.recipe.pooling).cpu().numpy()
    return sentence.finish(pooled, encoder.recipe.layers, encoder.recipe.normalise)


def _pool(states: Any, mask: Any, pooling: str) -> Any:
    """Returns a vector for each row of [B T D], padded on the right under [B T]."""
    import torch

    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask[..., None].float()
    # States of padding may be NaN, so they are replaced instead of multiplied by zero.
    return torch.where(weights > 0, states, 0).sum(1) / weights.sum(1).clamp(min=1)


def _limit(
    folder: Folder, recipe: Recipe, tokenizer: Any, model: Any, wanted: int | None
) -> int:
    """Returns the maximum number of tokens: wanted, of the recipe, or of the model."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and folder.model_type in _OFFSET_POSITIONS:
        positions -= model.config.pad_token_id + 1
    known = [
        positions,
        # Transformers uses 10^30 if a tokenizer has no limit.
        tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None,
    ]
    limits = [limit for limit in known if limit]
    least = tokenizer.num_special_tokens_to_add() + 1
    if wanted is not None and wanted < least:
        raise UserError(
            f"config.text.max_tokens={wanted}: {folder.path} needs at least {least},"
            " with special tokens"
        )
    if wanted is not None and wanted > min(limits, default=wanted):
        raise UserError(
            f"config.text.max_tokens={wanted}: {folder.path} allows at most"
            f" {min(limits)}"
        )
    longest = wanted or recipe.max_tokens or min(limits, default=None)
    if longest is None:
        raise UserError(
            f"{folder.path}: states no maximum length; set config.text.max_tokens"
        )
    return longest
