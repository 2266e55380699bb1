# A bar only on a terminal (or when asked for), plain lines otherwise, nothing with -q.
. "$LIB"
tiny t
run() { tegu hybridize t "$1" --data text --keep none --window 16 --length 64 --stage kl:tokens="$2" --suite kl --windows 2 "${@:3}" 2>"$1.err" >/dev/null || complain "$(cat "$1.err")"; }
run plain 4k
grep -q $'\r' plain.err && complain "a bar on a file"
run quiet 4k -q
[ -s quiet.err ] && complain "$(cat quiet.err)"
run never 4k --progress never
grep -q '/s' never.err && complain "$(cat never.err)"
NO_COLOR=1 run bar 250k --progress always # long enough for the first second to pass
grep -q $'\r.*kl.*\[[#-]*\].*%.*tokens.*/s.*left' bar.err || complain "no bar: $(cat bar.err)"
grep -q $'\033\\[1m' bar.err && complain "NO_COLOR has colours"
exit 0
