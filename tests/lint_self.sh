#!/usr/bin/env bash
# The lint is tested as everything else is: a clean copy of the tree passes, and a planted fault of each kind fails.
set -u
cd "$(dirname "$0")/.."
out=${1:-build}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
passed=0 failed=0
ok() {
    passed=$((passed + 1))
}
fail() {
    failed=$((failed + 1))
    echo "$1"
}
fresh() {
    rm -rf "$copy"
    mkdir -p "$copy/base" "$copy/formats" "$copy/convert" "$copy/linearize" "$copy/distill" "$copy/tools" "$copy/tests"
    cp .clang-format "$copy/"
    cp base/status.[ch] "$copy/base/"
    printf '#include "base/status.h"\n' >"$copy/formats/plain.h"
    printf '#include "formats/plain.h"\n' >"$copy/tools/plain.c"
}
expect() { # fault, text that the lint must print
    if bash tests/lint.sh "$copy" >"$copy/said"; then
        fail "lint did not notice: $1"
    elif ! grep -q -- "$2" "$copy/said"; then
        fail "lint noticed '$1', but said: $(head -1 "$copy/said")"
    else
        ok
    fi
}
if command -v clang-format >/dev/null 2>&1; then
    fresh
    if bash tests/lint.sh "$copy"; then ok; else fail "a clean tree does not pass"; fi
    fresh; printf '#include "formats/plain.h"\n' >"$copy/base/up.c"
    expect "upward include" "base/up.c:1: base/ may include only"
    fresh; printf '#include <stdio.h>\nint tg_x(void);\nint tg_x(void)\n{\n    return printf("x");\n}\n' >"$copy/base/print.c"
    expect "print in a library" "print.c:5: libraries never print"
    fresh; printf '#include <stdlib.h>\nvoid tg_x(void);\nvoid tg_x(void)\n{\n    exit(1);\n}\n' >"$copy/convert/leave.c"
    expect "exit in a library" "leave.c:5: libraries never print"
    fresh; yes '#include <stddef.h>' | head -801 >"$copy/linearize/long.c"
    expect "file of 801 lines" "longer than 800 lines"
    fresh; printf 'int   tg_spaced ( void ) ;\n' >"$copy/base/form.h"
    expect "formatting" "form.h:1: not formatted"
    fresh; printf 'extern int tg_secret;\n' >"$copy/base/secret.c"
    expect "extern in a source" "secret.c:1: extern belongs"
    fresh; printf '#include <stdlib.h>\nvoid *tg_x(void);\nvoid *tg_x(void)\n{\n    return malloc(1);\n}\n' >"$copy/formats/raw.c"
    expect "malloc in a library" "raw.c:5: allocate through"
fi
# an upward call through a local declaration passes the include check; the link check must see it
fresh
for l in base formats convert linearize distill; do mkdir -p "$copy/obj/$l"; done
printf 'int tg_upper(void);\nint tg_lower(void);\nint tg_lower(void)\n{\n    return tg_upper();\n}\n' >"$copy/lower.c"
printf 'int tg_upper(void);\nint tg_upper(void)\n{\n    return 1;\n}\n' >"$copy/upper.c"
${CC:-gcc} -fPIC -c -o "$copy/obj/formats/upper.o" "$copy/upper.c"
bash tests/layers.sh "$copy/obj" >/dev/null 2>&1 && ok || fail "layers: a clean tree does not pass"
${CC:-gcc} -fPIC -c -o "$copy/obj/base/lower.o" "$copy/lower.c"
bash tests/layers.sh "$copy/obj" >/dev/null 2>&1 && fail "layers: an upward call passes" || ok
rm "$copy/obj/base/lower.o"
printf 'int unprefixed = 1;\n' >"$copy/name.c"
${CC:-gcc} -fPIC -c -o "$copy/obj/base/name.o" "$copy/name.c"
bash tests/layers.sh "$copy/obj" >/dev/null 2>&1 && fail "layers: a symbol without prefix passes" || ok
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
