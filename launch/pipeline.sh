#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/pipeline.sh DATA NAME OUT

Runs every stage from item vectors and histories to ranked items: a tokenizer for each
modality, unique codes, a T5 trained on them, its ranked lists for every user, the ensemble
of both modalities, and SASRec as a baseline. DATA contains NAME.inter.json and
NAME.text.npy, NAME.image.npy or both; nothing is written there. The results are in OUT:

  tokenizer_text, tokenizer_image  runs of rfrec.launch.rqvae
  NAME.index_text.json, ..image..  unique codes
  t5                               run of rfrec.launch.t5
  recommend                        predictions.jsonl and report.json of the test items
  sasrec                           run of rfrec.launch.sasrec, the baseline

The same call continues an interrupted pipeline. A stage whose settings changed is refused
with the key that differs; remove its folder to run it again.

  launch/pipeline.sh data/ml1m ml1m runs/ml1m

environment:
  RFREC_TEXT_CODES      codes file to use instead of training a text tokenizer
  RFREC_IMAGE_CODES     codes file to use instead of training an image tokenizer
  RFREC_TASKS           tasks of the T5 (default: seqrec, seqimage or both, by the codes)
  RFREC_ENSEMBLE        none, mql4grec, weighted or reciprocal (default: mql4grec)
  RFREC_SASREC          0 skips the baseline (default: 1)
  RFREC_TOKENIZER       config of the tokenizers (default: configs/rqvae.py)
  RFREC_T5              config of the T5 (default: configs/t5.py)
  RFREC_TOKENIZER_ARGS  further arguments, such as "--config.train.epochs=50"
  RFREC_T5_ARGS         further arguments of the T5
  RFREC_RECOMMEND_ARGS  further arguments of the evaluation
  RFREC_SASREC_ARGS     further arguments of the baseline
EOF
}

fail() {
  printf 'pipeline.sh: %s (-h for help)\n' "$1" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage && exit ;;
esac
(($# == 3)) || fail "expected three arguments: data folder, data set name, output folder"
[[ -d $1 ]] || fail "$1 is not a folder"
data=$(cd "$1" && pwd)
name=$2
[[ $name != */* && -n $name ]] || fail "'$name' is not the name of a data set"
[[ -f $data/$name.inter.json ]] || fail "$data/$name.inter.json does not exist"
mkdir -p "$3" || fail "cannot create $3"
out=$(cd "$3" && pwd)
[[ $out != "$data" ]] || fail "the output folder must differ from the data folder"

absolute() {
  [[ -f $1 ]] || fail "$1 does not exist"
  printf '%s/%s\n' "$(cd "$(dirname "$1")" && pwd)" "$(basename "$1")"
}
text_codes=${RFREC_TEXT_CODES:+$(absolute "$RFREC_TEXT_CODES")}
image_codes=${RFREC_IMAGE_CODES:+$(absolute "$RFREC_IMAGE_CODES")}
ensemble=${RFREC_ENSEMBLE:-mql4grec}
read -ra tokenizer_args <<<"${RFREC_TOKENIZER_ARGS-}"
read -ra t5_args <<<"${RFREC_T5_ARGS-}"
read -ra recommend_args <<<"${RFREC_RECOMMEND_ARGS-}"
read -ra sasrec_args <<<"${RFREC_SASREC_ARGS-}"

# Config paths are relative to the checkout.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# stage FOLDER command...: runs a command, unless the same command has finished before.
stage() {
  local folder=$out/$1
  shift
  if [[ -f $folder/report.json && -f $folder/pipeline.txt ]] &&
    [[ $(<"$folder/pipeline.txt") == "$*" ]]; then
    printf 'pipeline.sh: %s is done\n' "${folder##*/}" >&2
    return
  fi
  printf 'pipeline.sh: %s\n' "${folder##*/}" >&2
  "$@" --workdir="$folder"
  printf '%s\n' "$*" >"$folder/pipeline.txt"
}

# codes MODALITY FILE: copies FILE to OUT; trains a tokenizer first if FILE is empty.
codes() {
  local modality=$1 index=$2 folder=tokenizer_$1
  if [[ -z $index ]]; then
    stage "$folder" python -m rfrec.launch.rqvae \
      --config="${RFREC_TOKENIZER:-configs/rqvae.py}" --config.data.source=folder \
      --config.data.path="$data" --config.data.names="$name" \
      --config.data.features="$modality" --config.codes.modality="$modality" \
      ${tokenizer_args[@]+"${tokenizer_args[@]}"}
    index=$out/$folder/codes.json
  fi
  cp "$index" "$out/.index.tmp"
  mv "$out/.index.tmp" "$out/$name.index_$modality.json"
}

tasks=()
t5_codes=(--config.data.text=None --config.data.image=None)
if [[ -n $text_codes || -f $data/$name.text.npy ]]; then
  codes text "$text_codes"
  t5_codes[0]=--config.data.text=$out/$name.index_text.json
  tasks+=(seqrec)
fi
if [[ -n $image_codes || -f $data/$name.image.npy ]]; then
  codes image "$image_codes"
  t5_codes[1]=--config.data.image=$out/$name.index_image.json
  tasks+=(seqimage)
fi
((${#tasks[@]})) || fail "$data contains neither $name.text.npy nor $name.image.npy"
((${#tasks[@]} == 2)) || ensemble=none
IFS=', ' read -ra tasks <<<"${RFREC_TASKS:-${tasks[*]}}"
quoted=$(printf "'%s'," "${tasks[@]}")

stage t5 python -m rfrec.launch.t5 --config="${RFREC_T5:-configs/t5.py}" \
  --config.data.source=folder --config.data.path="$data" --config.data.names="$name" \
  "${t5_codes[@]}" --config.task.names="($quoted)" ${t5_args[@]+"${t5_args[@]}"}
stage recommend python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run="$out/t5" --config.ensemble.method="$ensemble" \
  ${recommend_args[@]+"${recommend_args[@]}"}
if [[ ${RFREC_SASREC:-1} != 0 ]]; then
  stage sasrec python -m rfrec.launch.sasrec --config=configs/sasrec.py \
    --config.data.source=folder --config.data.path="$data" --config.data.name="$name" \
    ${sasrec_args[@]+"${sasrec_args[@]}"}
fi

# Prints the test metrics of all systems.
python - "$out" <<'EOF'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
lists = json.loads((out / "recommend/report.json").read_text())["lists"]
tables = {name: each["by_item"]["metrics"]["all"] for name, each in lists.items()}
if (out / "sasrec/report.json").exists():
    report = json.loads((out / "sasrec/report.json").read_text())
    tables["sasrec"] = report["test"]["metrics"]["all"]
names = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")
print(f"{'test items':12}", *(f"{name:>8}" for name in names))
for system, row in tables.items():
    print(f"{system:12}", *(f"{row[name]['mean']:8.4f}" for name in names))
EOF
