#!/usr/bin/env bash
# Small models trained from random weights recall more of 32 pairs the more partitions their sse layer has, at equal parameters: the mean
# accuracy over seeds 0, 1 and 2 rises from N to 2 N. Three seeds at a time, a thread each.
#   mqar_partitions.sh OUT
set -u
export LC_ALL=C
tegu=$(cd "${1:?usage: mqar_partitions.sh OUT}" && pwd)/tegu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
states=(1 2 4 8) seeds=(0 1 2)
mixers=$(printf ',sse:partitions=%s' "${states[@]}")
for seed in "${seeds[@]}"; do
    "$tegu" mqar --mixer "${mixers:1}" --layers 1 --before hyena_y --rotary false --width 32 --heads 2 --start 0.1 --length 128 --pairs 32 \
        --fewest 4 --vocab 128 --threads 1 --seed "$seed" --json -q | sed -n 's/.*"accuracy": *\([0-9.e-]*\).*/\1/p' >"$scratch/$seed" &
done
wait
# one row for each N, one column for each seed
cd "$scratch" && paste "${seeds[@]}" | awk -v states="${states[*]}" -v seeds="${#seeds[@]}" '
    BEGIN { count = split(states, N, " ") }
    NF == seeds {
        sum = 0
        for (i = 1; i <= NF; i++)
            sum += $i
        mean = sum / NF
        rises = NR == 1 || mean > before
        printf "N = %d: %s  mean %.4f%s\n", N[NR], $0, mean, rises ? "" : "  FAILED: no more than before"
        passed += rises && NR > 1
        failed += !rises
        before = mean
        rows++
    }
    END {
        if (rows != count) {
            print "FAILED: " rows + 0 " of " count " rows"
            failed++
        }
        printf "%d passed, %d failed\n", passed, failed
        exit failed > 0
    }'
