# plan, linearize and distill one by one give what hybridize gives; distill goes on after kill -9.
. "$LIB"
tiny t
tegu hybridize t whole "${QUICK[@]}" --dtype f32 -q >/dev/null || complain "hybridize"
tegu plan t --keep 1 --window 16 -o p.json -q >/dev/null || complain "plan"
tegu linearize t raw --plan p.json --dtype f32 -q >/dev/null || complain "linearize"
steps() {
    "$@" raw out --teacher t --data text --length 64 --stage align:tokens=4k --stage kl:tokens=8k --dtype f32 -q
}
for delay in 0.05 0.2; do
    steps timeout -s KILL $delay tegu distill 2>/dev/null && break
    let_go out.run
done
[ -e out ] || steps tegu distill || complain "distill"
same_weights whole out
refused 1 "tegu distill: out: exists*" steps tegu distill
refused 2 "tegu distill: option '--teacher T' is required*" tegu distill raw new --data text
refused 2 "tegu distill: option '--data FILE' is required*" tegu distill raw new --teacher t
refused 1 "tegu distill: *vocabulary*" tegu distill raw new --teacher "$TEACHER" --data text
# A precision of products: kept in run.json, said where the processor has no unit for it
TG_CPU_MASK=3 tegu distill raw fast --teacher t --data text --length 64 --stage kl:tokens=1k,precision=bf16 2>messages || complain "distill"
grep -q "stage 'kl': this processor has no unit for products of bfloat16" messages || complain "no note of the missing unit"
grep -q '"precision": "bf16"' fast.run/run.json || complain "the precision is not in run.json"
