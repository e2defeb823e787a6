#!/usr/bin/env bash
# Files that `distill` wrote flow in; what other readers see, and what the example scripts learn from them, is tested:
#
#     tests/interop/run.sh [PYTEST ARGUMENTS]
#
#     DISTILL=path    the command (default: the one that cargo built for release)
#
# Wants python3 (3.11 or later, with venv) and, on Linux, a C compiler. Packages are installed once, under the target directory: about
# 750 MB to download and 1.9 GB on disk, of which PyTorch is 1.2.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
environment=$target/interop
export DISTILL=${DISTILL:-$target/release/distill}
if [ ! -x "$DISTILL" ]; then
    echo "error: no command at $DISTILL: run 'cargo build --release', or set DISTILL" >&2
    exit 2
fi
DISTILL=$(cd "$(dirname "$DISTILL")" && pwd)/$(basename "$DISTILL")
cd "$here"

# The environment is as good as the files it was made from.
recipe=$(cat requirements.txt torch.txt torch-without-cuda.sh; python3 --version)
if [ "$(cat "$environment/recipe" 2>/dev/null)" != "$recipe" ]; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    pip=("$environment/bin/pip" --disable-pip-version-check --no-cache-dir install --quiet --no-compile)
    "${pip[@]}" --only-binary :all: -r requirements.txt
    "${pip[@]}" --only-binary :all: --no-deps -r torch.txt
    ./torch-without-cuda.sh "$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    printf '%s\n' "$recipe" >"$environment/recipe"
fi

# No hub and no GPU; caches go where the packages are; one thread, for the same result each time.
cache=$environment/cache
rm -rf "$cache"
mkdir -p "$cache"
export HF_HUB_OFFLINE=1 HF_HOME=$cache HF_DATASETS_DISABLE_PROGRESS_BARS=1 CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
"$environment/bin/python" -B -m pytest -q -p no:cacheprovider --basetemp "$cache/tests" "$@" .
rm -rf "$cache"
