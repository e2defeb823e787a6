#!/usr/bin/env bash
# A file of labelled pictures flows in; how often quiet days are called drift, and how small a mix-up of classes is found, flow out, as tables:
#
#     examples/fashion-mnist/build.sh data
#     benches/drift.sh data/train.parquet
#
# SPLITS times NEW rows are drawn, and OLD others to compare them with, as examples/nightly compares a day with the seven before it. Of the
# planted ones every nth row of two classes has the label of the other.
#
#     SPLITS=100 NEW=590 OLD=4130 POOL="--extractors 4 --width 64" DISTILL=target/release/distill
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source=${1:?usage: benches/drift.sh SOURCE.parquet}
splits=${SPLITS:-100} new=${NEW:-590} old=${OLD:-4130}
distill=${DISTILL:-target/release/distill}
read -ra pool <<<"${POOL:---extractors 4 --width 64}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$distill" --quiet pool create "$source" -o "$work/pool.safetensors" --seed 1 "${pool[@]}"

# SPLIT's rows in an order of its own: numbers times a factor modulo a prime that is larger than the table, cut at NEW and NEW + OLD.
rows=$("$distill" --quiet sql --format csv -c "SELECT count(*) FROM '$source'" | tail -n 1)
prime=$(awk -v n="$rows" 'BEGIN { for (p = n + 1; ; p++) { for (d = 2; d * d <= p && p % d; d++); if (d * d > p) { print p; exit } } }')
part() {
    local key="((n * (7919 * $1 + 1299709)) % $prime)"
    echo "(SELECT image, $4 AS label FROM (SELECT *, row_number() OVER () AS n FROM '$source') WHERE $key >= $2 AND $key < $3)"
}

# compare SPLIT LABEL: class, distance and chance of its new rows under LABEL against the old ones; the old ones' sketches are made once.
compare() {
    local old_sketches=$work/old-$1.parquet
    {
        echo "SET distill.pool_file = '$work/pool.safetensors'; SET distill.init = 'noise'; SET distill.label = 'label';"
        if [ ! -f "$old_sketches" ]; then
            echo "COPY (SELECT label, distill_sketch_agg(image) AS s FROM $(part "$1" "$new" $((new + old)) label) GROUP BY label)
                  TO '$old_sketches' STORED AS PARQUET;"
        fi
        echo "COPY (SELECT a.label, distill_distance(a.s, b.s)['distance'] AS distance, distill_distance(a.s, b.s)['chance'] AS chance
              FROM (SELECT label, distill_sketch_agg(image) AS s FROM $(part "$1" 0 "$new" "$2") GROUP BY label) a
              JOIN '$old_sketches' b ON a.label = b.label) TO '$work/found.csv' STORED AS CSV;"
    } | "$distill" --quiet sql >/dev/null
    tail -n +2 "$work/found.csv"
}

echo "quiet: of $splits splits of $new and $old rows"
for ((split = 0; split < splits; split++)); do compare "$split" label; rm "$work/old-$split.parquet"; done >"$work/quiet.csv"
awk -F, '{ r = $2 / $3; n++; over += r > 1; if (r > most) most = r }
    END { printf "%d comparisons of a class, %d above chance, the largest distance %.2f of its chance\n\n", n, over, most }' "$work/quiet.csv"

echo "| mixed up | share of their rows | distance / chance, of the two, in $new new rows | found |"
echo "|---|---|---|---|"
for pair in "5 9" "0 6" "2 4"; do
    read -r a b <<<"$pair"
    for every in 1 2 3 5; do
        label="CASE WHEN n % $every = 0 AND label IN ($a, $b) THEN $((a + b)) - label ELSE label END"
        compare 0 "$label" | awk -F, -v a="$a" -v b="$b" -v every="$every" '
            $1 == a || $1 == b { r[$1] = $2 / $3 } $1 != a && $1 != b { other += $2 > $3 }
            END {
                found = (r[a] > 1) + (r[b] > 1)
                printf("| %d and %d | 1 / %d | %.2f, %.2f | %d of 2%s |\n", a, b, every, r[a], r[b], found, other ? ", and others" : "")
            }'
    done
done
