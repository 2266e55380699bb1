# Every command has a page in docs/cmd whose first code block is its help, word for word.
. "$LIB"
for c in $(sed -n 's/^TG_COMMAND(\([a-z]*\),.*/\1/p' "$ROOT/tools/commands.def"); do
    page=$ROOT/docs/cmd/$c.md
    [ -f "$page" ] || complain "docs/cmd/$c.md is missing"
    awk '/^```/ { n++; next } n == 1 { print }' "$page" >documented
    tegu help "$c" >help
    diff -u documented help >&2 || complain "docs/cmd/$c.md does not show the help of today"
done
