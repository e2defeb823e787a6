#!/usr/bin/env bash
# Peak resident memory of `distill run` over files read once and ten times over (UNION ALL), one extractor of width 32:
#
#     benches/memory.sh [FILE.parquet...]      default: the digits
#
# Prints a Markdown table, and fails where ten times the rows take more than 10 % more memory. DISTILL=path is the command,
# instead of the one that cargo builds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/figures.sh"

files=("$@")
[ $# -gt 0 ] || files=("$root/examples/data/digits.parquet")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

echo "$(machine)"
echo
echo "| file | read | rows | peak MB | wall s |"
echo "|---|---|---|---|---|"
failed=0
for file in "${files[@]}"; do
    peaks=()
    for times in 1 10; do
        query="SELECT * FROM '$file'"
        for ((i = 1; i < times; i++)); do
            query+=" UNION ALL SELECT * FROM '$file'"
        done
        report=$(distill run "($query)" -o "$out/out.parquet" --overwrite --json --ipc 1 --width 32 --extractors 1 --steps 10)
        peak=$(field peak_memory_bytes <<<"$report")
        peaks+=("$peak")
        awk -v file="$(basename "$file")" -v times="$times" -v rows="$(field rows_in <<<"$report")" -v peak="$peak" \
            -v wall="$(field wall_seconds <<<"$report")" \
            'BEGIN { printf "| %s | %d x | %d | %.0f | %.1f |\n", file, times, rows, peak / 1e6, wall }'
    done
    if ! awk -v once="${peaks[0]}" -v ten="${peaks[1]}" 'BEGIN { exit !(ten <= 1.1 * once) }'; then
        echo "$file: peak memory grows with the number of rows" >&2
        failed=1
    fi
done
exit $failed
