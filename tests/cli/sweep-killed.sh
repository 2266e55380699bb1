# kill -9 in the middle, then the same command: it goes on, makes no finished run again and ends with the same weights.
. "$LIB"
tiny t
SWEEP=(t --mixers gated_window:window=16,window:window=16 --keep ratio:1 --tokens 16k --data text --length 64 --windows 4 --items 2
    --recall needle:100,kv:2 --baselines 16)
tegu sweep "${SWEEP[@]}" -o whole -q >table || complain "uninterrupted"
[ ! -e whole/sweep.run/hidden ] || complain "hidden states without --teacher-cache"
SWEEP+=(--teacher-cache) # the same numbers, of a teacher that reads stage kl's text once
kills=0
for delay in 0.05 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8; do
    [ -e part/sweep.svg ] && break
    timeout -s KILL "$delay" tegu sweep "${SWEEP[@]}" -o part -q >/dev/null 2>&1 && break
    for run in part/*.run; do let_go "$run"; done
    kills=$((kills + 1))
done
[ "$kills" -ge 2 ] || complain "killed $kills times only"
printf '{"run":"gated' >>part/sweep.jsonl # a line that was being written
tegu sweep "${SWEEP[@]}" -o part -q >again 2>err || complain "$(cat err)"
cmp table again || complain "another table: $(diff table again)"
for run in gated_window-window=16.ratio-1 window-window=16.ratio-1; do same_weights whole/$run part/$run; done
[ "$(stat -c %s part/sweep.run/hidden/1)" -gt 100000 ] || complain "no hidden states"
