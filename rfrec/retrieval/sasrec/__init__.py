# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""SASRec, the sequential baseline: model, packed rows of histories, and training."""
