# Sourced by the scripts beside it: the bench target `peer` as `$program`, and the Python environment as `$python`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
python=${CARGO_TARGET_DIR:-$root/target}/interop/bin/python
program=$(cargo bench --locked --no-run --bench peer 2>&1 | sed -n 's/.*(\(.*deps\/peer-[0-9a-f]*\)).*/\1/p')
if [ -z "$program" ]; then
    echo "error: the bench target 'peer' didn't build: cargo bench --no-run --bench peer says why" >&2
    exit 2
fi

# Ends the script where there is no PyTorch.
want_torch() {
    if [ ! -x "$python" ]; then
        echo "error: there is no PyTorch in ${python%/bin/python}: tests/interop/run.sh -k none makes it" >&2
        exit 2
    fi
}
