# Every command has help on standard output with status 0, in three spellings that agree; the list has every command.
. "$LIB"
commands=$(sed -n 's/^TG_COMMAND(\([a-z]*\),.*/\1/p' "$ROOT/tools/commands.def")
[ -n "$commands" ] || complain "no commands"
tegu help >list || complain "help"
for c in $commands; do
    grep -q "^  $c " list || complain "tegu help does not list $c"
    tegu help "$c" >a || complain "help $c"
    tegu "$c" --help >b 2>err || complain "$c --help"
    tegu "$c" -h >c || complain "$c -h"
    cmp a b && cmp a c || complain "$c: spellings of help differ"
    [ -s err ] && complain "$c --help writes to standard error"
    head -n 1 a | grep -q "^usage: tegu $c" || complain "$c: help does not begin with usage"
    # no two options of one name
    twice=$(grep -oE '^ +(-., )?--[a-z-]+' a | sed 's/.*--//' | sort | uniq -d)
    [ -z "$twice" ] || complain "$c: twice in its help: $twice"
done
tegu --help >all && cmp all list || complain "--help is not help"
