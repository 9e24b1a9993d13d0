# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs: each main reads its config and wires the packages below."""
