#!/usr/bin/env bash
# A table of a million rows through the pass: the Census-Income training rows once, and five times over with noise on their numbers, so that no
# two rows are alike:
#
#     examples/census/build.sh census
#     benches/million.sh census/train.parquet
#
# Prints rows a second of the whole job (profile, extract, choose) and peak memory as a Markdown table, and fails where five times the rows take
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
for times in 1 5; do
    query="(SELECT t.* EXCEPT (age, wage_per_hour, instance_weight), t.age + n.value % 3 AS age, t.wage_per_hour + n.value * 7 AS wage_per_hour \
        FROM '$1' AS t CROSS JOIN generate_series(1, $times) AS n)"
    report=$(distill run "$query" -o "$out/out.parquet" --overwrite --json --rows 100 --on-null impute ${options[@]+"${options[@]}"})
    peak=$(field peak_memory_bytes <<<"$report")
    peaks+=("$peak")
    awk -v rows="$(field rows_in <<<"$report")" -v wall="$(field wall_seconds <<<"$report")" -v cpu="$(field total <<<"$report")" -v peak="$peak" \
        'BEGIN { printf "| %d | %.1f | %d | %.1f | %.0f |\n", rows, wall, rows / wall, cpu, peak / 1e6 }'
done
if ! awk -v once="${peaks[0]}" -v more="${peaks[1]}" 'BEGIN { exit !(more <= 1.1 * once) }'; then
    echo "peak memory grows with the number of rows" >&2
    exit 1
fi
