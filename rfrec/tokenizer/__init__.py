# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""RQ-VAE tokenizer: item vectors to residual-quantized codes."""
