#!/usr/bin/env bash
# Runs the blocks of each page of examples in order, in an empty folder for each.
#   examples.sh OUT [PAGE...]
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(cd "${1:-$root/build}" && pwd)
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- docs/examples.md docs/deploying.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$out:$PATH
passed=0 failed=0
for page in "$@"; do
    mkdir "$work/$(basename "$page" .md)"
    cd "$work/$(basename "$page" .md)" || exit 1
    ln -s "$root/examples/teacher-8m" teacher
    awk '/^```sh$/{n++; f=sprintf("block-%02d.sh", n); next} /^```$/{f=""} f{print > f}' "$root/$page"
    for block in block-*.sh; do
        if bash -eu "$block" >said 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "$page, $block:"
            cat "$block"
            tail -n 20 said
        fi
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
