#!/usr/bin/env bash
# A file of labelled pictures flows in; what a sketch of one class takes in memory and in a Parquet file, by formula and as measured, flows out:
#
#     benches/sizes.sh data/train.parquet
#
#     ROWS=600 DISTILL=target/release/distill
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source=${1:?usage: benches/sizes.sh SOURCE.parquet}
distill=${DISTILL:-target/release/distill}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "| options | extractors | features | frequencies | kept rows | by formula, KB | in memory, KB | in Parquet, KB |"
echo "|---|---|---|---|---|---|---|---|"
while read -r options; do
    {
        echo "COPY (SELECT label, distill_sketch_agg(image, '$options') AS s FROM (SELECT * FROM '$source' LIMIT ${ROWS:-600}) GROUP BY label)
              TO '$work/s.parquet' STORED AS PARQUET;"
        # KB are 1,000 bytes. Numbers in a row: the product of the shape, 784 for 28 x 28.
        echo "COPY (SELECT avg(d['extractors']), avg(d['feature_length']), avg(d['frequencies']), avg(d['reservoir_rows']), avg(d['bytes'])
              FROM (SELECT distill_describe(s) AS d FROM '$work/s.parquet')) TO '$work/s.csv' STORED AS CSV;"
    } | "$distill" --quiet sql >/dev/null
    tail -n 1 "$work/s.csv" | awk -F, -v options="$options" -v file="$(stat -c %s "$work/s.parquet")" '{
        dim = options ~ /moments=class/ ? 256 : 0
        formula = $1 * 8 * ($2 + 2 * $3) + $4 * 4 * 784 + $1 * 8 * dim * (dim + 1) / 2
        printf "| `%s` | %d | %d | %d | %.1f | %.0f | %.0f | %.0f |\n", options, $1, $2, $3, $4, formula / 1e3, $5 / 1e3, file / 1e4 }'
done <<'OPTIONS'
ipc=10
ipc=10 init=noise
ipc=10 method=mean
ipc=50 method=herding
extractors=4 width=64 ipc=10
extractors=4 width=64 ipc=10 moments=class moment_dim=256
OPTIONS
