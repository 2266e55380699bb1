# Without --data the teacher writes its own calibration text, kept in the run directory.
. "$LIB"
tiny t
tegu hybridize t out --sample-tokens 5k --keep none --window 16 --length 64 --stage kl:tokens=4k --suite ppl,kl >table 2>err ||
    complain "$(cat err)"
[ -f out.run/sampled.safetensors ] || complain "the sampled text is not kept"
grep -q "sampling 5000 tokens from the teacher" err || complain "$(cat err)"
grep -q "KL to the teacher" table || complain "$(cat table)"
