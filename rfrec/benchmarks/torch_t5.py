# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's side of the benchmark: its T5, used as in MQL4GRec.

Functions take arrays and return a function that runs a block of work. Tokens of the
histories and the trie, which are needed once, are prepared outside of the timed block.
Tokens are converted to codes by arithmetic, which MQL4GRec does with strings.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rfrec.benchmarks import torch_tokenizer
from rfrec.benchmarks.timing import Block
from rfrec.retrieval import hf
from rfrec.retrieval.batches import Batch
from rfrec.train.optim import Optimizer

_NEW_TOKENS = 10


def build(weights: hf.Weights, device: str) -> Any:
    """Builds the model with our weights."""
    import torch
    import transformers

    torch_tokenizer.set_up(device)
    config = transformers.T5Config.from_dict(hf.to_config(weights.arch))
    model: Any = transformers.T5ForConditionalGeneration(config)
    tensors = {name: torch.tensor(a) for name, a in hf.to_tensors(weights).items()}
    missing, unknown = model.load_state_dict(tensors, strict=False)
    # The embedding is shared; every other tensor is set.
    assert not unknown and all("embed_tokens" in n or "lm_head" in n for n in missing)
    model.tie_weights()
    return model.to(device)


def decode(
    weights: hf.Weights,
    histories: Sequence[Int[np.ndarray, "_ _"]],
    codes: Int[np.ndarray, "N Q"],
    level_tokens: Sequence[Int[np.ndarray, "_"]],
    *,
    beams: int,
    device: str,
) -> Block:
    """Prepares `generate` under a trie of the items.

    Args:
      weights: Weights of the model.
      histories: Tokens of each batch; 0 is padding.
      codes: Codes of the items.
      level_tokens: Token of each code, one array for each level.
      beams: Number of beams, and of returned items.
      device: `cpu` or `cuda`.

    Returns:
      A function that searches for the next batch, in turn, and returns codes and
      scores, best first.
    """
    import torch

    model = build(weights, device).eval()
    columns = zip(level_tokens, codes.T, strict=True)
    allowed = prefixes(np.stack([tokens[column] for tokens, column in columns], axis=1))
    placed = [torch.tensor(tokens, device=device).long() for tokens in histories]

    def search(tokens):
        output = model.generate(
            input_ids=tokens,
            attention_mask=(tokens != 0).long(),
            max_new_tokens=_NEW_TOKENS,
            num_beams=beams,
            num_return_sequences=beams,
            early_stopping=True,
            prefix_allowed_tokens_fn=allowed,
            output_scores=True,
            return_dict_in_generate=True,
        )
        shape = (len(tokens), beams)
        scores = output.sequences_scores.cpu().numpy().reshape(*shape, 1)
        tokens = output.sequences[:, 1:-1].cpu().numpy().reshape(*shape, -1)
        return np.concatenate([_codes(tokens, level_tokens), scores], axis=2)

    turns = itertools.cycle(placed)
    return lambda: search(next(turns))


def _codes(
    tokens: Int[np.ndarray, "B S Q"], level_tokens: Sequence[Int[np.ndarray, "_"]]
) -> Int[np.ndarray, "B S Q"]:
    inverse = np.full(1 + max(int(known.max()) for known in level_tokens), -1)
    for known in level_tokens:
        inverse[known] = np.arange(len(known))
    return inverse[tokens]


def prefixes(
    items: Int[np.ndarray, "N Q"],
) -> Callable[[int, Any], list[int]]:
    """Returns the function that allows items only, by a trie of dictionaries.

    Args:
      items: Tokens of each item.
    """
    root: dict[int, Any] = {}
    for tokens in items.tolist():
        node = root
        # The decoder starts with 0; each item ends with 1.
        for token in (0, *tokens, 1):
            node = node.setdefault(token, {})

    def allowed(batch: int, sentence) -> list[int]:
        del batch
        node = root
        for token in sentence.tolist():
            node = node[token]
        return list(node)

    return allowed


def loss_of(weights: hf.Weights, batch: Batch, device: str) -> float:
    """Returns the loss of a batch without dropout."""
    import torch

    model = build(weights, device).eval()
    with torch.no_grad():
        return float(_loss(model, _place(batch, device)))


def train(
    weights: hf.Weights,
    batches: Sequence[Batch],
    *,
    steps: int,
    optimizer: Optimizer,
    device: str,
) -> Block:
    """Prepares training steps with AdamW, dropout and clipping.

    Args:
      weights: Initial weights; their architecture has the dropout rate.
      batches: Batches, taken in turn.
      steps: Number of steps of a block.
      optimizer: AdamW with a constant rate, weight decay of matrices and clipping.
      device: `cpu` or `cuda`.

    Returns:
      A function that runs the next block and returns the loss of each step.
    """
    import torch

    model = build(weights, device).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": optimizer.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    updates = torch.optim.AdamW(groups, lr=optimizer.lr)
    clip_norm = optimizer.clip_norm or np.inf
    placed = [_place(batch, device) for batch in batches]
    done = 0

    def step(batch):
        updates.zero_grad()
        loss = _loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        updates.step()
        return loss.detach()

    def block() -> Float[np.ndarray, " S"]:
        nonlocal done
        chosen = [placed[i % len(placed)] for i in range(done, done + steps)]
        done += steps
        return torch.stack([step(batch) for batch in chosen]).cpu().numpy()

    return block


def _place(batch: Batch, device: str):
    import torch

    arrays = map(np.asarray, (batch.tokens, batch.labels))
    tokens, labels = (torch.tensor(a, device=device).long() for a in arrays)
    return tokens, labels.masked_fill(labels == 0, -100)


def _loss(model, batch):
    tokens, labels = batch
    return model(
        input_ids=tokens, attention_mask=(tokens != 0).long(), labels=labels
    ).loss
