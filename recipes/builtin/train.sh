#!/usr/bin/env bash
# The built-in encoder: train on a gathered POOL, export, judge on EVALUATION sets, and put it in its place.
#
#   recipes/builtin/train.sh POOL RUN EVALUATION
set -euo pipefail
pool=$1 run=$2 sets=$3
here=$(cd "$(dirname "$0")" && pwd)

massl train "$pool" --preset cpu --out "$run" --name massl-builtin-1 \
    --set backbone=resnet18 --set image_size=64 --set local_size=32 --set local_views=4 \
    --set global_scale=0.25,1 --set local_scale=0.1,0.4 --set colour_change=0.5 \
    --set batch=64 --set steps=2000 --set learning_rate=2e-3 --set warmup=150 \
    --set momentum=0.99 --set memory=16384 --set block=2048 --set head_norm=true --set teacher_temperature=0.04 \
    --set checkpoint_every=100 --set log_every=20

# Judged first in full precision, so that the figures can stand in the file that is shipped.
massl export "$run" --image-size 96 --stages --whiten "$pool" --whiten-strength 1 --name massl-builtin-1 --out "$run/judged.onnx"
python "$here/evaluate.py" "$sets" "$run/evaluation.json" "$run/judged.onnx" | tee "$run/evaluation.md"
massl export "$run" --image-size 96 --stages --whiten "$pool" --whiten-strength 1 --name massl-builtin-1 --precision fp16 --evaluation "$run/evaluation.json" \
    --out "$here/../../indexer/builtin/encoder.onnx"
