# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the parts, next to plain PyTorch and Hugging Face."""
