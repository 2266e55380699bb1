#!/usr/bin/env bash
# Runs every fuzz target in OUT/fuzz: its seeds, then SECONDS of mutation. Prints "N passed, N failed" last.
#   run.sh OUT SECONDS
# Seeds of fuzz_NAME: the files in tests/fuzz/corpus/NAME/ and the patterns, one a line, in tests/fuzz/corpus/NAME.paths. A dictionary in
# tests/fuzz/NAME.dict is used where there is one. What was found lies in OUT/fuzz/NAME-*.
set -u
out=${1:?usage: run.sh OUT SECONDS} seconds=${2:-0}
cd "$(dirname "$0")/../.."
passed=0 failed=0
for source in tests/fuzz/fuzz_*.c; do
    program=$(basename "$source" .c) name=
    name=${program#fuzz_}
    seeds=$out/fuzz/seeds/$name
    mkdir -p "$seeds"
    [ -d "tests/fuzz/corpus/$name" ] && cp -f "tests/fuzz/corpus/$name"/* "$seeds"/
    if [ -f "tests/fuzz/corpus/$name.paths" ]; then
        for path in $(cat "tests/fuzz/corpus/$name.paths"); do
            cp -f "$path" "$seeds/$(echo "$path" | tr / _)"
        done
    fi
    log=$out/fuzz/$name.log
    if grep -q libFuzzer "$out/fuzz/$program" 2>/dev/null; then
        set -- -max_len=65536 -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$out/fuzz/$name-"
        [ -f "tests/fuzz/$name.dict" ] && set -- "$@" -dict="tests/fuzz/$name.dict"
        if [ "$seconds" = 0 ]; then set -- "$@" -runs=0; else set -- "$@" -max_total_time="$seconds"; fi
        "$out/fuzz/$program" "$@" "$seeds" >"$log" 2>&1
        rc=$?
        runs=$(grep -oE '^Done [0-9]+ runs' "$log" | grep -oE '[0-9]+')
    else
        "$out/fuzz/$program" --seconds "$seconds" --keep "$out/fuzz/$name-last" "$seeds" >"$log" 2>&1
        rc=$?
        runs=$(grep -oE ': [0-9]+ inputs' "$log" | grep -oE '[0-9]+')
    fi
    if [ "$rc" = 0 ]; then
        echo "$program: ${runs:-?} inputs, nothing found"
        passed=$((passed + 1))
    else
        echo "$program: FOUND something, see $log"
        tail -n 40 "$log"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
