# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the vocabulary of a Hugging Face folder from its tokenizer, and writes it.

The string of a token (`<a_12>`) states its meaning. A folder that rfrec did not write
therefore needs no `rfrec_vocab.json`: the blocks are derived from its added tokens.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfrec.codes import table
from rfrec.config import UserError
from rfrec.retrieval import vocab, vocab_files
from rfrec.retrieval.vocab import Block, Vocabulary
from rfrec.typing import PyTree

# The vocab.json of rfrec; that name has another meaning in a tokenizer's folder.
FILE = "rfrec_vocab.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)
_STRING = re.compile(r"<([A-Za-z_0-9]+)_(0|[1-9][0-9]*)>")
# More levels than any code has; other words are names of prompts.
_LEVELS = {table.level_prefix(level): level for level in range(64)}


def write(
    folder: Path, vocabulary: Vocabulary, *, copied_from: Path | None = None
) -> None:
    """Writes the files of a tokenizer, and the vocabulary.

    Args:
      folder: Folder to write to.
      vocabulary: Vocabulary of the model.
      copied_from: Folder whose tokenizer files are copied instead.

    Raises:
      UserError: That folder has no tokenizer, or one with other tokens.
    """
    vocab_files.write(vocabulary, folder / FILE)
    if copied_from is None:
        vocab_files.tokenizer(vocabulary).save_pretrained(folder)
        return
    _check_strings(vocabulary, _strings(copied_from), copied_from)
    for name in _TOKENIZER_FILES:
        if (copied_from / name).is_file():
            shutil.copyfile(copied_from / name, folder / name)


def read(folder: Path) -> Vocabulary:
    """Reads the vocabulary of a folder.

    Code tokens may have been added in two steps (`<a_0>` ... before a first training,
    `<A_0>` ... before a second). Prompts of the T5 layout are ordinary pieces that
    nothing marks: extend the vocabulary by them.

    Raises:
      UserError: There is no tokenizer, or its code tokens have another order.
    """
    if (folder / FILE).is_file():
        return vocab_files.read(folder / FILE)
    strings = _strings(folder)
    groups = _groups(strings)
    if groups and min(map(min, groups.values())) < vocab.T5_PIECES:
        candidates = [_compact(groups)]
    else:
        candidates = list(_t5_candidates(groups))
    for vocabulary in candidates:
        if not _differing(vocabulary, strings):
            return vocabulary
    _check_strings(candidates[0], strings, folder)
    raise AssertionError("the first candidate differs")


def _groups(strings: Mapping[str, int]) -> dict[str, list[int]]:
    """Returns the tokens of each word, `<word_0>` first, words by their first token."""
    numbers: dict[str, dict[int, int]] = {}
    for string, token in strings.items():
        if match := _STRING.fullmatch(string):
            if match[1] in ("extra_id", "piece"):
                continue
            numbers.setdefault(match[1], {})[int(match[2])] = token
    groups = {word: [row[i] for i in sorted(row)] for word, row in numbers.items()}
    return dict(sorted(groups.items(), key=lambda pair: min(pair[1])))


def _compact(groups: Mapping[str, list[int]]) -> Vocabulary:
    blocks = []
    for word, tokens in groups.items():
        kind, name, level = "prompt", word, 0
        if word.lower() in _LEVELS and (word.islower() or word.isupper()):
            kind, level = "code", _LEVELS[word.lower()]
            name = "text" if word.islower() else "image"
        elif word in ("separator", "user"):
            kind, name = word, ""
        blocks.append(Block(kind, name, level, len(tokens), min(tokens)))
    return Vocabulary("compact", tuple(blocks))


