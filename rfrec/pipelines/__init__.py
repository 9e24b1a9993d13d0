# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""One module per system: a config becomes a trained model and the folder of its run."""
