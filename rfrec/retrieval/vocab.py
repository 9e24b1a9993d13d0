# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps codes to tokens of the T5, by one arithmetic rule per block.

A vocabulary is a list of blocks (codes of a modality and level, prompt of a task,
separator, user buckets). Layouts:

- `compact`: padding 0, end 1, then the blocks in the order in which they were added.
- `t5`: the 32,100 pieces of T5, then the codes. Codes that are added together are
  sorted as strings (`<A_0>`, `<A_10>`, `<A_1>`, ...) and prompts are pieces, as in
  MQL4GRec.

A vocabulary only grows at its end: the number of a token never changes.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Int32

from rfrec.codes import table
from rfrec.config import UserError

PAD, END = 0, 1
T5_PIECES = 32_100
LAYOUTS = ("compact", "t5")
KINDS = ("code", "prompt", "separator", "user")
_PROMPT_SPACING = 100


@dataclasses.dataclass(frozen=True)
class Block:
    """Tokens that belong together.

    Attributes:
      kind: One of `KINDS`.
      name: Modality of codes, task of a prompt, else empty.
      level: Level of codes, from 0; otherwise 0.
      size: Number of tokens.
      start: First token. Codes of the T5 layout that were added together share it;
        they are mixed in the order of their strings.
    """

    kind: str
    name: str
    level: int
    size: int
    start: int

    @property
    def key(self) -> tuple[str, str, int]:
        """Identifies the block, wherever it starts."""
        return self.kind, self.name, self.level

    @property
    def label(self) -> str:
        """Names the block in messages."""
        level = f" level {self.level}" if self.kind == "code" else ""
        return f"{self.kind} {self.name}".strip() + level

    def strings(self) -> list[str]:
        """Spells the tokens, for tokenizer files and the order of the T5 layout."""
        if self.kind == "code":
            name = table.level_prefix(self.level)
            name = name.upper() if self.name == "image" else name
        else:
            name = self.name if self.kind == "prompt" else self.kind
        return [f"<{name}_{i}>" for i in range(self.size)]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Blocks of tokens; created by `build`.

    Attributes:
      layout: One of `LAYOUTS`.
      blocks: Blocks in the order in which they were added.
    """

    layout: str = "compact"
    blocks: tuple[Block, ...] = ()

    @property
    def size(self) -> int:
        """Number of tokens: rows of the embedding."""
        if self.layout == "compact":
            return END + 1 + sum(block.size for block in self.blocks)
        own = (block.size for block in self.blocks if block.kind != "prompt")
        return T5_PIECES + sum(own)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that have codes, in the order in which they were added."""
        return tuple(dict.fromkeys(b.name for b in self.blocks if b.kind == "code"))

    def sizes(self, modality: str) -> tuple[int, ...]:
        """Codes per level of a modality."""
        return tuple(block.size for block in self._levels(modality))

    def code_tokens(self, modality: str) -> tuple[Int32[np.ndarray, "_"], ...]:
        """Returns the token of each code, one array per level."""
        return tuple(self.tokens(block) for block in self._levels(modality))

    def level_range(self, modality: str) -> tuple[tuple[int, int], ...]:
        """Returns first token and size per level: code c is token first + c.

        Raises:
          ValueError: In the T5 layout, where codes do not follow one another.
        """
        if self.layout != "compact":
            raise ValueError(
                "only the compact layout keeps the codes of a level in order"
            )
        return tuple((block.start, block.size) for block in self._levels(modality))

    def prompt(self, task: str) -> Int32[np.ndarray, "_"]:
        """Returns all prompt tokens of a task; empty if it has none."""
        block = self.find("prompt", task)
        return np.zeros(0, np.int32) if block is None else self.tokens(block)

    @property
    def separator(self) -> int | None:
        """Token after each item, None if the vocabulary has none."""
        block = self.find("separator")
        return None if block is None else block.start

    def user_tokens(self, names: Sequence[str]) -> Int32[np.ndarray, "U"]:
        """Hashes users into their buckets, the same on every machine (CRC-32).

        Raises:
          UserError: The vocabulary has no user buckets.
        """
        block = self.find("user")
        if block is None:
            raise UserError("the vocabulary has no user tokens; set user_buckets > 0")
        hashes = (zlib.crc32(name.encode()) for name in names)
        return (block.start + np.fromiter(hashes, np.int64) % block.size).astype("i4")

    def find(self, kind: str, name: str = "", level: int = 0) -> Block | None:
        """Returns a block, or None if the vocabulary lacks it."""
        wanted = (kind, name, level)
        return next((block for block in self.blocks if block.key == wanted), None)

    def tokens(self, block: Block) -> Int32[np.ndarray, "_"]:
        """Returns the tokens of a block by number."""
        if self.layout == "compact" or block.kind != "code":
            return np.arange(block.start, block.start + block.size, dtype=np.int32)
        mixed = (b for b in self.blocks if b.kind == "code" and b.start == block.start)
        ordered = sorted(string for b in mixed for string in b.strings())
        token = {string: rank for rank, string in enumerate(ordered, block.start)}
        return np.asarray([token[string] for string in block.strings()], np.int32)

    def _levels(self, modality: str) -> list[Block]:
        blocks = [b for b in self.blocks if b.kind == "code" and b.name == modality]
        if not blocks:
            known = ", ".join(self.modalities) or "none"
            raise UserError(f"the vocabulary has no {modality} codes; it has {known}")
        return sorted(blocks, key=lambda block: block.level)


