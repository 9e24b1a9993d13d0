# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pages, figures and tables of finished runs."""
