#!/usr/bin/env bash
# Runs every default test: the programs in OUT/tests, the lint's own test and the command-line tests. Each prints "N passed, N failed" last;
# this adds them up and prints the sum as its last line. A program that prints no count is one failure.
#   run.sh OUT       as many at a time as there are processors, or TG_TEST_JOBS
set -u
out=${1:?usage: run.sh OUT}
cd "$(dirname "$0")/.."
jobs=${TG_TEST_JOBS:-$(nproc 2>/dev/null || echo 2)}
# the core that tegu chooses, where OpenBLAS does not know the processor
[ -n "${OPENBLAS_CORETYPE-}" ] || export OPENBLAS_CORETYPE="$("$out"/tegu --version | sed -n 's/.*core //p')"
# threads that wait must not take the processor from the tests beside them
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

run() { # name, program or script, OUT; its counts to $log/name.count
    local name=$1 start=$SECONDS count rc p f
    shift
    [[ $1 == *.sh ]] && set -- bash "$@"
    "$@" >"$log/$name" 2>&1 </dev/null
    rc=$?
    count=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$log/$name" | tail -n 1)
    p=${count%% passed*} f=${count##*passed, }
    f=${f%% failed*}
    if [ -z "$count" ]; then
        p=0 f=1
    elif [ "$rc" != 0 ] && [ "$f" = 0 ]; then
        f=1
    fi
    printf '%-24s %5d passed %3d failed  %3d s\n' "$name" "$p" "$f" $((SECONDS - start))
    [ "$f" = 0 ] || tail -n 60 "$log/$name" | sed 's/^/    /'
    echo "$p $f" >"$log/$name.count"
}

export -f run
export log

# The long ones first, so that none of them is left alone at the end
first="test_model test_families test_mixers test_rows"
names=() lines=()
add() { # path, command...
    local name
    name=$(basename "$1" .sh)
    [[ $1 == *.sh ]] && name=$(basename "$(dirname "$1")")_$name
    names+=("$name") lines+=("$name $*")
}
for t in tests/cli/run.sh tests/examples.sh tests/adding.sh tests/install.sh tests/lint_self.sh; do
    [ -f "$t" ] && add "$t" "$out"
done
for t in $first; do
    [ -x "$out/tests/$t" ] && add "$out/tests/$t"
done
for t in "$out"/tests/test_*; do
    [[ -f $t && -x $t && " $first " != *" $(basename "$t") "* ]] && add "$t"
done
# not bash's own background: its children ignore the signals that some tests send
printf '%s\n' "${lines[@]}" | xargs -P "$jobs" -L 1 bash -c 'run "$@"' _
passed=0 failed=0
for name in "${names[@]}"; do
    read -r p f 2>/dev/null <"$log/$name.count" || p=0 f=1
    passed=$((passed + p)) failed=$((failed + f))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
