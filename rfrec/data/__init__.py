# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Item vectors and interactions: reading, checking, splitting, making."""
