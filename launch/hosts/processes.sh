#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/hosts/processes.sh P D command...

Runs P processes of a command on this machine, each with D virtual CPU devices, joined by
jax.distributed over the loopback interface: a test of a run on P hosts. The script appends
--coordinator_address, --num_processes and --process_id to the command, and prefixes each
line of output with the number of its process. If a process fails, the others are stopped
and its exit status is returned. SIGINT, SIGTERM and SIGHUP are forwarded to all processes
as SIGTERM, a second signal as SIGKILL.

  launch/hosts/processes.sh 2 4 python -m rfrec.launch.rqvae --config=configs/rqvae.py:smoke \
    --workdir=runs/two

environment:
  RFREC_PORT   port of the coordinator (default: a free port)
  RFREC_GRACE  seconds from SIGTERM to SIGKILL after a process has failed (default: 10)
EOF
}

fail() {
  printf 'processes.sh: %s (-h for help)\n' "$1" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage && exit ;;
esac
(($# >= 3)) || fail "expected a number of processes, a number of devices and a command"
[[ $1 =~ ^[1-9][0-9]*$ ]] || fail "the number of processes must be at least 1, not '$1'"
[[ $2 =~ ^[1-9][0-9]*$ ]] || fail "the number of devices must be at least 1, not '$2'"
processes=$1
devices=$2
shift 2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${RFREC_PORT:-$(python3 -c '
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])')}
grace=${RFREC_GRACE:-10}
pids=()

signal_all() {
  local i
  for i in "${!pids[@]}"; do
    kill -s "$1" "${pids[i]}" 2>/dev/null || true
  done
}

# Background processes of a shell ignore SIGINT, so SIGTERM is sent instead.
next=TERM
trap 'signal_all "$next"; next=KILL' INT TERM HUP

for ((i = 0; i < processes; i++)); do
  "$here/virtual_devices.sh" "$devices" "$@" --coordinator_address="127.0.0.1:$port" \
    --num_processes="$processes" --process_id="$i" > >(sed "s/^/[$i] /") 2>&1 &
  pids[i]=$!
done

status=0
deadline=
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    if kill -0 "${pids[i]}" 2>/dev/null; then continue; fi
    code=0
    wait "${pids[i]}" || code=$?
    unset 'pids[i]'
    if ((code && !status)); then
      status=$code
      printf 'processes.sh: process %d ended with status %d\n' "$i" "$code" >&2
      # After an external signal all processes are stopping: let them write checkpoints.
      if [[ $next == TERM ]]; then
        signal_all TERM
        deadline=$((SECONDS + grace))
      fi
    fi
  done
  if [[ -n $deadline ]] && ((SECONDS > deadline)); then signal_all KILL; fi
  sleep 0.2 || true
done
exit "$status"
