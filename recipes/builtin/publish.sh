#!/usr/bin/env bash
# Put an encoder in the built-in one's place: export it, judge what was exported, and keep the figures in the file.
#
#   recipes/builtin/publish.sh SOURCE CALIBRATION EVALUATION NAME [SIZES]
#
# SOURCE: what `massl export` takes, the built-in one's is what dinov2.py writes. CALIBRATION: images, none of them for
# evaluation. EVALUATION: a folder a set. SIZES: of the input, the usual one first.
set -euo pipefail
source=$1 calibration=$2 sets=$3 name=$4 sizes=${5:-126,112,168,224}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

put_out() {
    massl export "$source" --image-size "$sizes" --precision int8 --calibrate "$calibration" --name "$name" "$@"
}

put_out --out "$work/judged.onnx"
python "$here/evaluate.py" "$sets" "$work/evaluation.json" "$work/judged.onnx"
put_out --evaluation "$work/evaluation.json" --out "$here/../../indexer/encoder/builtin/encoder.onnx"
echo "now BUILTIN in indexer/encoder/onnx_encoder.py is to be: $(sha256sum < "$here/../../indexer/encoder/builtin/encoder.onnx")"
