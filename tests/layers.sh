#!/usr/bin/env bash
# Link direction: the objects of each layer must link with those of the layers below it alone. An upward call is an undefined symbol.
#   layers.sh OBJECTS LIBS...    OBJECTS: folder that holds base/ formats/ ... (build/obj/release)
set -u
objects=${1:?usage: layers.sh OBJECTS LIBS...}
shift
cd "$(dirname "$0")/.."
bad=0 have= notes=$(mktemp)
for layer in base formats convert linearize distill; do
    have="$have $(find "$objects/$layer" -name '*.o' | sort | tr '\n' ' ')"
    if ! ${CC:-gcc} -shared -fopenmp -Wl,-z,defs -o /dev/null $have "$@" 2>"$notes"; then
        echo "$layer/ needs a symbol of a layer above it:"
        grep -oE "[^/]+\.[co]:.*undefined reference to .*" "$notes" | sort -u | head -5
        bad=1
    fi
    # every symbol that another file can see carries the prefix
    for o in $(find "$objects/$layer" -name '*.o'); do
        names=$(nm -g --defined-only "$o" | awk '{print $3}' | grep -v '^tg_')
        [ -z "$names" ] || { echo "$o: symbols without the tg_ prefix:" $names; bad=1; }
    done
done
rm -f "$notes"
exit $bad
