#!/usr/bin/env bash
# Static rules of the tree. Prints each breach as FILE:LINE: what; exit status 1 if there is any.
#   lint.sh [ROOT]
set -u
cd "${1:-$(dirname "$0")/..}"
bad=0
say() {
    echo "$1"
    bad=1
}
sources=$(find base formats convert linearize distill tools tests -name '*.[ch]' | sort)
libraries=$(find base formats convert linearize distill -name '*.[ch]' | sort)

# A file includes its own layer and those below it.
below=
for layer in base formats convert linearize distill tools; do
    below="$below $layer"
    allowed=$(echo $below | tr ' ' '|')
    while IFS= read -r hit; do
        say "$hit: $layer/ may include only:$below"
    done < <(find "$layer" -name '*.[ch]' -exec grep -nHE '^ *# *include "' {} + | grep -vE "include \"($allowed)/" | cut -d: -f1,2)
done

# Libraries do not print, end the process or read the environment.
while IFS= read -r hit; do
    say "$hit: libraries never print, exit, abort or read the environment"
done < <(grep -nHE '(^|[^_a-zA-Z0-9])(printf|puts|putchar|perror|exit|_exit|abort|getenv|fprintf *\( *std(err|out))\(' $libraries | grep -vE '^[^:]+:[0-9]+: *(\*|/\*|//)' | cut -d: -f1,2)

# Calls that overflow or hide errors.
while IFS= read -r hit; do
    say "$hit: banned call"
done < <(grep -nHE '(^|[^_a-zA-Z0-9])(strcpy|strcat|sprintf|vsprintf|gets|alloca|setjmp|longjmp|atoi|atof|strtok)\(' $sources | grep -v '^tests/check.h' | cut -d: -f1,2)

# Memory comes from base/mem.h.
while IFS= read -r hit; do
    say "$hit: allocate through base/mem.h"
done < <(grep -nHE '(^|[^_a-zA-Z0-9])(malloc|calloc|realloc|aligned_alloc|posix_memalign)\(' $(echo "$libraries" | grep -v '^base/mem') | cut -d: -f1,2)

# Symbols of other files come from headers.
while IFS= read -r hit; do
    say "$hit: extern belongs in a header"
done < <(grep -nHE '^ *extern ' $(echo "$sources" | grep '\.c$') | cut -d: -f1,2)

# A file fits in the head.
for f in $sources; do
    limit=800
    case $f in *.h) limit=200 ;; esac
    case $f in *_tmpl.h) limit=800 ;; esac
    lines=$(wc -l <"$f")
    [ "$lines" -le "$limit" ] || say "$f:$lines: longer than $limit lines"
done

# Nothing is left to do by the code's own words.
while IFS= read -r hit; do
    say "$hit: finish it or say it in an issue"
done < <(grep -nHwE 'TODO|FIXME|XXX|HACK' $sources | cut -d: -f1,2)

# clang-format is the only authority on form.
if command -v clang-format >/dev/null 2>&1; then
    while IFS= read -r hit; do
        say "$hit: not formatted (clang-format -i)"
    done < <(clang-format --dry-run --ferror-limit=1 $sources 2>&1 | grep -oE '^[^ ]+\.[ch]:[0-9]+' | sort -u)
else
    say "clang-format:0: is not installed (scripts/setup.sh --dev)"
fi
exit $bad
