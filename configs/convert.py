# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A MQL4GRec checkpoint, as the run of a tokenizer.

python -m rfrec.launch.convert --workdir=runs/theirs \\
    --config.checkpoint=best_collision_model.pth \\
    --config.run.data.path=FOLDER --config.run.data.features=text

`run` is the config of the run that is made; its model and codebook sizes are taken from
the checkpoint.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional, rf_section


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    config.checkpoint = optional(str)
    config.run = _rqvae_config("mql4grec")
    config.rf = rf_section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()


def _rqvae_config(variant: str) -> ConfigDict:
    """Loads the config file beside this one, which is no package."""
    path = Path(__file__).with_name("rqvae.py")
    spec = importlib.util.spec_from_file_location("rqvae_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)
