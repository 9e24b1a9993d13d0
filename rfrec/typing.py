# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Axis letters of array annotations, and the aliases that carry no shape.

B batch, N items, U users, D width, Q code levels, K codebook size, S steps of one
dispatch, L history, M modalities, V vocabulary, H heads.
"""

from typing import Any

PyTree = Any