def _t5_candidates(groups: Mapping[str, list[int]]) -> Iterator[Vocabulary]:
    """Yields vocabularies whose codes were added together, or in two steps.

    The most likely one is first: error messages refer to it.
    """
    codes: dict[str, list[int]] = {"text": [], "image": []}
    for prefix, level in _LEVELS.items():
        for modality, word in (("text", prefix), ("image", prefix.upper())):
            if word in groups and len(codes[modality]) == level:
                codes[modality].append(len(groups[word]))
    known = {modality: sizes for modality, sizes in codes.items() if sizes}
    yield vocab.build(known, layout="t5")
    if len(known) == 2:
        for first, second in (("text", "image"), ("image", "text")):
            start = vocab.build({first: known[first]}, layout="t5")
            yield vocab.grow(start, {second: known[second]})


def _differing(vocabulary: Vocabulary, strings: Mapping[str, int]) -> list[str]:
    """Returns the strings whose number differs from that in a tokenizer."""
    wanted = {
        string: int(token)
        for block in vocabulary.blocks
        if block.kind == "code" or vocabulary.layout == "compact"
        for string, token in zip(block.strings(), vocabulary.tokens(block), strict=True)
    }
    return [name for name, token in wanted.items() if strings.get(name) != token]


def _check_strings(
    vocabulary: Vocabulary, strings: Mapping[str, int], folder: Path
) -> None:
    for name in _differing(vocabulary, strings):
        state = f"is token {strings[name]}" if name in strings else "is missing"
        raise UserError(
            f"{folder}: {name} {state} in its tokenizer; the order of this vocabulary"
            f" ({vocabulary.layout} layout) is different"
        )


def _strings(folder: Path) -> dict[str, int]:
    """Reads the numbers of a tokenizer's strings, from any of the files it may have."""
    strings: dict[str, int] = {}
    names = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not names:
        raise UserError(f"{folder} has no tokenizer; copy the files of its tokenizer")
    for name in names:
        if not name.endswith(".json"):
            continue
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            strings |= {str(k): int(v) for k, v in _entries(name, content)}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{folder / name} is damaged ({reason})") from error
    return strings


def _entries(name: str, content: Any) -> Iterable[tuple[str, int]]:
    """Returns the strings of one file and their numbers."""
    if name == "tokenizer.json":
        pieces = content["model"]["vocab"]
        if isinstance(pieces, dict):
            yield from pieces.items()
        else:
            yield from ((piece[0], i) for i, piece in enumerate(pieces))
        yield from ((t["content"], t["id"]) for t in content.get("added_tokens", ()))
    elif name == "tokenizer_config.json":
        added = content.get("added_tokens_decoder", {})
        yield from ((t["content"], int(token)) for token, t in added.items())
    elif name == "added_tokens.json":
        yield from content.items()


def move_rows(
    params: PyTree, source: Vocabulary, target: Vocabulary, base: PyTree
) -> PyTree:
    """Returns a model with another vocabulary; rows of tokens are moved.

    Args:
      params: Parameters of a model with the vocabulary `source`.
      source: Vocabulary of the parameters.
      target: Vocabulary of the result.
      base: Parameters of a model with the vocabulary `target` and otherwise the same
        shape; rows of tokens that `source` lacks are taken from it.

    Raises:
      UserError: A block is missing in the target, or has another size.
    """
    from_rows, to_rows = [[vocab.PAD, vocab.END]], [[vocab.PAD, vocab.END]]
    for block in source.blocks:
        other = target.find(*block.key)
        if other is None or other.size != block.size:
            size = 0 if other is None else other.size
            raise UserError(
                f"block '{block.label}' has {block.size} tokens, the other vocabulary"
                f" {size}; use one with the same codes and prompts"
            )
        from_rows.append(source.tokens(block).tolist())
        to_rows.append(target.tokens(other).tolist())
    rows, new_rows = np.concatenate(from_rows), np.concatenate(to_rows)
    moved = {}
    for name in ("embedding", "output"):
        if name in params:
            array = np.array(base[name], np.float32)
            array[new_rows] = np.asarray(params[name])[rows]
            moved[name] = array
    return {**params, **moved}
