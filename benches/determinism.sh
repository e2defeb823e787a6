#!/usr/bin/env bash
# The same seed gives the same bytes, twice and with other numbers of threads; another seed gives others:
#
#     benches/determinism.sh [FILE.parquet]    default: the digits
#
# Prints the SHA-256 of each output, and fails where they aren't as that says. DISTILL=path is the command, instead of the one
# that cargo builds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/figures.sh"

file=${1:-$root/examples/data/digits.parquet}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# hash SEED THREADS
hash() {
    distill run "$file" -o "$out/out.parquet" --overwrite --quiet --ipc 2 --width 32 --extractors 4 --steps 50 \
        --seed "$1" --threads "$2"
    sha256sum <"$out/out.parquet" | cut -c1-64
}

first=
for run in "0 1" "0 1" "0 2" "0 5"; do
    read -r seed threads <<<"$run"
    found=$(hash "$seed" "$threads")
    echo "seed $seed, threads $threads: $found"
    first=${first:-$found}
    if [ "$found" != "$first" ]; then
        echo "the same seed gave other bytes" >&2
        exit 1
    fi
done
found=$(hash 1 2)
echo "seed 1, threads 2: $found"
if [ "$found" = "$first" ]; then
    echo "another seed gave the same bytes" >&2
    exit 1
fi