def build(
    codes: Mapping[str, Sequence[int]],
    *,
    prompts: Mapping[str, int] | None = None,
    separator: bool = False,
    user_buckets: int = 0,
    layout: str = "compact",
) -> Vocabulary:
    """Builds a vocabulary.

    Args:
      codes: Sizes of the levels by modality (`text`, `image`).
      prompts: Number of prompt tokens by task, 0 for a task without; their order
        gives the pieces of the T5 layout. See `rfrec.retrieval.tasks.prompt_sizes`.
      separator: Whether there is a separator token.
      user_buckets: Number of user tokens.
      layout: One of `LAYOUTS`.

    Raises:
      UserError: An unknown layout or modality, a size below 1, too long a prompt.
    """
    if layout not in LAYOUTS:
        raise UserError(
            f"vocabulary layout {layout!r} does not exist; use one of"
            f" {', '.join(LAYOUTS)}"
        )
    return grow(
        Vocabulary(layout),
        codes,
        prompts=prompts,
        separator=separator,
        user_buckets=user_buckets,
    )


def grow(
    vocabulary: Vocabulary,
    codes: Mapping[str, Sequence[int]],
    *,
    prompts: Mapping[str, int] | None = None,
    separator: bool = False,
    user_buckets: int = 0,
) -> Vocabulary:
    """Adds missing blocks after the existing tokens.

    Rows 0..size-1 of an embedding keep their meaning; no block is removed.

    Args:
      vocabulary: Vocabulary to extend.
      codes: See `build`.
      prompts: See `build`.
      separator: See `build`.
      user_buckets: See `build`.

    Raises:
      UserError: As `build`, or a block is there already with another size.
    """
    for modality, sizes in codes.items():
        if modality not in ("text", "image"):
            raise UserError(f"modality {modality!r} is neither text nor image")
        if not sizes or min(sizes) < 1:
            raise UserError(f"{modality} codes of sizes {tuple(sizes)}: need 1 or more")
    wanted = [
        ("code", modality, level, size)
        for modality, sizes in codes.items()
        for level, size in enumerate(sizes)
    ]
    wanted += [("prompt", task, 0, size) for task, size in (prompts or {}).items()]
    wanted += [("separator", "", 0, 1)] * separator
    wanted += [("user", "", 0, user_buckets)] * (user_buckets > 0)
    positions = {task: position for position, task in enumerate(prompts or {})}
    blocks, end = list(vocabulary.blocks), vocabulary.size
    first_code = end
    for kind, name, level, size in wanted:
        block = vocabulary.find(kind, name, level)
        if block is not None:
            _check_size(block, size)
        elif kind == "prompt" and vocabulary.layout == "t5":
            start = _free_pieces(blocks, positions[name], name, size)
            blocks += [Block(kind, name, level, size, start)] * (size > 0)
        elif size:
            shared = kind == "code" and vocabulary.layout == "t5"
            start = first_code if shared else end
            blocks.append(Block(kind, name, level, size, start))
            end += size
    return Vocabulary(vocabulary.layout, tuple(blocks))


def _check_size(block: Block, size: int) -> None:
    if block.size != size:
        raise UserError(
            f"vocabulary: block '{block.label}' has {block.size} tokens, {size} are"
            " wanted; keep its size, or train from scratch"
        )


def _free_pieces(blocks: Sequence[Block], position: int, task: str, size: int) -> int:
    """Returns the first piece of a prompt: 100 (i + 1) for task i, if it is free."""
    if size > _PROMPT_SPACING:
        raise UserError(
            f"prompt of {task}: {size} tokens, the T5 layout allows {_PROMPT_SPACING};"
            " lower prompt_tokens"
        )
    taken = {block.start for block in blocks if block.kind == "prompt"}
    start = _PROMPT_SPACING * (position + 1)
    while start in taken:
        start += _PROMPT_SPACING
    return start


def item_tokens(
    vocabulary: Vocabulary, modality: str, codes: Int[np.ndarray, "N Q"]
) -> Int32[np.ndarray, "N Q"]:
    """Returns the tokens of codes; rows of -1 (items without codes) become padding.

    Raises:
      UserError: A code lies outside its level, or the number of levels differs.
    """
    known = (codes >= 0).any(axis=1, keepdims=True)
    table.check_codes(np.where(known, codes, 0), vocabulary.sizes(modality))
    columns = [
        tokens[codes[:, level]]
        for level, tokens in enumerate(vocabulary.code_tokens(modality))
    ]
    return np.where(known, np.stack(columns, axis=1), PAD).astype(np.int32)


def token_strings(vocabulary: Vocabulary) -> list[str]:
    """Returns the string of every token, token 0 first.

    Returns:
      `<pad>`, `</s>`, then `<a_0>` and the like; `<piece_7>` for piece 7 of T5.
    """
    strings = [f"<piece_{token}>" for token in range(vocabulary.size)]
    strings[PAD], strings[END] = "<pad>", "</s>"
    for block in vocabulary.blocks:
        tokens = vocabulary.tokens(block).tolist()
        for token, string in zip(tokens, block.strings(), strict=True):
            strings[token] = string
    return strings
