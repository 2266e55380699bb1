# Every mixer there is takes a few steps; options go to those that have them.
. "$LIB"
tiny=(--steps 3 --batch 4 --length 16 --pairs 2 --vocab 16 --width 32 --test 8 -q)
all=$(tegu mqar --mixer none-such 2>&1 | sed -n "s/.*is not one of //p" | tr -d ' ')
[[ $all == softmax,*kda* ]] || complain "mixers: $all"
tegu mqar --mixer "$all" "${tiny[@]}" >table || complain "status $?: $(cat table)"
rows=$(($(wc -l <table) - 1)) names=$(tr ',' '\n' <<<"$all" | wc -l)
[ "$rows" = "$names" ] || complain "$rows rows of $names mixers: $(cat table)"
# a window of 4 instead of 16 / 4 tokens is the same model, one of 2 is another
for window in 4 2; do tegu mqar --mixer window "${tiny[@]}" --window $window | sed 's/ [^ ]*$//' >w$window; done
tegu mqar --mixer window "${tiny[@]}" | sed 's/ [^ ]*$//' >w
cmp -s w w4 || complain "window 4: $(cat w w4)"
cmp -s w w2 && complain "window 2: $(cat w w2)"
exit 0
