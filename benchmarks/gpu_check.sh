#!/bin/sh
# Checks one GPU in less than ten minutes, without the network, in the environment that gpu_prepare.sh has made or in
# another one with ftkit's test extra: gpu_check.sh [OPTIONS OF gpu_check.py]
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=$HERE/../src
VENV=$HERE/../.venv-gpu/bin/python
PYTHON=${PYTHON:-$([ -x "$VENV" ] && echo "$VENV" || echo python)}
exec "$PYTHON" -W ignore "$HERE/gpu_check.py" "$@"
