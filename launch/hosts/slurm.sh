#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: srun launch/hosts/slurm.sh command...

Runs one task of a command under srun: reads the rank of the task from SLURM, divides the
visible GPUs of a node evenly among its tasks, and appends --coordinator_address,
--num_processes and --process_id. launch/hosts/slurm.sbatch calls it. Inside salloc:

  srun --ntasks-per-node=4 launch/hosts/slurm.sh \
    python -m rfrec.launch.rqvae --config=configs/rqvae.py --workdir=/shared/runs/a

environment:
  RFREC_PORT             port of the coordinator (default: derived from the job number)
  JAX_LOCAL_DEVICE_IDS   GPUs of this task, such as 0,1 (default: an even share)
EOF
}

fail() {
  printf 'slurm.sh: %s (-h for help)\n' "$1" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage && exit ;;
esac
(($# >= 1)) || fail "expected a command"
for name in SLURM_JOB_ID SLURM_NTASKS SLURM_PROCID SLURM_LOCALID; do
  [[ -n ${!name-} ]] || fail "$name is not set: start this script with srun"
done
nodelist=${SLURM_STEP_NODELIST:-${SLURM_JOB_NODELIST:-}}
nodes=${SLURM_STEP_NUM_NODES:-${SLURM_NNODES:-1}}
[[ -n $nodelist ]] || fail "SLURM_STEP_NODELIST is not set: start this script with srun"

hosts=$(scontrol show hostnames "$nodelist")
host=${hosts%%$'\n'*}
# One port per job, above the usual range of ephemeral ports.
port=${RFREC_PORT:-$((61440 + SLURM_JOB_ID % 4096))}

# By default, JAX assigns a SLURM task the GPU of its local rank. That is right only if
# each task sees all GPUs of the node and there is one task per GPU.
if [[ -z ${JAX_LOCAL_DEVICE_IDS-} && -n ${CUDA_VISIBLE_DEVICES-} ]]; then
  ((SLURM_NTASKS % nodes == 0)) ||
    fail "$SLURM_NTASKS tasks cannot be divided evenly over $nodes nodes"
  tasks=$((SLURM_NTASKS / nodes))
  commas=${CUDA_VISIBLE_DEVICES//[^,]/}
  gpus=$((${#commas} + 1))
  if ((gpus == 1)); then
    share=1 first=0 # SLURM bound the task to one GPU
  else
    ((gpus % tasks == 0)) || fail "$gpus GPUs cannot be divided evenly among $tasks tasks"
    share=$((gpus / tasks))
    first=$((SLURM_LOCALID * share))
  fi
  JAX_LOCAL_DEVICE_IDS=$(seq -s, "$first" $((first + share - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi

exec "$@" --coordinator_address="$host:$port" --num_processes="$SLURM_NTASKS" \
  --process_id="$SLURM_PROCID"
