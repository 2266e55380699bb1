# Softmax learns two pairs in 16 tokens, of which guessing would get half; a bound that it cannot reach is status 3.
. "$LIB"
small=(--mixer softmax --length 16 --pairs 2 --vocab 16 --width 32 --test 256 --enough 0.97)
tegu mqar "${small[@]}" --at-least 0.9 --json -q >j || complain "status $?: $(cat j)"
for key in vocab length pairs fewest mixer params state_bytes kv_bytes_per_token steps loss accuracy seconds; do
    grep -q "\"$key\"" j || complain "no $key: $(cat j)"
done
found 3 'mixer' tegu mqar "${small[@]}" --steps 2 --at-least 0.9 -q
