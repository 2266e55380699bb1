# The same budget for each choice: a line a run, a table, a picture, all from runs that hybridize would make.
. "$LIB"
tiny t
SWEEP=(--data text --length 64 --windows 4 --items 2 --recall needle:100,kv:2 --rank-tokens 1k --rank-items 2 --rank-pairs 0)
tegu sweep t --mixers gated_window:window=16,window:window=16 --keep ratio:1,none --tokens 8k -o s "${SWEEP[@]}" >table 2>err ||
    complain "$(cat err)"
for i in 1 2 3 4; do grep -q "^run $i of 4: " err || complain "no run $i of 4: $(cat err)"; done
[ "$(wc -l <s/sweep.jsonl)" = 9 ] || complain "$(wc -l <s/sweep.jsonl) lines, not the teacher, 4 windows and 4 runs"
awk '{ print $1 }' table | tr '\n' ' ' >got
[ "$(cat got)" = "mixer teacher window:window=64, window:window=128, window:window=64, window:window=128, gated_window:window=16 window:window=16 gated_window:window=16 window:window=16 " ] ||
    complain "rows: $(cat got)"
grep -q '"run": "teacher".*"kl": 0,.*"top1": 1,' s/sweep.jsonl || complain "the teacher differs from itself: $(head -n 1 s/sweep.jsonl)"
[ "$(wc -l <s/sweep.md)" = 11 ] || complain "sweep.md"
[ "$(grep -c '<circle' s/sweep.svg)" = 32 ] || complain "$(grep -c '<circle' s/sweep.svg) marks, not 8 in 4 panels"
[ "$(grep -c 'class="mark">gated_window:window=16<' s/sweep.svg)" = 8 ] || complain "marks without their mixer"
tail -n 1 s/sweep.svg | grep -q '^</svg>$' || complain "sweep.svg does not end"

# hybridize with the same settings makes the same weights, and each run is a whole checkpoint
tegu hybridize t h --data text --length 64 --mixer gated_window --window 16 --keep ratio:1 --stage align:tokens=2000 kl:tokens=6000 \
    --suite kl --windows 4 -q >/dev/null || complain "hybridize"
same_weights h s/gated_window-window=16.ratio-1
tegu inspect s/window-window=16.none --json | grep -q '"mixer": "softmax"' && complain "keep none keeps"

# the same again makes nothing; another mixer adds its runs only
tegu sweep t --mixers gated_window:window=16,window:window=16 --keep ratio:1,none --tokens 8k -o s "${SWEEP[@]}" >again 2>err ||
    complain "again: $(cat err)"
cmp table again || complain "another table"
[ "$(grep -c ': done$' err)" = 4 ] || complain "made again: $(cat err)"
tegu sweep t --mixers lolcats:window=8:sinks=1 --keep ratio:1 --tokens 8k -o s "${SWEEP[@]}" --json >more.json 2>err || complain "$(cat err)"
grep -q '"mixer": "lolcats:window=8:sinks=1"' more.json || complain "no new row"
[ "$(wc -l <s/sweep.jsonl)" = 10 ] || complain "lines after one more mixer"

# other settings are refused by name, and made anew with --force
refused 1 "*other settings: stages*; --force*" tegu sweep t --mixers lolcats --keep none --tokens 12k -o s "${SWEEP[@]}"
refused 1 "*other settings: validation.items was 2 and is now 3; --force*" \
    tegu sweep t --mixers lolcats --keep none --tokens 8k -o s "${SWEEP[@]}" --items 3
tegu sweep t --mixers window:window=16 --keep ratio:1 --tokens 4k -o s "${SWEEP[@]}" --baselines 0 --force -q >forced || complain "--force"
[ "$(wc -l <s/sweep.jsonl)" = 2 ] || complain "stale lines: $(cat s/sweep.jsonl)"
