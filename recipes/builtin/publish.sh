#!/usr/bin/env bash
# Put an encoder in the built-in one's place: export it, judge what was exported, and keep the figures in the file.
#
#   recipes/builtin/publish.sh SOURCE POOL EVALUATION NAME
#
# SOURCE: a run, or an encoder file whose weights are to be put out anew. POOL: what the embeddings are whitened on.
set -euo pipefail
source=$1 pool=$2 sets=$3 name=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

massl export "$source" --stages --whiten "$pool" --whiten-strength 0.75 --whiten-own 1 --precision int8 \
    --name "$name" --out "$work/judged.onnx"
python "$here/evaluate.py" "$sets" "$work/evaluation.json" "$work/judged.onnx"
massl export "$work/judged.onnx" --precision int8 --name "$name" --evaluation "$work/evaluation.json" \
    --out "$here/../../indexer/builtin/encoder.onnx"
