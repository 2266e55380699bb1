# --force after a change begins again where the settings differ: text sampled with another seed, of another length or from another
# teacher is not used, and distill begins anew as well.
. "$LIB"
tiny t
same=(--sample-tokens 5k --keep 1 --window 16 --stage kl:tokens=1k,batch=4 --suite kl --windows 2 -q)
sampled() { # the text must differ from that of the call before
    tegu hybridize t out "$@" "${same[@]}" --force >/dev/null || complain "status $?: $*"
    [ -e last ] && cmp -s last out.run/sampled.safetensors && complain "the old sampled text is used: $*"
    cp out.run/sampled.safetensors last
}
sampled --length 32
sampled --length 32 --seed 5
sampled --length 64 --seed 5
edit t/config.json 's/"rms_norm_eps": 1e-06/"rms_norm_eps": 1e-01/'
sampled --length 64 --seed 5

quick=(--teacher t --data text --length 32 --stage kl:tokens=1k,batch=4 -q)
tegu distill out trained "${quick[@]}" >/dev/null || complain "distill"
tegu distill out trained "${quick[@]}" --seed 3 --force >/dev/null || complain "distill --force with another seed"
