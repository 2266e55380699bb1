#!/usr/bin/env bash
# docs/adding.md, taken literally: the code blocks of its section "A model family" are applied to a copy of the tree, whose objects are
# reused, and its commands are run there. The fixture is the one that the page's own line makes.
#   adding.sh OUT
set -u
out=${1:-build}
cd "$(dirname "$0")/.."
page=$PWD/docs/adding.md root=$PWD
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
passed=0 failed=0
check() {
    local what=$1
    shift
    if "$@" >"$copy/said" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $what"
        tail -n 20 "$copy/said"
    fi
}

# The first block after the line of the section that ends in TEXT; nothing if there is none.
block() {
    awk -v text="$1" '
        /^## / { section = $0 == "## A model family" }
        !section { next }
        inside && /^```/ { exit }
        inside { print; next }
        found && /^```/ { inside = 1; next }
        length($0) >= length(text) && substr($0, length($0) - length(text) + 1) == text { found = 1 }
    ' "$page"
}
write_family() {
    block '`convert/families/cohere2.c`:' >convert/families/cohere2.c && [ -s convert/families/cohere2.c ]
}
add_row() {
    block '`convert/families.def`:' >row && [ -s row ] && cat row >>convert/families.def
}
fixture_is_the_page_s() { # its row stands in the generator, and what it says stands in the fixture
    local row
    row=$(block '`tests/ref/make_families.py`:')
    [ -n "$row" ] && [ "${text#*"$row"}" != "$text" ] &&
        block 'writes `tests/data/adding/cohere2__window/`:' | grep -qx 'python3 tests/ref/make_families.py tests/data/adding cohere2__window'
}
run_page() { # the page's commands; a count of no tests is no success
    block 'parameter with a reference in double precision:' >commands
    [ -s commands ] && bash -e commands >said_by_page 2>&1
    local rc=$?
    cat said_by_page
    [ "$rc" = 0 ] && grep -qE '^[1-9][0-9]* passed, 0 failed$' said_by_page
}
# Version 4 says which layers slide by a period; the same model must come out.
older_spelling() {
    mkdir -p older/cohere2 && cp "$fixture"/*.safetensors older/cohere2 &&
        awk '/"layer_types"/ { skip = 1; print "  \"sliding_window_pattern\": 2," } !skip { print } /\]/ { skip = 0 }' \
            "$fixture/config.json" >older/cohere2/config.json &&
        grep -q sliding_window_pattern older/cohere2/config.json && ! grep -q layer_types older/cohere2/config.json &&
        build/tests/test_families older
}

fixture=$root/tests/data/adding/cohere2__window
text=$(cat tests/ref/make_families.py)
mkdir -p "$copy/build" "$copy/tests/data"
cp -a Makefile base formats convert linearize distill tools "$copy" &&
    cp -a tests/*.[ch] "$copy/tests" && cp -a tests/data/adding "$copy/tests/data" && cp -a "$out/obj" "$copy/build" || exit 1
cd "$copy" || exit 1
# the objects' own lists of headers name the folder that they were built in
find build/obj -name '*.d' -exec sed -i -E "s#(^| )$out/#\\1build/#g" {} +
for kind in build/obj/*/; do
    BUILD=$(basename "$kind") CC=$(sed 's/ -std=c11.*//' "$kind/.flags")
done
export BUILD CC OUT=build
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL

check "nothing knows the family before" bash -c '! grep -rqw cohere2 convert'
check "the page has the family's file" write_family
check "the page has its row" add_row
check "the fixture is made by the page's row" fixture_is_the_page_s
check "the page's commands build and pass" run_page
check "the older spelling of the config" older_spelling
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
