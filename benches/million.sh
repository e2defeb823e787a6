#!/usr/bin/env bash
# A table of more than a million rows through the pass: the 199,523 Census-Income training rows once, and six times over (1,197,138 rows, a UNION ALL) with
# another noise on the numbers of each copy, so that no two rows of different copies are alike:
#
#     examples/census/build.sh census
#     benches/million.sh census/train.parquet
#
# Prints rows a second of the whole job (profile, extract, choose) and peak memory as a Markdown table, and fails where six times the rows take
# more than 10 % more memory. OPTIONS="--method characteristic" are more options of `distill run`; DISTILL=path is the command, instead of the
# one that cargo builds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/figures.sh"

if [ $# -ne 1 ]; then
    echo "usage: $0 CENSUS.parquet" >&2
    exit 2
fi
read -ra options <<<"${OPTIONS:-}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

echo "$(machine)"
echo
echo "| rows | wall s | rows/s | CPU-s | peak MB |"
echo "|---|---|---|---|---|"
peaks=()
for times in 1 6; do
    query=""
    for ((n = 1; n <= times; n++)); do
        query+="${query:+ UNION ALL }SELECT * EXCEPT (age, wage_per_hour, instance_weight), age + $((n % 3)) AS age, wage_per_hour + $((n * 7)) AS wage_per_hour FROM '$1'"
    done
    report=$(distill run "($query)" -o "$out/out.parquet" --overwrite --json --rows 100 --on-null impute ${options[@]+"${options[@]}"})
    peak=$(field peak_memory_bytes <<<"$report")
    peaks+=("$peak")
    awk -v rows="$(field rows_in <<<"$report")" -v wall="$(field wall_seconds <<<"$report")" -v cpu="$(field total <<<"$report")" -v peak="$peak" \
        'BEGIN { printf "| %d | %.1f | %d | %.1f | %.0f |\n", rows, wall, rows / wall, cpu, peak / 1e6 }'
done
if ! awk -v once="${peaks[0]}" -v more="${peaks[1]}" 'BEGIN { exit !(more <= 1.1 * once) }'; then
    echo "peak memory grows with the number of rows" >&2
    exit 1
fi
