# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of a vocabulary: `vocab.json`, and a tokenizer for `transformers`."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfrec import files
from rfrec.config import UserError
from rfrec.retrieval import vocab
from rfrec.retrieval.vocab import END, KINDS, LAYOUTS, PAD, Block, Vocabulary

if TYPE_CHECKING:
    import transformers


def write(vocabulary: Vocabulary, path: str | os.PathLike[str]) -> None:
    """Writes `vocab.json`, atomically.

    Raises:
      UserError: The path cannot be written.
    """
    path = Path(path)
    text = json.dumps(dataclasses.asdict(vocabulary), indent=1)
    with files.replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read(path: str | os.PathLike[str]) -> Vocabulary:
    """Reads `vocab.json`.

    Raises:
      UserError: The file is missing, damaged, or its blocks overlap.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON: {error}") from error
    return _from_json(content, path)


def _from_json(content: Any, path: Path) -> Vocabulary:
    """Checks every field, because a damaged file must not shift a token."""
    try:
        blocks = tuple(Block(**block) for block in content["blocks"])
        vocabulary = Vocabulary(content["layout"], blocks)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: is not a vocabulary: {error!r}") from error
    if vocabulary.layout not in LAYOUTS or not all(map(_sound, blocks)):
        raise UserError(f"{path}: is not a vocabulary: an unknown layout or block")
    tokens = [vocabulary.tokens(block) for block in blocks]
    flat = np.concatenate([np.asarray([PAD, END], np.int32), *tokens])
    distinct = len({block.key for block in blocks}) == len(blocks)
    full = vocabulary.layout == "t5" or len(flat) == vocabulary.size
    if not distinct or not full or len(np.unique(flat)) < len(flat):
        raise UserError(f"{path}: blocks overlap or leave gaps; copy the file again")
    if flat.max() >= vocabulary.size:
        raise UserError(f"{path}: blocks overlap or leave gaps; copy the file again")
    return vocabulary


def _sound(block: Block) -> bool:
    numbers = (block.level, block.size, block.start)
    return (
        block.kind in KINDS
        and isinstance(block.name, str)
        and all(type(number) is int for number in numbers)
        and block.level >= 0
        and block.size > 0
        and block.start > END
        and block.start + block.size <= np.iinfo(np.int32).max
    )


def tokenizer(vocabulary: Vocabulary) -> "transformers.PreTrainedTokenizerFast":
    """Builds a tokenizer that `transformers` saves and loads.

    It splits text into tokens such as `<a_1>`, adds `</s>` at the end and pads on the
    right with `<pad>`. Any other text is an error: there is no unknown token.

    Args:
      vocabulary: Vocabulary in any layout. In the T5 layout the 32,100 pieces are named
        `<piece_7>`, because the texts of T5's own pieces are not used.

    Raises:
      UserError: `transformers` is not installed.
    """
    try:
        import transformers
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from tokenizers.processors import TemplateProcessing
    except ImportError as error:
        raise UserError(f"{error}; pip install transformers") from error
    strings = vocab.token_strings(vocabulary)
    numbers = {string: token for token, string in enumerate(strings)}
    backend = Tokenizer(models.WordLevel(numbers, unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("<[^<>]*>"), "isolated")
    backend.decoder = decoders.Fuse()
    end = strings[END]
    backend.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, END)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=strings[PAD],
        eos_token=end,
        padding_side="right",
    )
