# Ctrl-C: status 1, a message that says how to go on, and the same command does.
. "$LIB"
tiny t
long=(--data text --keep none --window 16 --length 64 --stage kl:tokens=20k --suite kl --windows 2)
tegu hybridize t out "${long[@]}" >/dev/null 2>err &
pid=$!
for _ in $(seq 100); do
    [ -s out.run/log.jsonl ] && break
    sleep 0.02
done
kill -INT $pid # ignored in background jobs of a shell, unless caught as here
wait $pid
rc=$?
[ $rc = 1 ] || complain "status $rc: $(cat err)"
grep -q "stopped; the same command goes on from here" err || complain "$(cat err)"
[ -e out ] && complain "out is there already"
tegu hybridize t out "${long[@]}" >/dev/null 2>err || complain "$(cat err)"
grep -q "going on with the run" err || complain "it began anew: $(cat err)"
tegu hybridize t whole "${long[@]}" -q >/dev/null || complain "uninterrupted"
same_weights whole out
