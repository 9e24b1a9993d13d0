#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/hosts/tpu_vm.sh SUBCOMMAND NAME [option...] [-- command...]

  create   create the TPU VM
  install  copy this checkout to all workers and install rfrec[tpu] there
  run      start a command on all workers, with --distributed appended; it keeps running
           after this script has ended
  resume   run a command until it succeeds: start it if it is not running; after a
           preemption, recreate the VM, install, and run the same command, which resumes
           from its --workdir; returns the exit status of the command
  logs     follow the output of a worker
  delete   delete the TPU VM

options:
  --zone=ZONE --project=PROJECT   (default: those of the gcloud configuration)
  --type=TYPE        accelerator type (default: v5litepod-8)
  --version=VERSION  runtime version (default: v2-alpha-tpuv5-lite)
  --spot             use a spot VM, which is cheap but may be preempted
  --queued           request a queued resource and wait for it
  --gcloud=FLAG      extra flag of gcloud's create command; may be repeated
  --setup=COMMAND    command for all workers at the end of install, such as mounting a disk
  --worker=N         worker for logs (default: 0)
  --poll=SECONDS     seconds between two checks of resume and --queued (default: 60)

The workdir must outlive the VM and be shared by its workers: mount it in --setup.

  launch/hosts/tpu_vm.sh resume my-tpu --zone=us-central1-a --spot \
    --setup='sudo mkdir -p /mnt/a && sudo mount -t nfs 10.0.0.2:/runs /mnt/a' -- \
    python -m rfrec.launch.rqvae --config=configs/rqvae.py --workdir=/mnt/a/run
EOF
}

say() { printf 'tpu_vm.sh: %s\n' "$1" >&2; }

fail() {
  say "$1 (-h for help)"
  exit 2
}

# Shell code that the workers run; it is expanded there, not here.
# State of a command: run.pid is its process group; run.exit, written at its end, is its
# exit status and identity. A worker that was cut off has no run.exit.
# shellcheck disable=SC2016
readonly REMOTE_STATE='cd ~/rfrec 2>/dev/null || { echo rfrec-state: idle; exit 0; }
if [ -f run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; then
  echo rfrec-state: running
elif [ -f run.exit ] && read -r code id < run.exit && [ "$id" = "$want" ]; then
  echo "rfrec-state: exit $code"
else echo rfrec-state: idle; fi'
# shellcheck disable=SC2016
readonly REMOTE_START='cd ~/rfrec || exit 1
rm -f run.exit
PATH="$PWD/.venv/bin:$PATH"
setsid nohup bash -c "$line; echo \$? $want > run.exit" >> run.log 2>&1 < /dev/null &
echo $! > run.pid'
# shellcheck disable=SC2016
readonly REMOTE_STOP='cd ~/rfrec 2>/dev/null || exit 0
if [ -f run.pid ]; then kill -TERM -- "-$(cat run.pid)" 2>/dev/null || true; fi
rm -f run.pid run.exit'
# On images whose Python is too old, uv installs a newer one.
# shellcheck disable=SC2016
readonly REMOTE_INSTALL='set -e
mkdir -p ~/rfrec && cd ~/rfrec && tar -xzf ~/rfrec.tar.gz
check="import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
for name in python3 python3.13 python3.12 python3.11 none; do
  if "$name" -c "$check" 2>/dev/null; then break; fi
done
if [ -x .venv/bin/python ]; then :
elif [ "$name" != none ]; then "$name" -m venv .venv
else
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --seed --python 3.12 .venv
fi
.venv/bin/pip install --quiet -e ".[tpu]"'

vm() { # VERB ARGUMENT...
  local verb=$1
  shift
  gcloud compute tpus tpu-vm "$verb" "$@" ${place[@]+"${place[@]}"}
}

queue() { # VERB ARGUMENT...
  local verb=$1
  shift
  gcloud compute tpus queued-resources "$verb" "$name" "$@" ${place[@]+"${place[@]}"}
}

on_all() { vm ssh "$name" --worker=all --command="$1"; }

create() {
  if ((!queued)); then
    vm create "$name" --accelerator-type="$type" --version="$version" \
      ${extra[@]+"${extra[@]}"}
    return
  fi
  queue create --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$version" ${extra[@]+"${extra[@]}"} || return
  local state
  while state=$(queue describe --format='value(state.state)'); do
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPEND*) say "the queued resource is $state" && return 1 ;;
    esac
    sleep "$poll"
  done
  return 1
}

delete() {
  if ((queued)); then queue delete --force --quiet; else vm delete "$name" --quiet; fi
}

install() {
  local archive root status=0
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  archive=$(mktemp "${TMPDIR:-/tmp}/rfrec.XXXXXX")
  # The checkout without runs, data and build outputs.
  tar -C "$root" --exclude=__pycache__ -czf "$archive" rfrec configs launch \
    third_party setup.py pyproject.toml README.md LICENSE &&
    vm scp "$archive" "$name:rfrec.tar.gz" --worker=all &&
    on_all "$REMOTE_INSTALL" || status=$?
  rm -f "$archive"
  if ((!status)) && [[ -n $setup ]]; then on_all "$setup" || status=$?; fi
  return "$status"
}

