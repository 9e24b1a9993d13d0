# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Semantic codes of items: statistics, files, and repair to unique tuples."""
