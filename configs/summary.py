# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mean and interval over the seeds of tokenizer runs.

python -m rfrec.launch.summary --runs=FOLDER
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    config.confidence = 0.95
    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