# Sets `line`, the command quoted for the workers' shell, and its identity `want`.
prepare() {
  (($#)) || fail "$subcommand requires a command after --"
  line=$(printf '%q ' "$@" --distributed)
  want=$(printf '%s' "$line" | cksum)
  want=${want%% *}
}

start() { on_all "want=$want line=$(printf '%q' "$line"); $REMOTE_START"; }

# Prints the combined state of the workers: idle, running, failed N or done.
run_state() {
  local answer code=0
  answer=$(on_all "want=$want; $REMOTE_STATE") || return
  [[ ! $answer =~ rfrec-state:\ exit\ ([1-9][0-9]*) ]] || code=${BASH_REMATCH[1]}
  if [[ $answer == *"rfrec-state: idle"* ]]; then
    echo idle
  elif ((code > 128)); then
    echo idle # ended by a signal: the VM went down
  elif ((code)); then
    echo "failed $code"
  elif [[ $answer == *"rfrec-state: running"* ]]; then
    echo running
  elif [[ $answer == *"rfrec-state: exit 0"* ]]; then
    echo "done"
  else
    return 1
  fi
}

run() {
  prepare "$@"
  local state
  state=$(run_state)
  [[ $state != running ]] || fail "a command is already running on $name: see logs"
  start
}

# Prints the state of the VM, MISSING if there is none.
vm_state() {
  local answer
  if answer=$(vm describe "$name" --format='value(state)' 2>&1); then
    printf '%s\n' "${answer##*$'\n'}"
  elif [[ $answer == *NOT_FOUND* || $answer == *"not found"* ]]; then
    echo MISSING
  else
    say "gcloud: $answer"
    return 1
  fi
}

# Creates the VM if there is none; a lack of capacity is a reason to wait.
renew() {
  local answer
  if ((queued)); then delete >/dev/null 2>&1 || true; fi
  if answer=$(create 2>&1); then return; fi
  say "the TPU VM was not created: $answer"
  [[ $answer == *capacity* || $answer == *RESOURCE_EXHAUSTED* || $answer == *SUSPEND* ]]
}

# Takes one step toward a successful run. Returns 0 to check again, 1 after a failure that
# may be temporary, 100 if the command is done, 101 if the command itself failed.
step() {
  local state verdict
  state=$(vm_state) || return 1
  case $state in
    MISSING)
      say "creating $name"
      renew
      ;;
    PREEMPTED | TERMINATED | STOPPED | SUSPENDED)
      say "$name is $state: deleting it"
      delete
      ;;
    READY)
      verdict=$(run_state) || return 1
      case $verdict in
        done) return 100 ;;
        failed*)
          exit_status=${verdict#failed }
          return 101
          ;;
        idle)
          say "starting on $name: $line"
          on_all "$REMOTE_STOP" && install && start
          ;;
      esac
      ;;
  esac || return 1
}

resume() {
  prepare "$@"
  local code errors=0 failed=0
  while true; do
    code=0
    step || code=$?
    case $code in
      0) errors=0 failed=0 ;;
      100) say "the command is done" && return ;;
      # Workers of a VM that is going down may fail first: check a second time.
      101) failed=$((failed + 1)) ;;
      *) errors=$((errors + 1)) ;;
    esac
    if ((failed == 2)); then
      say "the command failed with status $exit_status: see logs; run starts it again"
      return "$exit_status"
    fi
    ((errors < 10)) || { say "ten failures in a row" && return 1; }
    sleep "$poll"
  done
}

logs() { vm ssh "$name" --worker="$worker" --command='tail -n 200 -F ~/rfrec/run.log'; }

case ${1-} in
  -h | --help) usage && exit ;;
  create | install | run | resume | logs | delete) subcommand=$1 ;;
  *) fail "expected create, install, run, resume, logs or delete, not '${1-}'" ;;
esac
name=${2-}
[[ -n $name && $name != -* ]] || fail "$subcommand requires the name of a TPU VM"
shift 2

place=() extra=() queued=0 setup='' worker=0 poll=60
type=v5litepod-8 version=v2-alpha-tpuv5-lite
while (($#)); do
  case $1 in
    --zone=?* | --project=?*) place+=("$1") ;;
    --type=?*) type=${1#*=} ;;
    --version=?*) version=${1#*=} ;;
    --spot) extra+=(--spot) ;;
    --gcloud=?*) extra+=("${1#*=}") ;;
    --queued) queued=1 ;;
    --setup=*) setup=${1#*=} ;;
    --worker=?*) worker=${1#*=} ;;
    --poll=?*) poll=${1#*=} ;;
    --) shift && break ;;
    *) fail "unknown option '$1'; put the command after --" ;;
  esac
  shift
done
[[ $subcommand == run || $subcommand == resume || $# == 0 ]] ||
  fail "$subcommand takes no command"
command -v gcloud >/dev/null || fail "gcloud is not installed"
"$subcommand" "$@"
