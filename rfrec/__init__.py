# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generative and multimodal recommendation in JAX."""
