#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/processes.sh P D command...

Runs P processes of a main on this machine, each with D virtual CPU devices, joined by
jax.distributed over the loopback interface: a rehearsal of P hosts. The command gets
--coordinator_address, --num_processes and --process_id appended. Lines of output carry
the number of their process. The first process that fails ends the others, and its exit
status is returned. SIGINT, SIGTERM and SIGHUP reach every process as SIGTERM, a second
one as SIGKILL.

  launch/processes.sh 2 4 python -m rfrec.launch.rqvae --config=configs/rqvae.py:smoke \
    --workdir=runs/two

environment:
  RFREC_PORT   port of the coordinator (a free one)
  RFREC_GRACE  seconds between SIGTERM and SIGKILL when a process failed (10)
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
[[ $1 =~ ^[1-9][0-9]*$ ]] || fail "the number of processes must be 1 or more, not '$1'"
[[ $2 =~ ^[1-9][0-9]*$ ]] || fail "the number of devices must be 1 or more, not '$2'"
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

# A shell starts its background processes deaf to SIGINT, so SIGTERM stands for it.
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
      # After a signal from outside all are on their way: let them write checkpoints.
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
