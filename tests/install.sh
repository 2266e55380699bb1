#!/usr/bin/env bash
# `make install` into an empty folder; then the documented example is compiled against what was installed, and run.
#   install.sh OUT
set -u
out=${1:-build}
cd "$(dirname "$0")/.."
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT
passed=0 failed=0
check() {
    local what=$1
    shift
    if "$@" >"$to/said" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $what"
        tail -n 20 "$to/said"
    fi
}
# as OUT was built, so that nothing is built again
for flags in "$out"/obj/*/.flags; do
    BUILD=$(basename "$(dirname "$flags")") cc=$(sed 's/ -std=c11.*//' "$flags")
    sanitize=$(grep -oE -- '-fsanitize=[^ ]+' "$flags")
done
export BUILD
export PKG_CONFIG_PATH=$to/lib/pkgconfig LD_LIBRARY_PATH=$to/lib
check "make install" make install OUT="$out" PREFIX="$to" CC="$cc"
check "the program runs" "$to/bin/tegu" --version
check "every header stands alone" bash -c 'cd "$1" && for h in $(find . -name "*.h"); do
    echo "#include \"$h\"" | ${CC:-gcc} -std=c11 -I. -fsyntax-only -x c - || exit 1; done' _ "$to/include/tegu"
flags=$(pkg-config --cflags --libs tegu 2>"$to/said")
check "the example compiles" ${CC:-gcc} -std=c11 -Wall -Werror $sanitize -o "$to/perplexity" examples/library/perplexity.c $flags -lm
check "the example runs" bash -c '"$1" examples/teacher-8m examples/teacher-8m/heldout.txt.gz | grep -qE "^[0-9]+\.[0-9]{4}$"' _ "$to/perplexity"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
