#!/usr/bin/env bash
# Prints the table of PyTorch's time against ours, both on this machine's CPU, in turns:
#
#     benches/peer/run.sh [ARGUMENTS of peer.py]
#
# Wants the Python environment of tests/interop (`tests/interop/run.sh -k none` makes it).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
cd "$here/../.."
program=$(cargo bench --locked --no-run --bench peer 2>&1 | sed -n 's/.*(\(.*deps\/peer-[0-9a-f]*\)).*/\1/p')
if [ -z "$program" ] || [ ! -x "$target/interop/bin/python" ]; then
    echo "error: the bench target 'peer' didn't build, or there is no PyTorch in $target/interop: see the head of this script" >&2
    exit 2
fi
CUDA_VISIBLE_DEVICES='' exec "$target/interop/bin/python" -B benches/peer/peer.py "$program" "$@"
