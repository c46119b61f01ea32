#!/usr/bin/env bash
# One piece of the built-in encoder's training on a GPU: begins RUN, or goes on with it, and stops after MINUTES.
#
#   recipes/builtin/gpu.sh SHARDS RUN MINUTES [STEPS]
#
# SHARDS: what pack.py wrote. The same command again goes on where the last one stopped; it ends by itself after STEPS.
# The first piece prints the time left: where that is more than there is, begin another RUN with fewer STEPS.
set -euo pipefail
shards=$1 run=$2 minutes=$3 steps=${4:-20000}

# The views of train.sh, in batches that keep a GPU busy.
how=(--preset gpu --out "$run" --name massl-builtin --backbone resnet18
    --set image_size=64 --set local_size=32 --set local_views=4 --set export_size=96
    --set global_scale=0.25,1 --set local_scale=0.1,0.4 --set colour_change=0.5
    --set batch=512 --set steps="$steps" --set learning_rate=1e-3 --set warmup=500
    --set momentum=0.99 --set memory=65536 --set block=8192 --set head_norm=true --set teacher_temperature=0.04
    --set checkpoint_every=1000 --set log_every=50)
if [ -e "$run/config.toml" ]; then how=(--resume "$run"); fi

# An interrupted run writes a checkpoint; timeout says 124 when it had to interrupt.
timeout --signal INT "${minutes}m" massl train "$shards" "${how[@]}" || [ $? -eq 124 ]
