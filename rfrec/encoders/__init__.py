# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Encoders of item texts and pictures, and a store of the vectors they made."""
