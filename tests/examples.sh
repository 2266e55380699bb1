#!/usr/bin/env bash
# Runs the blocks of docs/examples.md in order, in one empty folder.
#   examples.sh OUT
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(cd "${1:-$root/build}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
ln -s "$root/examples/teacher-8m" teacher
PATH=$out:$PATH
passed=0 failed=0
awk '/^```sh$/{n++; f=sprintf("block-%02d.sh", n); next} /^```$/{f=""} f{print > f}' "$root/docs/examples.md"
for block in block-*.sh; do
    if bash -eu "$block" >said 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "docs/examples.md, $block:"
        cat "$block"
        tail -n 20 said
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
