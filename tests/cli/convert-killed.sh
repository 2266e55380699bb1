# Killed, stopped or out of room on the way: nothing that looks like a model is left.
. "$LIB"
works tegu linearize "$TEACHER" hybrid --mixer mamba2 --keep every:4 -q >table
none() { # DIR: no model there, whatever else
    [ -e "$1" ] && complain "$2 left $1: $(ls "$1")"
    return 0
}
(
    ulimit -f 2000
    tegu convert hybrid full --arch tegu -q 2>err
) && complain "it had room: $(cat err)"
none full "a full disk"
for signal in KILL INT; do
    tegu convert hybrid out --arch tegu 2>err &
    pid=$!
    for _ in $(seq 500); do
        [ -e out.tmp/model.safetensors.tmp ] && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.005
    done
    kill -$signal $pid 2>/dev/null
    wait $pid
    rc=$?
    # a signal may come when all is done
    [ $rc = 0 ] || none out "SIG$signal"
    rm -rf out
    [ $signal = INT ] && [ -e out.tmp ] && complain "out.tmp is left by SIG$signal"
done
works tegu convert hybrid out --arch tegu -q
[ -e out.tmp ] && complain "what was left by SIGKILL is in the way"
[ -f out/config.json ] || complain "no out"
exit 0
