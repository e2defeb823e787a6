#!/usr/bin/env bash
# PyTorch's wheel for Linux flows in, one that loads on a machine without CUDA flows out:
#
#     tests/interop/torch-without-cuda.sh SITE_PACKAGES
#
# PyPI has no CPU-only wheel for Linux on x86-64. The one that there is links a dozen CUDA libraries, 3 GB in wheels of their own, that
# a CPU never calls, but that the loader wants. This compiles libraries of the same names and symbols in their place, where every function
# returns an error. Only the CUDA runtime, which registers kernels as it is loaded, has to be the real one (nvidia-cuda-runtime, 2 MB).
# What training doesn't need is removed: headers and static libraries.
set -euo pipefail

torch=$1/torch
cd "$torch/lib"
rm -rf ../include "$1"/nvidia/*/include "$1"/nvidia/*/lib/*.a
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# "library version" of each CUDA library that is linked with symbol versions, then "library -" of those without.
for object in *.so; do readelf --wide --version-info "$object"; done 2>/dev/null |
    awk '/ File: / { sub(/.* File: /, ""); file = $1 } / Name: / { sub(/.* Name: /, ""); print file, $1 }' |
    grep -E '^lib(cu|nv)' | grep -v '^libcuda' | sort -u >"$scratch/libraries"
for object in *.so; do readelf --wide --dynamic "$object"; done |
    sed -n 's/.*(NEEDED).*\[\(lib\(cu\|nv\|nccl\).*\)\]/\1/p' | grep -v '^libcuda' | sort -u |
    while read -r library; do grep -q "^$library " "$scratch/libraries" || echo "$library -"; done >>"$scratch/libraries"

nm --dynamic --undefined-only *.so | sed -n 's/^ *[Uw] //p' | sort -u >"$scratch/undefined"
while read -r library version; do
    name=${library%%.so*}
    name=${name#lib}
    # With versions a symbol says which library it is from; without, its name starts as the library's does (cuFile, cusparseLt, nccl).
    if [ "$version" != - ]; then
        symbols=$(sed -n "s/@$version\$//p" "$scratch/undefined")
        link=(-Wl,--version-script="$scratch/map")
        echo "$version { *; };" >"$scratch/map"
    else
        symbols=$(grep -i "^$name" "$scratch/undefined" | grep -v @ || true)
        link=()
    fi
    for symbol in $symbols; do echo "int $symbol(void) { return 1; }"; done |
        cc -w -shared -fno-builtin -o "$library" -Wl,-soname,"$library" ${link[@]+"${link[@]}"} -x c -
done <"$scratch/libraries"
