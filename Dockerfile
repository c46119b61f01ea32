# MaSSL's serving side: index, search, label, page. With TRAIN=1 training too, with GPU=1 the GPU halves.
#
#   docker build -t massl .
#   docker run --rm -p 7860:7860 -v "$PWD/photos:/photos" -e MASSL_AUTH=me:secret massl serve /photos --host 0.0.0.0
#
#   docker build -t massl-gpu --build-arg GPU=1 --build-arg TRAIN=1 .
#   docker run --rm --gpus all -v "$PWD/photos:/photos" massl-gpu train /photos --out /photos/run

FROM python:3.12-slim

ARG GPU=0
ARG TRAIN=0

WORKDIR /opt/massl
COPY pyproject.toml README.md LICENSE ./
COPY massl massl
COPY indexer indexer
COPY app app
COPY cli cli

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The CPU and GPU halves of FAISS and ONNX Runtime share an import folder: the one has to go before the other comes.
# hadolint ignore=DL3013
RUN if [ "$TRAIN" = 1 ]; then extra='[train]'; else extra=''; fi; \
    pip install --no-cache-dir ".$extra"; \
    if [ "$GPU" = 1 ]; then \
        pip uninstall --yes faiss-cpu onnxruntime; \
        pip install --no-cache-dir 'faiss-gpu>=1.12' 'onnxruntime-gpu[cuda,cudnn]>=1.22'; \
    fi; \
    useradd --create-home --uid 10001 massl

USER 10001
WORKDIR /home/massl
EXPOSE 7860
ENTRYPOINT ["massl"]
CMD ["--help"]
