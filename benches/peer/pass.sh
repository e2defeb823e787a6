#!/usr/bin/env bash
# The whole pass over a file of pictures (Parquet, decoding, one extractor of width 128, mean and characteristic function at 2048 frequencies, as the SQL
# aggregate) against PyTorch's bare forward over as many pictures in memory, in turns, on the same threads:
#
#     benches/peer/pass.sh TRAIN.parquet [ROUNDS]      wants columns image and label; default: 3 rounds
#
# Fails where the pass takes more than half of PyTorch's time. THREADS=2, and DISTILL=path (the command, instead of the one that cargo builds) as variables.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../figures.sh"
source "$(dirname "${BASH_SOURCE[0]}")/program.sh"
want_torch
file=$(realpath "${1:?usage: $0 TRAIN.parquet [ROUNDS]}")
threads=${THREADS:-2}
if [ -z "${DISTILL:-}" ]; then
    distill --version >&2
    DISTILL=${CARGO_TARGET_DIR:-$root/target}/release/distill
fi
DISTILL=$DISTILL CUDA_VISIBLE_DEVICES='' exec "$python" -B benches/peer/pass.py "$file" "$threads" "${2:-3}"
