# kill -9 at any moment, then the same command: it goes on and ends with the same weights.
. "$LIB"
tiny t
tegu hybridize t whole "${QUICK[@]}" -q >/dev/null || complain "uninterrupted"
kills=0
for delay in 0.02 0.05 0.1 0.15 0.2 0.25 0.3 0.4 0.5 0.6 0.7 0.8; do
    [ -e out ] && break
    timeout -s KILL "$delay" tegu hybridize t out "${QUICK[@]}" -q >/dev/null 2>&1 && break
    let_go out.run
    kills=$((kills + 1))
done
[ "$kills" -ge 2 ] || complain "killed $kills times only"
if [ ! -e out ]; then tegu hybridize t out "${QUICK[@]}" >/dev/null 2>err || complain "$(cat err)"; fi
same_weights whole out
[ -e out.tmp ] && complain "out.tmp is left"
exit 0
