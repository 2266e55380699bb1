#!/usr/bin/env bash
# Small models of two layers, trained from random weights, recall 8 pairs in 64 tokens: at least 0.99 of the questions for each mixer.
#   mqar.sh OUT [MIXER...]
# without mixers: deltanet gated_deltanet kda. OPTIONS in the environment are added to the command, such as OPTIONS="--seed 1".
set -u
tegu=$(cd "${1:?usage: mqar.sh OUT [MIXER...]}" && pwd)/tegu
shift
[ $# -gt 0 ] || set -- deltanet gated_deltanet kda
passed=0 failed=0
for mixer; do
    # shellcheck disable=SC2086
    if "$tegu" mqar --mixer "$mixer" --length 64 --pairs 8 --at-least 0.99 -q ${OPTIONS:-}; then
        passed=$((passed + 1))
    else
        echo "FAILED $mixer: status $?"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
