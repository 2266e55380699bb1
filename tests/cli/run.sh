#!/usr/bin/env bash
# Command-line tests: each <cmd>-<case>.sh runs in an empty folder of its own with `tegu` in PATH. Its standard output must equal
# <case>.out, its standard error must match the pattern <case>.err.glob, its exit status must be the number in <case>.exit (0 without).
#   run.sh OUT [PATTERN]      only tests whose name matches
set -u
out=$(cd "${1:-build}" && pwd) pattern=${2:-*}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
ln -s "$out/tegu" "$scratch/bin/tegu"
export PATH="$scratch/bin:$PATH" LIB="$here/lib.bash" ROOT="$(cd "$here/../.." && pwd)" LC_ALL=C
unset NO_COLOR TG_CPU_MASK
passed=0 failed=0

for script in "$here"/*-*.sh; do
    name=$(basename "$script" .sh)
    # shellcheck disable=SC2053
    [[ $name == $pattern ]] || continue
    base=${script%.sh} want=0 why=
    mkdir "$scratch/$name"
    (cd "$scratch/$name" && timeout 300 bash "$script") >"$scratch/stdout" 2>"$scratch/stderr" </dev/null
    got=$?
    [ -f "$base.exit" ] && want=$(cat "$base.exit")
    [ "$got" = "$want" ] || why="exit status $got, not $want"
    if [ -f "$base.out" ] && ! diff -u "$base.out" "$scratch/stdout" >"$scratch/diff"; then
        why="$why; standard output differs"
    else
        : >"$scratch/diff"
    fi
    if [ -f "$base.err.glob" ]; then
        # shellcheck disable=SC2053
        [[ $(cat "$scratch/stderr") == $(cat "$base.err.glob") ]] || why="$why; standard error does not match"
    fi
    if [ -z "$why" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name: ${why#; }"
        tail -n 20 "$scratch/diff" "$scratch/stderr" "$scratch/stdout" 2>/dev/null | sed 's/^/    /'
    fi
    rm -rf "${scratch:?}/$name"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
