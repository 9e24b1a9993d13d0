# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What ranked lists are worth: metrics by user, subgroups, intervals, predictions."""
