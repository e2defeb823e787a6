#!/usr/bin/env bash
# Builds train, test, fit and validation Parquet files of Fashion-MNIST in OUTDIR:
#
#     examples/fashion-mnist/build.sh OUTDIR
#
# The data comes from Debian's package dataset-fashion-mnist, which apt downloads and dpkg unpacks into a scratch folder
# (nothing is installed); where that package is installed already, it is read from there. Wants Debian or Ubuntu, python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scratch.sh"

package=dataset-fashion-mnist
idx=/usr/share/datasets/fashion-mnist
if [ ! -d "$idx" ]; then
    (
        cd "$scratch"
        if ! apt-get -qq -o APT::Sandbox::User=root download "$package"; then
            echo "error: apt knows no package $package: run 'apt-get update' (as root) first" >&2
            exit 1
        fi
        dpkg -x "$package"_*.deb .
    )
    idx=$scratch$idx
fi

"$python" -B "$here/build.py" "$idx" "$out"
