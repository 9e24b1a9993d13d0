#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/studies/gume_study.sh VARIANT FOLDER [OVERRIDE ...]

Trains GUME, alone and with the rectified flow, on the data of a variant of
configs/gume.py (ml100k, ml1m, ...) with 3 seeds for each row. Prints the table of
results/gume_VARIANT.md with a paired test of every row against GUME alone, and writes it
to FOLDER/summary.json. RFREC_DATA is the data folder. Run it in the root of the checkout.
OVERRIDEs, such as --config.train.epochs=3, apply to all rows.

ROWS lists the rows to run (default: all):
  improved         the preset improved; GUME gets no gradients from the flow
  gume             GUME alone: the runs of improved with nothing mixed in, which is
                   bit-identical to GUME
  half             improved with mixing ratio 0.5 instead of the selected one
  steps_10, steps_100  improved, sampled in 10 and 100 steps
  no_contrast      contrast weight 0 instead of 0.1
  contrast_1       contrast weight 1 instead of 0.1
  wide, narrow     hidden width 256 and 64 instead of 128
  reflow, distil   the trained flow is trained further on its own paths, or distilled to
                   one step
  plugin, joint    the presets of the specification, networks of width 64; joint for 180
                   epochs without early stopping
  trained, frozen  GUME alone with trained or with frozen features; the default is the
                   one that the variant does not use
  zeros            GUME alone; items without a vector get zeros
  lightgcn, popularity  the baselines
The same call continues an interrupted study.
EOF
}

case ${1:-} in
  -h | --help)
    usage
    exit
    ;;
  '' | -*)
    echo "gume_study.sh: expected a variant and an output folder (-h for help)" >&2
    exit 2
    ;;
esac
[[ $# -ge 2 ]] || { echo "gume_study.sh: expected an output folder (-h for help)" >&2; exit 2; }
variant=$1
folder=$2
shift 2
overrides=("$@")
case $variant in
  ml100k) other=trained ;;
  *) other=frozen ;;
esac
rows=${ROWS:-improved gume half steps_10 steps_100 no_contrast contrast_1 wide narrow
  reflow distil plugin joint $other zeros lightgcn popularity}

# Returns whether a row is requested or finished.
has() {
  [[ " ${rows//$'\n'/ } " == *" $1 "* || -f $folder/$1/summary.json ]]
}
for name in $rows; do
  case $name in
    gume | half | steps_* | reflow | distil) needed=improved ;;
    *) needed=gume ;;
  esac
  has gume && has "$needed" && continue
  echo "gume_study.sh: row $name requires the rows gume and improved; add them to ROWS" >&2
  exit 2
done

row() {
  local name=$1 arguments
  shift
  arguments="$variant $* ${overrides[*]-}"
  if [[ -f $folder/$name/summary.json ]]; then
    [[ $arguments == "$(cat "$folder/$name/arguments.txt")" ]] && return
    echo "gume_study.sh: $folder/$name exists with other arguments; use another folder" >&2
    exit 2
  fi
  python -m rfrec.launch.gume --config="configs/gume.py:$variant" \
    --workdir="$folder/$name" --seeds=3 "$@" ${overrides[@]+"${overrides[@]}"}
  echo "$arguments" >"$folder/$name/arguments.txt"
}

flow=(--config.rf.use_rf=True)
evaluate=("${flow[@]}" --again="$folder/improved")
for name in $rows; do
  case $name in
    improved) row "$name" "${flow[@]}" ;;
    gume) row "$name" "${evaluate[@]}" --config.rf.inference_mix_ratio=0.0 ;;
    half) row "$name" "${evaluate[@]}" --config.rf.inference_mix_ratio=0.5 ;;
    steps_*) row "$name" "${evaluate[@]}" --config.rf.sampling_steps="${name#steps_}" ;;
    no_contrast) row "$name" "${flow[@]}" --config.rf.contrast_weight=0.0 ;;
    contrast_1) row "$name" "${flow[@]}" --config.rf.contrast_weight=1.0 ;;
    wide) row "$name" "${flow[@]}" --config.rf.hidden_dim=256 ;;
    narrow) row "$name" "${flow[@]}" --config.rf.hidden_dim=64 ;;
    reflow | distil) row "$name" "${evaluate[@]}" --config.rf.reflow="$name" ;;
    plugin) row "$name" "${flow[@]}" --config.rf.preset=plugin --config.rf.hidden_dim=64 ;;
    # It leaves its plateau later than early stopping would allow.
    joint)
      row "$name" "${flow[@]}" --config.rf.preset=joint --config.rf.hidden_dim=64 \
        --config.train.patience=None --config.train.epochs=180
      ;;
    trained) row "$name" --config.model.freeze_features=False ;;
    frozen) row "$name" --config.model.freeze_features=True ;;
    zeros) row "$name" --config.data.missing=zeros ;;
    lightgcn | popularity) row "$name" --config.model.name="$name" ;;
    *)
      echo "gume_study.sh: unknown row $name (-h lists them)" >&2
      exit 2
      ;;
  esac
done
python -m rfrec.launch.summary --runs="$folder" --against=gume --out="$folder/summary.json"
