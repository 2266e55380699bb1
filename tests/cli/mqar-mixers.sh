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
# A layer before each: of the same mixer it is a model of twice the layers; of another it is not.
row() { tegu mqar "${tiny[@]}" "$@" | sed '1d; s/^[^ ]* *//; s/ [^ ]*$//'; }
[ "$(row --mixer softmax --layers 4)" = "$(row --mixer softmax --before softmax)" ] || complain "before: $(row --mixer softmax --before softmax)"
[ "$(row --mixer kda --layers 4 --conv 2)" = "$(row --mixer kda:conv=2 --before kda --conv 2)" ] || complain "before, with options: $(row --mixer kda --before kda --conv 2)"
mixed=$(row --mixer kda --before hyena_y) first=$(row --mixer hyena_y --layers 4) second=$(row --mixer kda --layers 4)
[[ $mixed != "$first" && $mixed != "$second" ]] || complain "before: $mixed / $first / $second"
[ "$mixed" = "$(row --mixer kda --before hyena_y --conv 4)" ] || complain "before: $(row --mixer kda --before hyena_y --conv 4)"
# weights of 0 guess: ln 16
tegu mqar --mixer softmax "${tiny[@]}" --steps 1 --start 0 | grep -q ' 2\.7726 ' || complain "start 0: $(tegu mqar --mixer softmax "${tiny[@]}" --steps 1 --start 0)"
exit 0
