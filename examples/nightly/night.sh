#!/usr/bin/env bash
# A table in one folder a day flows in; sketches of the new days, the drift between days and a distilled file of all of them flow out:
#
#     examples/nightly/night.sh TABLE STATE
#
#     TABLE/day=NAME/*.parquet    the rows, in folders whose names sort as the days do
#     STATE/pool.safetensors      the extractors, of `distill pool create`: written once, before the first night
#     STATE/settings.sql          SET statements that every query of the job starts with, such as SET distill.ipc = 10;
#     STATE/sketches/             one file of sketches a day, and beside it which files it was made of
#     STATE/drift/                one file a day: its distance from the days before
#     STATE/current/              what is published: small.parquet, sum.parquet (the sketch of all days), drift.csv, days.txt
#
#     LABEL=label FEATURES=image  the columns
#     BASELINE_DAYS=7             how many days before a day it is compared with
#     VERIFY=1                    hash every file, not only those whose size or times changed
#     DISTILL=distill             the command
#
# Wants bash 4.4 or later and, beside `distill`, GNU find, coreutils and flock. README.md says what happens when something fails.
set -euo pipefail
export LC_ALL=C

if [ $# -ne 2 ]; then
    echo "usage: $0 TABLE STATE" >&2
    exit 2
fi
table=${1%/} state=${2%/}
label=${LABEL:-label} features=${FEATURES:-image} baseline=${BASELINE_DAYS:-7} distill=${DISTILL:-distill}

fail() {
    echo "error: $1" >&2
    exit 1
}

for file in pool.safetensors settings.sql; do
    [ -f "$state/$file" ] || fail "no $state/$file; README.md says how to make it"
done
mkdir -p "$state"/{sketches,drift,releases}
exec {lock}>>"$state/lock"
flock -n "$lock" || fail "another night is at work in $state (it holds $state/lock)"
# What a night that was cut off left behind.
rm -rf "$state/tmp"
mkdir "$state/tmp"

# quoted TEXT: as SQL writes it.
quoted() {
    printf "'%s'" "${1//\'/\'\'}"
}

# sql QUERY: its rows as CSV.
sql() {
    "$distill" --quiet sql --format csv -c "$(<"$state/settings.sql")" -c "SET distill.pool_file = $(quoted "$state/pool.safetensors")" -c "$1"
}

# copy QUERY FILE: its rows in a Parquet file, which isn't seen under its name before it is whole and on the disk.
copy() {
    local whole=$state/tmp/${2##*/}
    sql "COPY ($1) TO $(quoted "$whole") STORED AS PARQUET" >"$state/tmp/count" && sync "$whole" && mv "$whole" "$2"
}

# Sketches of another pool or other settings don't count.
made_with=$(cat "$state/pool.safetensors" "$state/settings.sql" <(echo "$label $features") | sha256sum)

# ---- What is there: of each day a line a file, `size, modified, changed, path` between tabs.
declare -A files=()
while IFS= read -r line; do
    path=${line##*$'\t'} day=${line##*$'\t'day=}
    day=${day%%/*}
    [[ $path == day=*/* && $day =~ ^[0-9A-Za-z_.-]+$ ]] || fail "$table/$path isn't in a folder day=NAME, of letters, digits, - _ and ."
    files[$day]+=$line$'\n'
done < <(find -L "$table" -type f -name '*.parquet' -printf '%s\t%T@\t%C@\t%P\n' | sort -t $'\t' -k 4)
# A table that isn't mounted looks like one whose days were all deleted.
[ ${#files[@]} -gt 0 ] || fail "no day in $table: nothing is changed"
mapfile -t days < <(printf '%s\n' "${!files[@]}" | sort)

# ---- Days that are gone.
for sketch in "$state"/sketches/*.parquet; do
    day=${sketch##*/} day=${day%.parquet}
    if [ -e "$sketch" ] && [ -z "${files[$day]-}" ]; then
        rm -f "$sketch" "$state/sketches/$day.files" "$state/drift/$day".*
        echo "$day: deleted"
    fi
done

# ---- Days that have no sketch, or one of other files. A list starts with the day's key, a hash of what its sketch is made of.
declare -A keys=()
for day in "${days[@]}"; do
    list=$state/sketches/$day.files
    declare -A hashes=()
    key= with= listed=
    if [ -f "$list" ] && [ -f "$state/sketches/$day.parquet" ]; then
        {
            IFS=$'\t' read -r key with
            while IFS= read -r line; do
                hashes[${line#*$'\t'}]=${line%%$'\t'*}
                listed+=$line$'\n'
            done
        } <"$list"
    fi
    now= content=$made_with$'\n'
    while IFS= read -r line; do
        hash=${hashes[$line]-}
        if [ -z "$hash" ] || [ -n "${VERIFY-}" ]; then
            hash=$(sha256sum <"$table/${line##*$'\t'}")
            hash=${hash%% *}
        fi
        now+=$hash$'\t'$line$'\n'
        content+=$hash$'\t'${line##*$'\t'}$'\n'
    done <<<"${files[$day]%$'\n'}"
    unset hashes
    if [ "$with" != "$made_with" ] || [ "$listed" != "$now" ]; then
        before=$key
        key=$(sha256sum <<<"$content")
        key=${key%% *}
        if [ "$key" != "$before" ]; then
            # A file that changes while it is read has other times than those listed here: the next night sees it.
            copy "SELECT $(quoted "$day") AS day, $label, distill_sketch_agg($features) AS s
                  FROM $(quoted "$table/day=$day/") GROUP BY $label" "$state/sketches/$day.parquet" ||
                fail "day $day has no sketch; the days before it keep theirs, and nothing is published"
            echo "$day: sketched"
        fi
        # After the sketch: a night cut off between the two makes the sketch again.
        printf '%s\t%s\n%s' "$key" "$made_with" "$now" >"$state/tmp/files"
        mv "$state/tmp/files" "$list"
    fi
    keys[$day]=$key
done

# ---- Drift: each day against the union of those before it. Again where one of them has changed.
past=()
for day in "${days[@]}"; do
    drift=$state/drift/$day
    compared=${keys[$day]} before=
    for other in "${past[@]}"; do
        compared+=$'\n'${keys[$other]}
        before+="${before:+ UNION ALL }SELECT $label, s FROM $(quoted "$state/sketches/$other.parquet")"
    done
    if [ ${#past[@]} -eq 0 ]; then
        rm -f "$drift".*
    elif [ ! -f "$drift.parquet" ] || [ ! -f "$drift.key" ] || [ "$(<"$drift.key")" != "$compared" ]; then
        rm -f "$drift.key"
        copy "SELECT $(quoted "$day") AS day, coalesce(new.$label, old.$label) AS class,
                     distill_describe(new.s)['rows'] AS rows, distill_describe(old.s)['rows'] AS rows_before,
                     distill_distance(new.s, old.s)['distance'] AS distance, distill_distance(new.s, old.s)['chance'] AS chance
              FROM $(quoted "$state/sketches/$day.parquet") new
              FULL JOIN (SELECT $label, distill_union_agg(s) AS s FROM ($before) GROUP BY $label) old ON new.$label = old.$label
              ORDER BY class" "$drift.parquet"
        printf '%s' "$compared" >"$drift.key"
    fi
    past+=("$day")
    [ ${#past[@]} -le "$baseline" ] || past=("${past[@]:1}")
done

# ---- Published: a folder with all of it, which `current` points to from one moment to the next.
release=$(printf '%s\n' "$made_with" "$baseline" "${keys[@]/#/key }" | sort | sha256sum)
release=releases/${release:0:16}
old=$(readlink "$state/current" || true)
if [ "$old" = "$release" ]; then
    echo "nothing has changed since $release"
    exit
fi
if [ ! -d "$state/$release" ]; then
    out=$state/tmp/release
    mkdir "$out"
    printf '%s\n' "${days[@]}" >"$out/days.txt"
    copy "SELECT $label, distill_union_agg(s) AS s FROM $(quoted "$state/sketches/*.parquet") GROUP BY $label ORDER BY $label" \
        "$out/sum.parquet"
    copy "SELECT * FROM distill((SELECT $label, s FROM $(quoted "$out/sum.parquet")))" "$out/small.parquet"
    echo "day,class,rows,rows_before,distance,chance,drifts" >"$out/drift.csv"
    if compgen -G "$state/drift/*.parquet" >"$state/tmp/compared"; then
        sql "SELECT *, distance > chance AS drifts FROM $(quoted "$state/drift/*.parquet") ORDER BY day, class" >"$out/drift.csv"
    fi
    sync "$out"/*
    mv "$out" "$state/$release"
fi
ln -s "$release" "$state/tmp/current"
mv -T "$state/tmp/current" "$state/current"
# The one before stays for those who are reading it.
for folder in "$state"/releases/*; do
    [ "releases/${folder##*/}" = "$release" ] || [ "releases/${folder##*/}" = "$old" ] || rm -r "$folder"
done
echo "published ${#days[@]} days as $release"
awk -F, '$NF == "true" { print "drift: day " $1 ", class " $2 ": distance " $5 " is more than chance (" $6 ")" }' "$state/current/drift.csv"
