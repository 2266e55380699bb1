# A run goes on only with its own settings; the message names what differs, --force begins again from there.
. "$LIB"
tiny t
tegu hybridize t out "${QUICK[@]}" -q >/dev/null || complain "first"
rm -r out
refused 1 "*other settings: plan.window was 16 and is now 8; --force*" tegu hybridize t out "${QUICK[@]}" --window 8
refused 1 "*other settings: seed was 0 and is now 1; --force*" tegu hybridize t out "${QUICK[@]}" --seed 1
refused 1 "*other settings: stages*" tegu hybridize t out --data text --keep 1 --window 16 --length 64 --stage kl:tokens=4k
cp text text.before && echo more >>text
refused 1 "*other settings: data.files?0?.sha256 was *" tegu hybridize t out "${QUICK[@]}"
mv text.before text
tegu hybridize t out "${QUICK[@]}" --window 8 --force -q >/dev/null || complain "--force"
tegu inspect out --json | grep -q '"window": 8' || complain "still the old window"
