# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The config of a command, derived from an options dataclass."""

from typing import Any

from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.rf import settings as rf_settings


def make_config(options: Any) -> ConfigDict:
    """Returns the unlocked config of a command, with the `rf` section that all have.

    Args:
      options: Options dataclass of the command, or an instance with other defaults.
    """
    config = cfg.section(options)
    config.rf = rf_settings.section()
    return config


def check(config: ConfigDict, options: Any) -> None:
    """Checks each value of a config by the rules of its options dataclass.

    Raises:
      UserError: A key is missing or its value is not allowed; names the key.
    """
    cfg.check(config, cfg.rules(options) | dict(rf_settings.RULES))
