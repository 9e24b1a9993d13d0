#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/hosts/virtual_devices.sh N command...

Runs a command with N virtual CPU devices, to test that it works on N devices. They share
the cores of this machine, so they do not show the speed of N devices.

  launch/hosts/virtual_devices.sh 8 \
    python -m rfrec.launch.rqvae --config=configs/rqvae.py:smoke --workdir=runs/eight
EOF
}

fail() {
  printf 'virtual_devices.sh: %s (-h for help)\n' "$1" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage && exit ;;
esac
(($# >= 2)) || fail "expected a number of devices and a command"
[[ $1 =~ ^[1-9][0-9]*$ ]] || fail "the number of devices must be at least 1, not '$1'"

# If a flag occurs twice, XLA uses the last.
export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$1"
export JAX_PLATFORMS=cpu
shift
exec "$@"
