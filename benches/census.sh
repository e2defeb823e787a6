#!/usr/bin/env bash
# Distils a table to each BUDGET with several methods and seeds, and prints what models learn from each result, from all rows and from random
# rows (benches/tables.py), as a Markdown table:
#
#     examples/census/build.sh census
#     benches/census.sh census/fit.parquet census/validation.parquet [BUDGET...]
#
#     BUDGET                        rows=N, in all, or ipc=N, of each class (default: ipc=10 ipc=100 rows=1000)
#     METHODS="auto random"         (default: auto mean characteristic random herding k_center k_means)
#     SEEDS="0 1 2"                 one job each (default: 0 1 2)
#     EXCLUDE=instance_weight       columns that are no features (this is the default)
#     WEIGHT=weight                 a name: small files get a column of weights, and models train with it (default: none)
#     DISTILL_OPTIONS="--steps 500" more options of `distill run`
#     TABLES_OPTIONS="--no-full"    more options of benches/tables.py
#     OUT=folder                    where the files and reports stay (default: a folder that is removed). A file that is there isn't made again.
#     DISTILL=path, PYTHON=path     the command, instead of the one that cargo builds, and a Python, instead of tests/interop's
#
# Settings are chosen on fit and validation; train and test are for figures that are reported. A method that fails is named, the rest go on, and
# the exit status says so.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/figures.sh"

if [ $# -lt 2 ]; then
    echo "usage: $0 TRAIN TEST [rows=N|ipc=N...]" >&2
    exit 2
fi
train=$1 test=$2
shift 2
budgets=("$@")
[ $# -gt 0 ] || budgets=(ipc=10 ipc=100 rows=1000)
for budget in "${budgets[@]}"; do
    if ! [[ $budget =~ ^(rows|ipc)=[1-9][0-9]*$ ]]; then
        echo "error: '$budget' isn't a budget: write rows=N or ipc=N" >&2
        exit 2
    fi
done
read -ra methods <<<"${METHODS:-auto mean characteristic random herding k_center k_means}"
read -ra seeds <<<"${SEEDS:-0 1 2}"
read -ra distill_options <<<"${DISTILL_OPTIONS:-}"
read -ra tables_options <<<"${TABLES_OPTIONS:-}"
exclude=${EXCLUDE-instance_weight}
python=${PYTHON:-${CARGO_TARGET_DIR:-$root/target}/interop/bin/python}
if ! command -v "$python" >/dev/null; then
    echo "error: no Python at $python: run tests/interop/run.sh once, or set PYTHON to one with scikit-learn, lightgbm and pyarrow" >&2
    exit 2
fi
if [ -z "${OUT:-}" ]; then
    OUT=$(mktemp -d)
    trap 'rm -rf "$OUT"' EXIT
fi
mkdir -p "$OUT"

failed=() small=() costs=()
for budget in "${budgets[@]}"; do
    for method in "${methods[@]}"; do
        files=() reports=()
        for seed in "${seeds[@]}"; do
            name=$OUT/${budget/=/-}-$method-seed-$seed
            if [ ! -s "$name.parquet" ] || [ ! -s "$name.json" ]; then
                echo "$method, $budget, seed $seed" >&2
                if ! distill run "$train" -o "$name.parquet" --overwrite "--${budget%=*}" "${budget#*=}" --method "$method" --seed "$seed" \
                    ${exclude:+--exclude "$exclude"} ${WEIGHT:+--weight "$WEIGHT"} --json ${distill_options[@]+"${distill_options[@]}"} >"$name.json"; then
                    rm -f "$name.parquet" "$name.json"
                    failed+=("$method, $budget, seed $seed")
                    continue
                fi
            fi
            files+=("$name.parquet")
            reports+=("$name.json")
        done
        [ ${#files[@]} -gt 0 ] || continue
        joined=$(printf ',%s' "${files[@]}")
        small+=("$method, $budget=${joined:1}")
        costs+=("| $method, $budget | ${#files[@]} | $(for report in "${reports[@]}"; do
            echo "$(field total <"$report") $(field wall_seconds <"$report") $(field peak_memory_bytes <"$report")"
        done | awk '{ cpu += $1; wall += $2; if ($3 > peak) peak = $3 }
            END { printf "%.1f | %.1f | %.0f", cpu / NR, wall / NR, peak / 1e6 }') |")
    done
done

echo "$(machine)"
echo
echo "seeds ${seeds[*]}; options of run: ${DISTILL_OPTIONS:-none}"
echo
if [ ${#costs[@]} -gt 0 ]; then
    printf '%s\n' "| distilled by | files | CPU-s | wall s | peak MB |" "|---|---|---|---|---|" "${costs[@]}" ""
fi
"$python" "$root/benches/tables.py" "$train" "$test" ${small[@]+"${small[@]}"} --seeds "${#seeds[@]}" \
    ${exclude:+--exclude "$exclude"} ${WEIGHT:+--weight "$WEIGHT"} ${tables_options[@]+"${tables_options[@]}"}
if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFailed:\n' >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
