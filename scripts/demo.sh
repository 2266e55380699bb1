#!/bin/sh
# The demo: turns the embedded teacher into a hybrid, validates it and shows the result.
#   demo.sh OUT
set -eu
out=${1:-build}
"$out/tegu" hybridize --recipe examples/demo.json examples/teacher-8m out/demo --force
