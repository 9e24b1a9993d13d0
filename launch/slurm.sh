#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: srun launch/slurm.sh command...

Runs one task of a main under srun: reads the place of the task from SLURM, shares the
visible GPUs of a node evenly among its tasks and appends --coordinator_address,
--num_processes and --process_id. launch/slurm.sbatch calls it; inside salloc:

  srun --ntasks-per-node=4 launch/slurm.sh \
    python -m rfrec.launch.rqvae --config=configs/rqvae.py --workdir=/shared/runs/a

environment:
  RFREC_PORT             port of the coordinator (from the job's number)
  JAX_LOCAL_DEVICE_IDS   GPUs of this task, such as 0,1 (an even share)
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
  [[ -n ${!name-} ]] || fail "$name is not set: start it with srun"
done
nodelist=${SLURM_STEP_NODELIST:-${SLURM_JOB_NODELIST:-}}
nodes=${SLURM_STEP_NUM_NODES:-${SLURM_NNODES:-1}}
[[ -n $nodelist ]] || fail "SLURM_STEP_NODELIST is not set: start it with srun"

hosts=$(scontrol show hostnames "$nodelist")
host=${hosts%%$'\n'*}
# One port for each job, above the range that systems hand out first.
port=${RFREC_PORT:-$((61440 + SLURM_JOB_ID % 4096))}

# Left alone, jax gives a SLURM task the GPU of its local number: right only where each
# task sees all GPUs of the node and there are as many tasks as GPUs.
if [[ -z ${JAX_LOCAL_DEVICE_IDS-} && -n ${CUDA_VISIBLE_DEVICES-} ]]; then
  ((SLURM_NTASKS % nodes == 0)) ||
    fail "$SLURM_NTASKS tasks do not spread evenly over $nodes nodes"
  tasks=$((SLURM_NTASKS / nodes))
  commas=${CUDA_VISIBLE_DEVICES//[^,]/}
  gpus=$((${#commas} + 1))
  if ((gpus == 1)); then
    share=1 first=0 # bound by SLURM: the task sees its own GPU alone
  else
    ((gpus % tasks == 0)) || fail "$gpus GPUs do not divide among $tasks tasks"
    share=$((gpus / tasks))
    first=$((SLURM_LOCALID * share))
  fi
  JAX_LOCAL_DEVICE_IDS=$(seq -s, "$first" $((first + share - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi

exec "$@" --coordinator_address="$host:$port" --num_processes="$SLURM_NTASKS" \
  --process_id="$SLURM_PROCID"
