# Sourced by the scripts that take figures: the command `distill`, and fields of the JSON that it prints.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# $DISTILL, where it is set, else the command as cargo builds it.
distill() {
    if [ -n "${DISTILL:-}" ]; then
        "$DISTILL" "$@"
    else
        cargo run --release --quiet --locked --manifest-path "$root/Cargo.toml" -- "$@"
    fi
}

# field NAME: the number behind the first "NAME" of the JSON text on standard input.
field() {
    sed -n 's/.*"'"$1"'":\([-+0-9.eE]*\).*/\1/p' | head -n 1
}

# What the figures were taken on.
machine() {
    local processor
    processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
    echo "${processor:-$(uname -m)}, $(getconf _NPROCESSORS_ONLN) cores; $(distill --version), $(rustc --version | cut -d' ' -f1,2)"
}
