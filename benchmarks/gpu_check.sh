#!/bin/sh
# Checks one GPU in less than ten minutes, without the network, in the environment that gpu_prepare.sh has made or in
# another one with ftkit's test extra: gpu_check.sh [OPTIONS OF gpu_check.py]
set -eu
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=src
PYTHON=${PYTHON:-$([ -x .venv-gpu/bin/python ] && echo .venv-gpu/bin/python || echo python)}
exec "$PYTHON" -W ignore benchmarks/gpu_check.py "$@"
