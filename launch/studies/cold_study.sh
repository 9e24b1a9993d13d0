#!/usr/bin/env bash
# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
usage: launch/studies/cold_study.sh DATA NAME OUT

Compares content codes with collaborative codes, for warm and for cold items. A tenth of
the items of DATA/NAME.inter.json is withheld. GUME with the flow is trained on the rest,
and the flow generates the vectors of the withheld items. For each of 3 seeds, a tokenizer
and a T5 are trained on text and image vectors alone (content), and on text, image and GUME
vectors (collab). The test items are then ranked in the whole catalogue and among the
withheld items alone. For seed 0, two-stage ranking and late fusion are evaluated too, with
GUME, LightGCN and SASRec as further rows. The printed table is OUT/summary.json; the table
of the fusion is OUT/content_0/fused/report.json and OUT/collab_0/fused/report.json.

  launch/studies/cold_study.sh data/ml1m ml1m runs/cold

environment:
  RFREC_GRAPH_ARGS      further arguments of GUME, such as "--config.train.epochs=5"
  RFREC_LIGHTGCN_ARGS   further arguments of LightGCN
  RFREC_SASREC_ARGS     further arguments of SASRec
  RFREC_TOKENIZER_ARGS  further arguments of the tokenizers
  RFREC_T5_ARGS         further arguments of the T5
The same call continues an interrupted study.
EOF
}

fail() {
  printf 'cold_study.sh: %s (-h for help)\n' "$1" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage && exit ;;
esac
(($# == 3)) || fail "expected three arguments: data folder, data set name, output folder"
[[ -f $1/$2.inter.json ]] || fail "$1/$2.inter.json does not exist"
data=$(cd "$1" && pwd)
name=$2
mkdir -p "$3" || fail "cannot create $3"
out=$(cd "$3" && pwd)
read -ra graph_args <<<"${RFREC_GRAPH_ARGS-}"
read -ra lightgcn_args <<<"${RFREC_LIGHTGCN_ARGS-}"
read -ra sasrec_args <<<"${RFREC_SASREC_ARGS-}"
read -ra tokenizer_args <<<"${RFREC_TOKENIZER_ARGS-}"
read -ra t5_args <<<"${RFREC_T5_ARGS-}"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# run MAIN FOLDER arguments...: runs a command, unless its report exists.
run() {
  local main=$1 folder=$out/$2
  shift 2
  [[ -f $folder/report.json ]] && return
  python -m "rfrec.launch.$main" --workdir="$folder" "$@"
}

run withhold data --config.data.path="$data" --config.data.name="$name"
cold=$out/data/$name.withheld.txt
run gume gume --config=configs/gume.py:ml1m --config.data.path="$out/data" \
  --config.data.name="$name" --config.rf.use_rf=True --config.rf.preset=improved \
  --config.eval.cold_below=1 ${graph_args[@]+"${graph_args[@]}"}
run gume lightgcn --config=configs/gume.py:ml1m --config.data.path="$out/data" \
  --config.data.name="$name" --config.model.name=lightgcn --config.eval.cold_below=1 \
  ${lightgcn_args[@]+"${lightgcn_args[@]}"}
run sasrec sasrec --config=configs/sasrec.py --config.data.source=folder \
  --config.data.path="$out/data" --config.data.name="$name" \
  --config.eval.filter_seen=True --config.eval.cold_below=1 \
  ${sasrec_args[@]+"${sasrec_args[@]}"}
for seed in 0 1 2; do
  for kind in content collab; do
    features=(--config.data.features="('text','image')")
    if [[ $kind == collab ]]; then
      features=(--config.data.features="('text','image','rf')"
        --config.data.graph="$out/gume")
    fi
    own=${kind}_$seed
    run rqvae "$own/tokenizer" --config=configs/rqvae.py:ml1m --config.seed="$seed" \
      --config.data.path="$out/data" --config.data.names="('$name',)" \
      "${features[@]}" ${tokenizer_args[@]+"${tokenizer_args[@]}"}
    run t5 "$own/t5" --config=configs/t5.py --config.seed="$seed" \
      --config.data.path="$out/data" --config.data.names="('$name',)" \
      --config.data.text="$out/$own/tokenizer/codes.json" --config.data.image=None \
      ${t5_args[@]+"${t5_args[@]}"}
    lists=(--config.run="$out/$own/t5" --config.filter.seen=True
      --config.eval.cold_below=1)
    run recommend "$own/test" "${lists[@]}"
    run recommend "$own/cold" "${lists[@]}" --config.filter.allow="$cold"
    if [[ $seed == 0 ]]; then
      run recommend "$own/valid" "${lists[@]}" --config.which=valid
      run fuse "$own/fused" --config.lists.valid="$out/$own/valid" \
        --config.lists.test="$out/$own/test" --config.graph="$out/gume" \
        --config.beside="('$out/lightgcn','$out/sasrec')" --config.eval.cold_below=1
    fi
  done
done

python - "$out" <<'EOF'
import json, pathlib, sys

out, rows = pathlib.Path(sys.argv[1]), {}
targets = {"all": ("test", "all"), "warm": ("test", "warm"), "cold": ("test", "cold"),
           "cold among the withheld": ("cold", "cold")}
for kind in ("content", "collab"):
    for target, (folder, group) in targets.items():
        seeds = [
            json.loads((out / f"{kind}_{seed}/{folder}/report.json").read_text())
            ["lists"]["text"]["by_item"]["metrics"][group]
            for seed in range(3)
        ]
        rows[f"{kind}, {target}"] = {
            metric: [row[metric]["mean"] for row in seeds] for metric in ("hr@10", "ndcg@10")
        } | {"users": seeds[0]["users"]}
(out / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
print(f"{'codes, targets':36}{'users':>6}  HR@10 and NDCG@10 of seeds 0, 1, 2")
for name, row in rows.items():
    cells = "  ".join(" ".join(f"{v:.4f}" for v in row[m]) for m in ("hr@10", "ndcg@10"))
    print(f"{name:36}{row['users']:6}  {cells}")
EOF
