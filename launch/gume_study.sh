#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/gume_study.sh VARIANT FOLDER [OVERRIDE ...]

Trains GUME, alone and with the rectified flow, on the data of a variant of
configs/gume.py (ml100k, ml1m, ...), 3 seeds each, and prints the README's table, with
tests of every row against GUME alone; FOLDER/summary.json holds it. RFREC_DATA is the
folder of the data. OVERRIDEs, such as --config.train.epochs=3, hold for all rows.

ROWS names the rows to make, all if it is not set:
  improved         the preset improved; GUME hears nothing of the flow
  gume             GUME alone: the same runs with nothing mixed in, which is GUME bit
                   for bit
  half             the same, ratio of mixing .5 in place of the chosen one
  steps_10, steps_100  the same, sampled in so many steps
  no_contrast      contrast weight 0 in place of .1
  contrast_1       contrast weight 1
  wide, narrow     hidden width 256 and 64 in place of 128
  reflow, distil   the flow learns its own paths, or their first step, once trained
  plugin, joint    the presets of the documents, networks of width 64; joint for 180
                   epochs without early stopping
  trained, frozen  GUME alone with features that are trained, or stay as they were read:
                   if ROWS is not set, the one that the variant is not
  zeros            GUME alone, items without a vector at zero
  lightgcn, popularity  the floors
An interrupted call goes on where it stopped.
EOF
}

case ${1:-} in
  -h | --help)
    usage
    exit
    ;;
  '' | -*)
    echo "gume_study.sh: give a variant and the folder of the runs; -h explains" >&2
    exit 2
    ;;
esac
[[ $# -ge 2 ]] || { echo "gume_study.sh: give the folder of the runs" >&2; exit 2; }
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

# Whether a row is asked for or done already.
has() {
  [[ " ${rows//$'\n'/ } " == *" $1 "* || -f $folder/$1/summary.json ]]
}
for name in $rows; do
  case $name in
    gume | half | steps_* | reflow | distil) needed=improved ;;
    *) needed=gume ;;
  esac
  has gume && has "$needed" && continue
  echo "gume_study.sh: row $name needs the rows gume and improved: add them to ROWS" >&2
  exit 2
done

row() {
  local name=$1 asked
  shift
  asked="$variant $* ${overrides[*]-}"
  if [[ -f $folder/$name/summary.json ]]; then
    [[ $asked == "$(cat "$folder/$name/arguments.txt")" ]] && return
    echo "gume_study.sh: $folder/$name was made with other arguments: use another folder" >&2
    exit 2
  fi
  python -m rfrec.launch.gume --config="configs/gume.py:$variant" \
    --workdir="$folder/$name" --seeds=3 "$@" ${overrides[@]+"${overrides[@]}"}
  echo "$asked" >"$folder/$name/arguments.txt"
}

flow=(--config.rf.use_rf=True)
again=("${flow[@]}" --again="$folder/improved")
for name in $rows; do
  case $name in
    improved) row "$name" "${flow[@]}" ;;
    gume) row "$name" "${again[@]}" --config.rf.inference_mix_ratio=0.0 ;;
    half) row "$name" "${again[@]}" --config.rf.inference_mix_ratio=0.5 ;;
    steps_*) row "$name" "${again[@]}" --config.rf.sampling_steps="${name#steps_}" ;;
    no_contrast) row "$name" "${flow[@]}" --config.rf.contrast_weight=0.0 ;;
    contrast_1) row "$name" "${flow[@]}" --config.rf.contrast_weight=1.0 ;;
    wide) row "$name" "${flow[@]}" --config.rf.hidden_dim=256 ;;
    narrow) row "$name" "${flow[@]}" --config.rf.hidden_dim=64 ;;
    reflow | distil) row "$name" "${again[@]}" --config.rf.reflow="$name" ;;
    plugin) row "$name" "${flow[@]}" --config.rf.preset=plugin --config.rf.hidden_dim=64 ;;
    # It stays on a plateau for longer than the patience.
    joint)
      row "$name" "${flow[@]}" --config.rf.preset=joint --config.rf.hidden_dim=64 \
        --config.train.patience=None --config.train.epochs=180
      ;;
    trained) row "$name" --config.model.freeze_features=False ;;
    frozen) row "$name" --config.model.freeze_features=True ;;
    zeros) row "$name" --config.data.missing=zeros ;;
    lightgcn | popularity) row "$name" --config.model.name="$name" ;;
    *)
      echo "gume_study.sh: there is no row $name; -h names them" >&2
      exit 2
      ;;
  esac
done
python -m rfrec.launch.summary --runs="$folder" --against=gume --out="$folder/summary.json"
