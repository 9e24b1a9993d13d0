# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image encoders of Hugging Face folders: pictures in, vectors out.

CLIP gives its projected image embedding (768-d for ViT-L/14, as MQL4GRec takes it;
Radford et al. 2021, arXiv:2103.00020), SigLIP what its pooling head gives, ViT and DINO
the class token of the last hidden state.
"""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from rfrec.config import UserError
from rfrec.encoders import torch_models
from rfrec.encoders.folder import Folder
from rfrec.encoders.sentence import unit_length

_PROJECTED = ("clip", "siglip")
_CLASS_TOKEN = ("deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
MODEL_TYPES = (*_PROJECTED, *_CLASS_TOKEN)


class Encoder(NamedTuple):
    """A loaded image encoder.

    Attributes:
      model: Takes pixels.
      processor: Resizes, crops and scales a picture to pixels.
      projected: Whether the model has vectors of images, rather than a class token.
      normalise: Whether vectors are brought to length 1.
      device: Where the model is.
    """

    model: Any
    processor: Any
    projected: bool
    normalise: bool
    device: str


class Unreadable(Exception):
    """An image cannot be decoded; the message is the reason."""


def load(folder: Folder, *, normalise: bool, dtype: str, device: str) -> Encoder:
    """Loads an encoder.

    Args:
      folder: Checkpoint of one of `MODEL_TYPES`.
      normalise: Whether vectors are scaled to length 1.
      dtype: Data type of the weights, one of `torch_models.DTYPES`.
      device: Device, `cpu` or `cuda`.

    Raises:
      UserError: The folder is damaged or has no `preprocessor_config.json`.
    """
    import transformers

    if not (folder.path / "preprocessor_config.json").is_file():
        raise UserError(
            f"{folder.path}: contains no preprocessor_config.json, which describes"
            " how images become pixels; copy it from the checkpoint"
        )
    # Pillow's resizing, as the models were trained with, and the same on all machines.
    processor = torch_models.load_processor(
        transformers.AutoImageProcessor, folder.path, backend="pil"
    )
    projected = folder.model_type in _PROJECTED
    model: Any = torch_models.load_model(
        transformers.AutoModel,
        folder.path,
        dtype=dtype,
        device=device,
        unused=() if projected else ("pooler.",),
    )
    return Encoder(model, processor, projected, normalise, device)


def to_pixels(encoder: Encoder, picture: bytes) -> Float32[np.ndarray, "C H W"]:
    """Decodes a picture and brings it to the model's size.

    Raises:
      Unreadable: It is damaged, no picture, or far too large.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with PIL.Image.open(io.BytesIO(picture)) as opened:
            upright = PIL.ImageOps.exif_transpose(opened).convert("RGB")
    except PIL.UnidentifiedImageError as error:
        raise Unreadable("no picture that Pillow knows") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        PIL.Image.DecompressionBombError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(f"damaged picture: {reason}") from error
    return encoder.processor(upright, return_tensors="np")["pixel_values"][0]


def encode(
    encoder: Encoder, pixels: Sequence[Float32[np.ndarray, "C H W"]]
) -> Float32[np.ndarray, "B D"]:
    """Encodes a batch of `to_pixels`.

    Raises:
      UserError: It does not fit into the GPU's memory.
    """
    import torch

    model = encoder.model
    with (
        torch_models.out_of_memory("a smaller config.image.batch_size"),
        torch.inference_mode(),
    ):
        values = torch.from_numpy(np.stack(pixels)).to(encoder.device, model.dtype)
        if encoder.projected:
            states = model.get_image_features(pixel_values=values).pooler_output
        else:
            states = model(pixel_values=values).last_hidden_state[:, 0]
        vectors = states.float().cpu().numpy()
    return unit_length(vectors) if encoder.normalise else vectors
