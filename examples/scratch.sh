# Sourced by the scripts that build an example's data; their arguments, OUTDIR alone, flow in, and where they work flows out:
#
#     here       the script's folder
#     out        OUTDIR, which is there now
#     scratch    a folder that is removed when the script ends
#     python     a Python with the packages of the script's requirements.txt; wants python3 with venv
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 OUTDIR" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/venv"
python=$scratch/venv/bin/python
"$python" -m pip install -q --disable-pip-version-check -r "$here/requirements.txt"
