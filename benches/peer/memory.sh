#!/usr/bin/env bash
# Prints the table of peak memory of an input gradient, plain candle's against ours: each case in a process of its own, its peak resident memory above
# what it held with network and pictures ready (Linux). Fails where candle takes less than 8 times ours.
#
#     benches/peer/memory.sh [ROWS]      default: 500
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/program.sh"
rows=${1:-500}

# peak CASE CHANNELS SIDE THREADS: bytes.
peak() {
    local case="{\"case\":\"$1\",\"channels\":$2,\"side\":$3,\"width\":128,\"rows\":$rows,\"threads\":$4,\"repeat\":2}"
    CANDLE_NUM_THREADS=1 "$program" <<<"$case" 2>/dev/null | sed -n 's/.*"peak_bytes":\([0-9]*\).*/\1/p'
}

echo "| input gradient, width 128, $rows rows | candle MB | ours MB | candle / ours |"
echo "|---|---|---|---|"
failed=0
for picture in "1 28" "3 32"; do
    read -r channels side <<<"$picture"
    for threads in 1 2; do
        candle=$(peak "input gradient, candle" "$channels" "$side" "$threads")
        ours=$(peak "input gradient" "$channels" "$side" "$threads")
        awk -v of="${channels}x${side}x${side}, $threads thread$([ "$threads" = 1 ] || echo s)" -v candle="$candle" -v ours="$ours" \
            'BEGIN { printf "| %s | %.0f | %.0f | **%.1f** |\n", of, candle / 1e6, ours / 1e6, candle / ours; exit !(candle >= 8 * ours) }' || failed=1
    done
done
exit $failed
