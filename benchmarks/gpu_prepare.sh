#!/bin/sh
# Makes the environment of gpu_check.sh in .venv-gpu: gpu_prepare.sh [WHEELS]
# From a folder of wheels nothing is downloaded. Where there is a network, fill the folder by
#   pip wheel --wheel-dir WHEELS --constraint constraints/tested.txt '.[test]' 'setuptools>=77'
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv .venv-gpu
SOURCE=
[ $# -eq 0 ] || SOURCE="--no-index --find-links $1"
# shellcheck disable=SC2086 # words
.venv-gpu/bin/python -m pip install --quiet $SOURCE --constraint constraints/tested.txt --editable '.[test]'
.venv-gpu/bin/python -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA")'
