# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of the numerics against recorded outputs of the PyTorch references."""
