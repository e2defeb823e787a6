#!/usr/bin/env bash
# A file of labelled pictures flows in; what a night of examples/nightly costs beside reading everything again flows out, as a table:
#
#     examples/fashion-mnist/build.sh data
#     benches/nightly.sh data/train.parquet
#
# For tables of 1, 10 and 100 days of ROWS rows: seconds of the night after one more day came, of one that finds nothing new, and of `distill`
# over all rows with the same pool and settings; and the bytes of what is kept. The same extractors, and STEPS steps of the optimizer, in all.
#
#     DAYS="1 10 100" ROWS=590 STEPS=100 POOL="--extractors 4 --width 64" DISTILL=target/release/distill
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source=${1:?usage: benches/nightly.sh SOURCE.parquet}
rows=${ROWS:-590} steps=${STEPS:-100}
export DISTILL=${DISTILL:-target/release/distill}
read -ra pool <<<"${POOL:---extractors 4 --width 64}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# seconds COMMAND...: how long it takes; what it prints goes to a log.
seconds() {
    local from=$EPOCHREALTIME
    "$@" >>"$work/log" || { cat "$work/log" >&2; return 1; }
    awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'
}

everything() {
    "$DISTILL" --quiet run "$1" -o "$work/all.parquet" --overwrite --ipc 10 --steps "$steps" --pool-file "$2/pool.safetensors" --exclude day
}

echo "| days | rows | the first night, s | a night with one more day, s | nothing new, s | all rows again, s | sketches, MB | table, MB |"
echo "|---|---|---|---|---|---|---|---|"
for days in ${DAYS:-1 10 100}; do
    table=$work/$days/table state=$work/$days/state
    mkdir -p "$state"
    examples/nightly/table.sh "$source" "$table" $((days + 1)) "$rows"
    last=$(find "$table" -mindepth 1 -maxdepth 1 | sort | tail -n 1)
    mv "$last" "$work/last"
    "$DISTILL" --quiet pool create "$table" -o "$state/pool.safetensors" --seed 1 "${pool[@]}"
    echo "SET distill.ipc = 10; SET distill.steps = $steps;" >"$state/settings.sql"
    first=$(seconds examples/nightly/night.sh "$table" "$state")
    mv "$work/last" "$last"
    more=$(seconds examples/nightly/night.sh "$table" "$state")
    none=$(seconds examples/nightly/night.sh "$table" "$state")
    again=$(seconds everything "$table" "$state")
    megabytes() { du -s -B 1000 --apparent-size "$1" | awk '{ printf "%.1f", $1 / 1000 }'; }
    echo "| $days + 1 | $(((days + 1) * rows)) | $first | $more | $none | $again | $(megabytes "$state/sketches") | $(megabytes "$table") |"
done
