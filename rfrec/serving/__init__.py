# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Everything that answers a request: artefact, search program, batching, HTTP."""
