# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generative and multimodal recommendation in JAX.

The public names below are imported when they are first used, so that `import rfrec`
loads neither JAX nor any optional dependency.
"""

import importlib
from typing import Any

# Public name -> module that defines it; a module that is itself public maps to itself.
_PUBLIC = {
    "GenerativeRetriever": "rfrec.retrieval.retriever",
    "GraphRecommender": "rfrec.graph.recommender",
    "ItemTokenizer": "rfrec.tokenizer.item_tokenizer",
    "RFEmbeddingGenerator": "rfrec.rf.plugin",
    "Recommender": "rfrec.serving.recommender",
    "load_run": "rfrec.pipelines.run",
    "quantize": "rfrec.quantize",
    "run": "rfrec.pipelines.run",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rfrec' has no attribute {name!r}")
    module = importlib.import_module(_PUBLIC[name])
    value = module if module.__name__ == f"rfrec.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
