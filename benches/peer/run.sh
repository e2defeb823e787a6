#!/usr/bin/env bash
# Prints the table of PyTorch's time against ours, both on this machine's CPU, in turns:
#
#     benches/peer/run.sh [ARGUMENTS of peer.py]
#
# Wants the Python environment of tests/interop (`tests/interop/run.sh -k none` makes it).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/program.sh"
want_torch
CUDA_VISIBLE_DEVICES='' exec "$python" -B benches/peer/peer.py "$program" "$@"
