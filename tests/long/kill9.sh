#!/usr/bin/env bash
# kill -9 at random moments of a hybridize run, ten times over; continuing must end with the same SHA-256 of the weights.
#   kill9.sh OUT [RUNS] [SEED]
# Odd runs rank the layers on given text, even runs let the teacher write its text. Each run is killed once in every phase that it has
# (the beginning: sampling or ranking; align; kl; writing and validation), a random time after the phase began, in a fresh process each
# time; then it goes on until it ends with status 0. A table says where the kills fell. OPTIONS in the environment are added to the
# command, such as OPTIONS="--threads 1".
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
tegu=$(cd "${1:?usage: kill9.sh OUT [RUNS] [SEED]}" && pwd)/tegu
runs=${2:-10}
RANDOM=${3:-1}
teacher=$here/examples/teacher-8m
scratch=$(mktemp -d)
pid=
trap '[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; rm -rf "$scratch"' EXIT
passed=0 failed=0

command=("$tegu" hybridize "$teacher" out --stage align:tokens=12k,batch=2 --stage kl:tokens=8k,batch=2 --length 128 --window 32
    --suite kl,recall --recall needle:256 --items 4 --windows 4 --save-every 1 --seed 7)
given=(--data "$teacher/calibration.txt.gz@0:5%" --keep auto:2 --rank-tokens 2k --rank-items 2 --rank-pairs 2)
sampled=(--sample-tokens 12k --keep 1,4)

# The weights alone: the folder's other files hold no numbers of the model.
weights() { # DIR
    cat "$1"/out/*.safetensors | sha256sum | cut -d' ' -f1
}
begun() { # PHASE: has it begun in this folder?
    case $1 in
    begin) [ -e out.run/run.json ] ;;
    align | kl) grep -qs "\"stage\": *\"$1\"" out.run/log.jsonl ;;
    write) [ -e out.tmp ] ;;
    esac
}
# Starts the command and kills it at a random time, at most SPAN ms, after the phase began; 0: it ended before with status 0
killed_in() { # PHASE SPAN
    "${command[@]}" "${kind[@]}" ${OPTIONS:-} -q >stdout 2>stderr &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! begun "$1"; do sleep 0.01; done
    sleep "$(awk -v ms=$((RANDOM % ($2 + 1))) 'BEGIN { print ms / 1000 }')"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    local rc=$?
    pid=
    [ $rc = 137 ] && return 1
    [ $rc = 0 ] || echo "    status $rc: $(tail -n 1 stderr)"
    return 0
}
where() { # what the killed run had come to
    local at=begun
    [ -e out.run/sampled.safetensors.part ] && at=sampling
    [ -e out.run/sampled.safetensors ] && at=sampled
    [ -e out.run/rank.json ] && at=ranked
    [ -s out.run/log.jsonl ] && at=$(tail -n 1 out.run/log.jsonl | sed -n 's/.*"stage": *"\([a-z]*\)".*"step": *\([0-9]*\), *"steps": *\([0-9]*\).*/\1 \2 of \3/p')
    [ -e out.tmp ] && at=writing
    [ -e out.tmp/config.json ] && at=validating
    [ -e out ] && at=done
    echo "${at:-a torn line of the log}"
}

for k in given sampled; do
    mkdir "$scratch/$k" && cd "$scratch/$k" || exit 1
    kind=("${given[@]}")
    [ $k = sampled ] && kind=("${sampled[@]}")
    start=$(date +%s%N)
    "${command[@]}" "${kind[@]}" ${OPTIONS:-} -q >stdout 2>stderr || { cat stderr; echo "0 passed, 1 failed"; exit 1; }
    printf -v "ms_$k" %d $((($(date +%s%N) - start) / 1000000))
    ms=ms_$k
    echo "$k: uninterrupted in ${!ms} ms, weights $(weights . | cut -c1-16)"
done

for ((i = 1; i <= runs; i++)); do
    k=given kind=("${given[@]}")
    ((i % 2 == 0)) && k=sampled kind=("${sampled[@]}")
    ms=ms_$k
    mkdir "$scratch/$i" && cd "$scratch/$i" || exit 1
    at=() rc=
    for phase in begin begin align kl write; do
        if killed_in $phase $((${!ms} / 5)) 2>/dev/null; then break; fi
        at+=("$(where)")
    done
    if [ ! -e out ]; then
        "${command[@]}" "${kind[@]}" ${OPTIONS:-} -q >stdout 2>stderr
        rc=$?
    fi
    why=
    [ "${rc:-0}" = 0 ] || why="status $rc: $(tail -n 1 stderr)"
    [ -z "$why" ] && [ "$(weights .)" != "$(weights "$scratch/$k")" ] && why="other weights"
    [ -z "$why" ] && [ -e out.tmp ] && why="out.tmp is left"
    printf 'run %d, %s: killed at %s: %s\n' "$i" $k "$(printf '%s; ' "${at[@]}")" "${why:-equal}"
    if [ -z "$why" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    cd "$scratch" && rm -rf "${scratch:?}/$i"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
