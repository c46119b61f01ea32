#!/usr/bin/env bash
# The built-in encoder on a CPU: train on a gathered POOL, then export, judge on EVALUATION sets, and put it in its place.
#
#   recipes/builtin/train.sh POOL RUN EVALUATION [STEPS [WEIGHTS]]
#
# WEIGHTS: what to begin with, as `massl train --init` takes them; at random if left out.
set -euo pipefail
pool=$1 run=$2 sets=$3 steps=${4:-6000}
begin=(--backbone resnet18)
if [ $# -gt 4 ]; then begin=(--init "$5"); fi

# Views of 64 pixels are what two cores have time for; larger pictures are what such a network is then best given.
massl train "$pool" --preset cpu --out "$run" --name massl-builtin "${begin[@]}" \
    --set image_size=64 --set local_size=32 --set local_views=4 --set export_size=96 \
    --set global_scale=0.25,1 --set local_scale=0.1,0.4 --set colour_change=0.5 \
    --set batch=64 --set steps="$steps" --set learning_rate=1.5e-3 --set warmup=150 \
    --set momentum=0.99 --set memory=16384 --set block=2048 --set head_norm=true --set teacher_temperature=0.04 \
    --set checkpoint_every=100 --set log_every=20

"$(dirname "$0")/publish.sh" "$run" "$pool" "$sets" massl-builtin
