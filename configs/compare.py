# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Our numbers beside those of the PyTorch references.

python -m rfrec.launch.compare --golden=third_party/golden
python -m rfrec.launch.compare --run=runs/ml100k
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    # Published results, shown beside a run's.
    config.reference_numbers = "third_party/reference_numbers.json"
    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
