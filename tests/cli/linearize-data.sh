# The closed-form start: errors on the text never grow, only o.weight of changed layers changes, an exact layer keeps its weights.
. "$LIB"
tiny t
tegu plan t --mixer lolcats --keep 0 --window 4 -o plan.json -q >/dev/null || complain "plan"
tegu linearize t plain --plan plan.json --dtype f32 -q >/dev/null || complain "linearize"
tegu linearize t fitted --plan plan.json --dtype f32 --data text --tokens 2k --length 64 --json -q >fit.json || complain "linearize --data"
grep -q '"layer": *1' fit.json || complain "layer 1 is not in: $(cat fit.json)"
before=$(sed -n 's/.*"before": *\([0-9.e-]*\).*/\1/p' fit.json | head -1)
after=$(sed -n 's/.*"after": *\([0-9.e-]*\).*/\1/p' fit.json | head -1)
awk -v a="$after" -v b="$before" 'BEGIN { exit !(a > 0 && a < b) }' || complain "error before '$before', after '$after'"
tegu compare fitted plain --max-rel 0 >same 2>&1 && complain "--data changed nothing"
tegu linearize t again --plan plan.json --dtype f32 --data text --tokens 2k --length 64 --threads 1 -q >/dev/null || complain "again"
same_weights fitted again
tegu linearize t table --plan plan.json --data text --tokens 2k --length 64 -q >table.out || complain "table"
grep -q "error before" table.out || complain "no table: $(cat table.out)"
# a mixer without o is measured, and takes no gains
works tegu linearize t space --mixer mamba2 --keep 0 --dtype f32 --data text --length 64 -q >space.out
grep -q "error before" space.out && complain "gains of mamba2: $(cat space.out)"
works tegu linearize t guessed --mixer mamba2 --keep 0 --dtype f32 -q
tegu compare space guessed --max-rel 0 >same 2>&1 && complain "--data changed nothing of mamba2"
refused 2 "tegu linearize: options --tokens and --length are for --data*" tegu linearize t new --plan plan.json --tokens 2k
refused 1 "tegu linearize: none: *" tegu linearize t new --plan plan.json --data none
