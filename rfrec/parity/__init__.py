# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of our implementation against recorded outputs of PyTorch references."""
