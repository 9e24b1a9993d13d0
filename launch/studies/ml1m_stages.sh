#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/studies/ml1m_stages.sh FOLDER [SEED ...]

Trains every row of the table in results/collapse_ml1m.md, for seeds 0 to 4 or the given
SEEDs, and prints the table. RFREC_DATA must contain ml1m_catalog.text.npy. Run it in the
root of the checkout. It takes about 20 minutes on 2 cores; the same call continues an
interrupted study.
EOF
}

case ${1:-} in
  -h | --help)
    usage
    exit
    ;;
  '' | -*)
    echo "ml1m_stages.sh: expected an output folder (-h for help)" >&2
    exit 2
    ;;
esac
folder=$1
shift
seeds=("$@")
[[ ${#seeds[@]} -gt 0 ]] || seeds=(0 1 2 3 4)

stage() {
  local name=$1 variant=$2 seed
  shift 2
  for seed in "${seeds[@]}"; do
    [[ -f $folder/$name/seed_$seed/report.json ]] && continue
    python -m rfrec.launch.rqvae --config="configs/rqvae.py:$variant" \
      --workdir="$folder/$name/seed_$seed" --config.seed="$seed" "$@"
  done
}

scaled=(--config.model.initializer=xavier --config.model.hidden='(256,256)'
  --config.optim.name=adamw --config.optim.lr=3e-3 --config.train.batch_size=128
  --config.loss.beta_warmup_epochs=0.0)
bypass=("${scaled[@]}" --config.codebook.bypass=True --config.codebook.init_on=all
  --config.codebook.init_epoch=3 --config.codebook.kmeans_iterations=100)

stage residual_kmeans ml1m --config.model.method=rkmeans
stage random_init ml1m_plain --config.codebook.init=uniform
stage kmeans_first_batch ml1m_plain --config.codebook.init_epoch=0
stage kmeans_after_1_epoch ml1m_plain
stage plus_xavier ml1m_plain --config.model.initializer=xavier
stage plus_lr_batch_width ml1m_plain "${scaled[@]}"
stage plus_bypass_all_items ml1m_plain "${bypass[@]}"
stage plus_freeze ml1m_plain "${bypass[@]}" --config.codebook.freeze=True
stage ml1m ml1m
stage no_freeze_sinkhorn ml1m_plain "${bypass[@]}" --config.codebook.sk_epsilons='(0.003,)'

python -m rfrec.launch.summary --runs="$folder" --out="$folder/summary.json"
