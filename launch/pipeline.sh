#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/pipeline.sh DATA NAME OUT

From item vectors and histories to ranked items, in one command: a tokenizer for each
modality, unique codes, a T5 over them, its lists for every user merged to an ensemble,
and a SASRec beside it. DATA holds NAME.inter.json and NAME.text.npy, NAME.image.npy or
both; nothing is written there. All goes to OUT:

  tokenizer_text, tokenizer_image  runs of rfrec.launch.rqvae
  NAME.index_text.json, ..image..  unique codes
  t5                               run of rfrec.launch.t5
  recommend                        predictions.jsonl and report.json of the test items
  sasrec                           run of rfrec.launch.sasrec, the baseline

An interrupted call goes on where it stopped. A stage whose settings changed is not run
over what there is: it says which key differs, and its folder has to be removed.

  launch/pipeline.sh data/ml1m ml1m runs/ml1m

environment:
  RFREC_TEXT_CODES      index file to take in place of a text tokenizer
  RFREC_IMAGE_CODES     the same for images
  RFREC_TASKS           tasks of the T5 (seqrec and seqimage, as far as there are codes)
  RFREC_ENSEMBLE        none, mql4grec, weighted or reciprocal (mql4grec)
  RFREC_SASREC          0 leaves the baseline out (1)
  RFREC_TOKENIZER       config of the tokenizers (configs/rqvae.py)
  RFREC_T5              config of the T5 (configs/t5.py)
  RFREC_TOKENIZER_ARGS  more arguments, such as "--config.train.epochs=50"
  RFREC_T5_ARGS         the same for the T5
  RFREC_RECOMMEND_ARGS  for the lists
  RFREC_SASREC_ARGS     for the baseline
EOF
}

fail() {
  printf 'pipeline.sh: %s (-h for help)\n' "$1" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage && exit ;;
esac
(($# == 3)) || fail "expected a folder of data, a name and a folder for the results"
[[ -d $1 ]] || fail "$1 is no folder"
data=$(cd "$1" && pwd)
name=$2
[[ $name != */* && -n $name ]] || fail "'$name' is no name of a data set"
[[ -f $data/$name.inter.json ]] || fail "$data/$name.inter.json does not exist"
mkdir -p "$3" || fail "$3 cannot be made"
out=$(cd "$3" && pwd)
[[ $out != "$data" ]] || fail "the results need a folder of their own"

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

# Configs are named relative to the checkout.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# stage FOLDER command...: runs a main, unless this very command has ended before.
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

# codes MODALITY FILE: puts unique codes into OUT, made here unless a file is given.
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
((${#tasks[@]})) || fail "$data has neither $name.text.npy nor $name.image.npy"
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

# The test items, all systems beside one another.
python - "$out" <<'EOF'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
lists = json.loads((out / "recommend/report.json").read_text())["lists"]
tables = {name: each["by_item"]["metrics"]["all"] for name, each in lists.items()}
if (out / "sasrec/report.json").exists():
    told = json.loads((out / "sasrec/report.json").read_text())
    tables["sasrec"] = told["test"]["metrics"]["all"]
names = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")
print(f"{'test items':12}", *(f"{name:>8}" for name in names))
for system, row in tables.items():
    print(f"{system:12}", *(f"{row[name]['mean']:8.4f}" for name in names))
EOF
