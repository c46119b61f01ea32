# MaSSL's serving side: index, search, label, page. With TRAIN=1 training too, with GPU=1 the GPU halves, with
# EXTRAS=milvus,parquet what these extras need. deploy/compose.yaml runs it beside a Milvus server.
#
#   docker build -t massl .
#   docker run --rm --user "$(id -u):$(id -g)" -p 7860:7860 -v "$PWD/photos:/photos" -e MASSL_AUTH=me:secret massl serve /photos --host 0.0.0.0
#
#   docker build -t massl-gpu --build-arg GPU=1 --build-arg TRAIN=1 .
#   docker run --rm --user "$(id -u):$(id -g)" --gpus all --shm-size=8g -v "$PWD/photos:/photos" massl-gpu train /photos --out /photos/run
#
# --user: the index and the run are written beside your photos, so as you. --shm-size: Docker gives a container 64 MB of
# shared memory, by which training's processes hand over their batches; with so little it says so and is slower.

FROM python:3.12-slim

ARG GPU=0
ARG TRAIN=0
ARG EXTRAS=""

WORKDIR /opt/massl
COPY pyproject.toml README.md LICENSE ./
COPY massl massl
COPY indexer indexer
COPY app app
COPY cli cli

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# --compile runs a compiler, of C++ for a CPU and of C for a GPU.
# hadolint ignore=DL3008
RUN if [ "$TRAIN" = 1 ]; then \
        apt-get update; apt-get install --yes --no-install-recommends g++; rm -rf /var/lib/apt/lists/*; \
    fi
# The CPU and GPU halves of FAISS and ONNX Runtime share an import folder: the one has to go before the other comes.
# hadolint ignore=DL3013
RUN extras="$EXTRAS"; \
    if [ "$TRAIN" = 1 ]; then extras="train${EXTRAS:+,$EXTRAS}"; fi; \
    pip install --no-cache-dir ".${extras:+[$extras]}"; \
    if [ "$GPU" = 1 ]; then \
        pip uninstall --yes faiss-cpu onnxruntime; \
        pip install --no-cache-dir 'faiss-gpu>=1.12' 'onnxruntime-gpu[cuda,cudnn]>=1.22'; \
    fi; \
    install --directory --mode 1777 /home/massl

# The library switches these off by itself; here for whatever else is run in this image.
ENV ORT_DISABLE_TELEMETRY=1 GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0 WANDB_ERROR_REPORTING=false

# Of every user that --user may name. Nothing is kept there but what timm:NAME downloads.
ENV HOME=/home/massl
USER 10001
WORKDIR /home/massl
EXPOSE 7860
ENTRYPOINT ["massl"]
CMD ["--help"]
