# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tools for training any model: state, optimisers, devices, checkpoints, loop."""
