# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes of a trained tokenizer's items, repaired and exported.

python -m rfrec.launch.codes --workdir=runs/ml100k --config.repair=suffix
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    # None takes what the run's own config says.
    config.checkpoint = optional(str)  # collision_rate, loss, last
    config.repair = optional(str)  # assign, reassign, suffix, none
    config.modality = optional(str)  # text, image
    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
