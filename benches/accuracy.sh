#!/usr/bin/env bash
# Distils TRAIN at each ipc (1 and 10 by default), trains fresh networks on the result and, beside it, on as many random and
# herding rows, tests them on TEST, and prints a Markdown table:
#
#     benches/accuracy.sh TRAIN TEST [IPC...]
#
#     SEEDS="0 1 2"                 seeds, each one distillation and its networks (default: 0)
#     DISTILL_OPTIONS="--steps 500" more options of `distill run`
#     EVALUATE_OPTIONS="--repeats 5" more options of `distill evaluate`
#     OUT=folder                    where the files and reports stay (default: a folder that is removed)
#     DISTILL=path                  the command, instead of the one that cargo builds
#
# Accuracies are means over all networks of all seeds, with their standard deviation; `above` is the difference to a baseline in points
# and, in brackets, in pooled standard errors. CPU-seconds and peak memory of distillation are the means and the maximum over the seeds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/figures.sh"

if [ $# -lt 2 ]; then
    echo "usage: $0 TRAIN TEST [IPC...]" >&2
    exit 2
fi
train=$1 test=$2
shift 2
ipcs=("$@")
[ $# -gt 0 ] || ipcs=(1 10)
read -ra seeds <<<"${SEEDS:-0}"
read -ra distill_options <<<"${DISTILL_OPTIONS:-}"
read -ra evaluate_options <<<"${EVALUATE_OPTIONS:-}"
if [ -z "${OUT:-}" ]; then
    OUT=$(mktemp -d)
    trap 'rm -rf "$OUT"' EXIT
fi
mkdir -p "$OUT"

echo "$(machine)"
echo
echo "$train, tested on $test; seeds ${seeds[*]}; options of run: ${DISTILL_OPTIONS:-none}; of evaluate: ${EVALUATE_OPTIONS:-none}"
echo
echo "| ipc | trained on | rows | networks | accuracy, % | deviation | above | distilled in CPU-s | wall s | peak MB |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for ipc in "${ipcs[@]}"; do
    runs=() evaluations=()
    for seed in "${seeds[@]}"; do
        small=$OUT/ipc-$ipc-seed-$seed
        distill run "$train" -o "$small.parquet" --overwrite --ipc "$ipc" --seed "$seed" --json \
            ${distill_options[@]+"${distill_options[@]}"} >"$small.run.json"
        distill evaluate "$small.parquet" --test "$test" --baseline random,herding --from "$train" --ipc "$ipc" --seed "$seed" \
            --json ${evaluate_options[@]+"${evaluate_options[@]}"} >"$small.evaluate.json"
        runs+=("$small.run.json")
        evaluations+=("$small.evaluate.json")
    done
    cost=$(for run in "${runs[@]}"; do
        echo "$(field total <"$run") $(field wall_seconds <"$run") $(field peak_memory_bytes <"$run")"
    done | awk '{ cpu += $1; wall += $2; if ($3 > peak) peak = $3 }
        END { printf "%.1f | %.1f | %.0f", cpu / NR, wall / NR, peak / 1e6 }')
    # One report a line: the distilled file's first, then the baselines', by name.
    awk -v ipc="$ipc" -v cost="$cost" '
        {
            set = FNR == 1 ? "distilled rows" : ""
            if (!set) { match($0, /"name":"[^"]*"/); set = substr($0, RSTART + 8, RLENGTH - 9) " rows" }
            if (!(set in n)) order[++sets] = set
            match($0, /"rows":[0-9]+/); rows[set] = substr($0, RSTART + 7, RLENGTH - 7)
            match($0, /"accuracies":\[[^]]*\]/)
            count = split(substr($0, RSTART + 14, RLENGTH - 15), values, ",")
            for (i = 1; i <= count; i++) { n[set]++; sum[set] += values[i]; squares[set] += values[i] ^ 2 }
        }
        END {
            for (i = 1; i <= sets; i++) {
                set = order[i]
                mean[set] = sum[set] / n[set]
                variance = n[set] > 1 ? (squares[set] - n[set] * mean[set] ^ 2) / (n[set] - 1) : 0
                if (variance < 0) variance = 0
                deviation[set] = sqrt(variance); error[set] = variance / n[set]
            }
            ours = order[1]
            for (i = 1; i <= sets; i++) {
                set = order[i]
                above = ""
                if (i > 1) {
                    pooled = sqrt(error[ours] + error[set])
                    above = sprintf("%+.1f", 100 * (mean[ours] - mean[set]))
                    if (pooled > 0) above = above sprintf(" (%.1f)", (mean[ours] - mean[set]) / pooled)
                }
                printf "| %s | %s | %s | %d | %.1f | %.1f | %s | %s |\n", ipc, set, rows[set], n[set], 100 * mean[set], 100 * deviation[set],
                    above, i == 1 ? cost : " | | "
            }
        }' "${evaluations[@]}"
done
