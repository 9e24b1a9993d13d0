# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rectified flow: embeddings generated from conditions by an ODE."""
