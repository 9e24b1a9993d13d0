# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recommenders that pass embeddings along a graph: GUME, its flow, and baselines."""
