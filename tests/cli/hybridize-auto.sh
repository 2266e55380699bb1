# auto:N ranks the layers, keeps the ranking, and keeps N layers.
. "$LIB"
tiny t
tegu hybridize t out --data text --keep auto:1 --rank-tokens 1k --rank-items 2 --rank-pairs 0 --window 16 --length 64 \
    --stage kl:tokens=4k --suite kl --windows 2 >table 2>err || complain "$(cat err)"
[ -f out.run/rank.json ] || complain "no rank.json"
tegu inspect out | grep -q '1 x softmax, 1 x gated_window' || complain "$(tegu inspect out)"
tegu rank t --data text -o r.json --tokens 1k --items 2 --pairs 0 --length 64 -q >ranking || complain "rank"
[ "$(grep -cE '^[01] ' ranking)" = 2 ] || complain "$(cat ranking)"
tegu plan t --rank r.json --keep auto:1 --window 16 -o p.json -q >/dev/null || complain "plan"
cmp p.json out.run/plan.json || complain "hybridize plans otherwise than rank and plan: $(diff p.json out.run/plan.json)"
refused 1 "tegu rank: r.json: exists*" tegu rank t --data text -o r.json
refused 1 "tegu plan: *rank*" tegu plan t --keep auto:1
