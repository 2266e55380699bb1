#!/bin/sh
# The books protocol of docs/benchmarks.md: trains on the first 85% of a text that the teacher has not seen, validates on the rest.
#   books.sh BOOKS.txt.gz OUT [NAME...]     NAME: gated128 gated64 none64 (all three); each goes on where it was
set -eu
books=${1:?usage: books.sh BOOKS.txt.gz OUT [NAME...]}
out=${2:?usage: books.sh BOOKS.txt.gz OUT [NAME...]}
shift 2
[ $# -gt 0 ] || set -- gated128 gated64 none64
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS
tegu=${TEGU:-build/tegu}
mkdir -p "$out"
for name; do
    case $name in
    gated128) plan="--keep auto:2 --window 128" ;;
    gated64) plan="--keep auto:2 --window 64" ;;
    none64) plan="--keep none --window 64" ;;
    *) echo "books.sh: no run is called $name" >&2 && exit 2 ;;
    esac
    # shellcheck disable=SC2086
    [ -d "$out/$name" ] || "$tegu" hybridize examples/teacher-8m "$out/$name" $plan --mixer gated_window \
        --data "$books@0:85%" --validate-data "$books@85%:100%" --validate-length 2048 --windows 12 \
        --suite ppl,kl --length 1024 --stage align:tokens=1M --stage "kl:tokens=${KL_TOKENS:-3M}"
    "$tegu" validate "$out/$name" --teacher examples/teacher-8m --data "$books@85%:100%" --length 2048 --windows 24 \
        --suite ppl --json "$out/$name.ppl.json" --force
    "$tegu" validate "$out/$name" --teacher examples/teacher-8m --data "$books@85%:100%" --length 2048 --windows 12 \
        --suite kl,recall,generation --recall needle:512,needle:1024,kv:8,kv:32 --items 200 --json "$out/$name.json" --force
done
