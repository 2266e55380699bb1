# The words of --keep, other mixers for some layers, and options in every spelling: by the plan that is written.
. "$LIB"
kept() { # words, layers that are kept
    tegu plan "$TEACHER" --mixer window --keep "$1" --json >got.json || complain "keep $1"
    tegu plan "$TEACHER" --mixer window --keep "$1" | awk '$3 == "kept" { print $1 }' | tr '\n' ' ' >got
    [ "$(cat got)" = "$2 " ] || complain "--keep $1 keeps $(cat got), not $2"
}
kept ratio:3 "3 7"
kept ratio:1 "1 3 5 7"
kept ratio:7 "7"
kept first,middle "0 4"
kept 1,last "1 7"
kept middle-last "4 5 6 7"
refused 1 "tegu plan: keep: ratio:8 keeps none of 8 layers*" tegu plan "$TEACHER" --keep ratio:8
refused 1 "tegu plan: keep: *ratio:0*" tegu plan "$TEACHER" --keep ratio:0

# windows and a linear mixer in turn, and one layer with options of its own
tegu plan "$TEACHER" --mixer lolcats --keep last --layer every:2=window,window=64 --layer 2=lolcats,window=32,sinks=2 \
    --layer first-1=keep --layer 0=lizard,feature-map=relu >table || complain "layers"
awk 'NR > 1 && NR < 10 { print $1, $3, $4 }' table >got
diff - got >&2 <<'END' || complain "other mixers for some layers"
0 lizard 128
1 kept 
2 lolcats 32
3 window 64
4 lolcats 64
5 window 64
6 lolcats 64
7 kept 
END
refused 2 "tegu plan: layer: 'every:2' is not LIST=MIXER*" tegu plan "$TEACHER" --keep none --layer every:2
refused 2 "tegu plan: layer: '0=magic': mixer 'magic' is not one of keep, window*" tegu plan "$TEACHER" --keep none --layer 0=magic
refused 2 "tegu plan: layer: 0=window,window=-1: window*" tegu plan "$TEACHER" --keep none --layer 0=window,window=-1
refused 2 "tegu plan: layer: *unknown option 'windw'*window*" tegu plan "$TEACHER" --keep none --layer 0=window,windw=1
refused 2 "tegu plan: layer: *without '='*" tegu plan "$TEACHER" --keep none --layer 0=window,window
refused 2 "tegu plan: layer: *that is kept has no options*" tegu plan "$TEACHER" --keep none --layer 0=keep,window=1
refused 1 "tegu plan: layer: *no layer 9*" tegu plan "$TEACHER" --keep none --layer 9=window
refused 1 "tegu plan: layer: 7: 'window' is given to none*" tegu plan "$TEACHER" --keep last --layer 7=window
refused 1 "tegu plan: plan: layer 2: mixer 'window' has no rotary (false was given)*" \
    tegu plan "$TEACHER" --keep none --layer 2=window,rotary=false
refused 1 "tegu plan: plan: layer 0: mixer 'gated_window' has no conv (4 was given)*" tegu plan "$TEACHER" --keep none --conv 4
refused 2 "tegu plan: option --window-form: 'across' is not one of parallel, series, joint*" \
    tegu plan "$TEACHER" --window-form across
refused 2 "tegu plan: option --conv: 33 is out of range (0 to 32)*" tegu plan "$TEACHER" --conv 33

# the plan that is written makes the same table when it is given back, and flags make the same hybrid as the plan
tiny t
tegu plan t --mixer lolcats --keep 1 --window 8 --sinks 2 --layer 0=window,window=4 -o p.json >/dev/null || complain "plan"
works tegu linearize t a --plan p.json >/dev/null
works tegu linearize t b --mixer lolcats --keep 1 --window 8 --sinks 2 --layer 0=window,window=4 >/dev/null
same_weights a b
for m in a b; do tegu inspect "$m" --json | grep -v "\"$m\"" >$m.json || complain "inspect $m"; done
diff a.json b.json >&2 || complain "layers"
refused 2 "tegu linearize: option --plan says all*" tegu linearize t c --plan p.json --window 4
refused 1 "tegu linearize: keep: auto:2 needs a ranking*" tegu linearize t c
