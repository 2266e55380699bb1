#!/usr/bin/env bash
# Runs every default test: the programs in OUT/tests, the lint's own test and the command-line tests. Each prints "N passed, N failed" last;
# this adds them up and prints the sum as its last line. A program that prints no count is one failure.
#   run.sh OUT
set -u
out=${1:?usage: run.sh OUT}
cd "$(dirname "$0")/.."
# the core that tegu chooses, where OpenBLAS does not know the processor
[ -n "${OPENBLAS_CORETYPE-}" ] || export OPENBLAS_CORETYPE="$("$out"/tegu --version | sed -n 's/.*core //p')"
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
passed=0 failed=0

run() { # name, command...
    local name=$1 start=$SECONDS count rc p f
    shift
    "$@" >"$log/$name" 2>&1
    rc=$?
    count=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$log/$name" | tail -n 1)
    p=${count%% passed*} f=${count##*passed, }
    f=${f%% failed*}
    if [ -z "$count" ]; then
        p=0 f=1
    elif [ "$rc" != 0 ] && [ "$f" = 0 ]; then
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '%-24s %5d passed %3d failed  %3d s\n' "$name" "$p" "$f" $((SECONDS - start))
    [ "$f" = 0 ] || { tail -n 60 "$log/$name" | sed 's/^/    /'; }
}

for t in "$out"/tests/test_*; do
    [ -f "$t" ] && [ -x "$t" ] && run "$(basename "$t")" "$t"
done
for t in tests/lint_self.sh tests/install.sh tests/adding.sh tests/examples.sh tests/cli/run.sh; do
    [ -f "$t" ] && run "$(basename "$(dirname "$t")")_$(basename "$t" .sh)" bash "$t" "$out"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
