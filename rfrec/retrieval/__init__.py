# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generative retrieval: histories as codes in, ranked items out."""
