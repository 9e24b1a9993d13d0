# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints in Hugging Face's format, made on the spot."""

import json
from pathlib import Path
from typing import Any

WORDS = (
    *("the", "a", "of", "and", "tea", "cup", "green", "black", "old", "new", "star"),
    *("war", "love", "night", "day", "red", "blue", "moon", "river", "story"),
    *("brand", "categories"),
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WIDTH = 16


def save_tokenizer(folder: Path, *, framed: bool, pad: bool, longest: int = 64) -> None:
    """Saves a tokenizer of whole words.

    Args:
      folder: To write to.
      framed: [CLS] before and [SEP] behind, as BERT has; else [CLS] before, as LLaMA.
      pad: Whether it names a padding token.
      longest: Input it claims to take.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: i for i, word in enumerate((*_SPECIAL, *WORDS, ".", ",", ":"))}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if framed else "[CLS] $A",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names: dict[str, Any] = {
        "unk_token": "[UNK]",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
    }
    if pad:
        names["pad_token"] = "[PAD]"
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=longest,
        padding_side="left",  # must not matter
        **names,
    ).save_pretrained(folder)


def save_text(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Saves a text encoder: bert, roberta, llama, gpt2 or t5.

    Returns:
      The folder.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    size |= {"vocab_size": 32, "intermediate_size": 24, "initializer_range": 0.5}
    if kind == "bert":
        made = transformers.BertModel(
            transformers.BertConfig(max_position_embeddings=64, **size)
        )
    elif kind == "roberta":
        config = transformers.RobertaConfig(
            max_position_embeddings=14, pad_token_id=0, **size
        )
        made = transformers.RobertaModel(config)
    elif kind == "llama":
        config = transformers.LlamaConfig(max_position_embeddings=64, **size)
        # As published: with a head, whose weights have another prefix.
        made = transformers.LlamaForCausalLM(config)
    elif kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=32, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64
        )
        made = transformers.GPT2Model(config)
    elif kind == "t5":
        config = transformers.T5Config(
            vocab_size=32, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=2, num_heads=2
        )
        made = transformers.T5ForConditionalGeneration(config)
    else:
        raise ValueError(kind)
    made.save_pretrained(folder)
    framed = kind in ("bert", "roberta")
    save_tokenizer(folder, framed=framed, pad=kind not in ("llama", "gpt2"))
    return folder


def save_image(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Saves an image encoder: clip, siglip, vit or dinov2.

    Returns:
      The folder.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    sight: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    sight |= {"intermediate_size": 24, "image_size": 24, "patch_size": 8}
    text: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    text |= {"intermediate_size": 8, "vocab_size": 8, "max_position_embeddings": 8}
    if kind in ("clip", "siglip"):
        name = {"clip": "CLIP", "siglip": "Siglip"}[kind]
        width: dict[str, Any] = {"projection_dim": 12} if kind == "clip" else {}
        config = getattr(transformers, f"{name}Config")(
            text_config=text | ({"projection_size": WIDTH} if kind != "clip" else {}),
            vision_config=sight,
            **width,
        )
        made = getattr(transformers, f"{name}Model")(config)
    elif kind == "vit":
        made = transformers.ViTForImageClassification(
            transformers.ViTConfig(**sight, initializer_range=0.5)
        )
    elif kind == "dinov2":
        del sight["intermediate_size"]
        config = transformers.Dinov2Config(**sight, initializer_range=0.5)
        made = transformers.Dinov2Model(config)
    else:
        raise ValueError(kind)
    made.save_pretrained(folder)
    processor = {"clip": "CLIP", "siglip": "Siglip", "vit": "ViT", "dinov2": "Bit"}
    settings: dict[str, Any] = {
        "image_processor_type": f"{processor[kind]}ImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "size": {"height": 24, "width": 24},
    }
    if kind in ("clip", "dinov2"):
        settings["size"] = {"shortest_edge": 24}
        settings |= {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def add_steps(folder: Path, *steps: tuple[str, dict]) -> None:
    """Makes a folder one of sentence-transformers, with steps such as ("Pooling", ...).

    The settings of each go into the folder of its step.
    """
    listed = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    for number, (kind, settings) in enumerate(steps, 1):
        path = f"{number}_{kind}"
        listed.append({"type": f"sentence_transformers.models.{kind}", "path": path})
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings))
    (folder / "modules.json").write_text(json.dumps(listed))
