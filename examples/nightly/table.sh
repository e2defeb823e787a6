#!/usr/bin/env bash
# A Parquet file of labelled pictures flows in; a table in one folder a day, the job's input, flows out:
#
#     examples/nightly/table.sh SOURCE TABLE DAYS ROWS [DRIFT]
#
# Day n of August 2026 and on has rows n * ROWS to (n + 1) * ROWS of SOURCE. From day DRIFT on (1 is the first; none by default) classes 2 and 4
# are mixed up: in every other row each has the other's label. DISTILL=distill is the command.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: $0 SOURCE TABLE DAYS ROWS [DRIFT]" >&2
    exit 2
fi
source=$1 table=$2 days=$3 rows=$4 drift=${5:-0} distill=${DISTILL:-distill}

for ((n = 0; n < days; n++)); do
    day=$(date -u -d "2026-08-01 + $n days" +%F)
    label=label
    if ((drift > 0 && n + 1 >= drift)); then
        label="CASE WHEN n % 2 = 0 AND label IN (2, 4) THEN 6 - label ELSE label END"
    fi
    mkdir -p "$table/day=$day"
    # One thread: the rows of a file in their order.
    echo "COPY (SELECT image, $label AS label FROM (SELECT *, row_number() OVER () AS n
          FROM (SELECT image, label FROM '$source' LIMIT $rows OFFSET $((n * rows)))))
          TO '$table/day=$day/part-0.parquet' STORED AS PARQUET;"
done | "$distill" --quiet sql --threads 1 --format csv >/dev/null
