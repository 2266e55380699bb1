# The document of validate: every promised key; teacher against itself is perfect; a single model has its perplexity.
. "$LIB"
tiny t
tegu plan t --keep none --mixer window --window 4 -o p.json -q >/dev/null && tegu linearize t s --plan p.json -q >/dev/null || complain "student"
common=(--data text --length 64 --windows 3 --items 2 --recall needle:100,kv:2 --prompts 2 --continuation 8 -q)
tegu validate s --teacher t "${common[@]}" --json v.json --html v.html >table || complain "validate"
for key in kl top1 generation_agreement params kv_bytes_per_token state_bytes teacher student recall buckets; do
    grep -q "^  \"$key\":" v.json || complain "no $key: $(cat v.json)"
done
grep -q '"needle": {' v.json && grep -q '"100": {' v.json && grep -q '"32-63": {' v.json || complain "$(cat v.json)"
grep -q '</html>' v.html || complain "v.html"
tegu validate t --teacher t "${common[@]}" --json - --fail-if 'kl>1e-9' --fail-if 'top1<1' --fail-if 'generation_agreement<1' \
    >same.json || complain "a model against itself: $(cat same.json)"
tegu validate t --data text --length 64 --windows 3 --suite ppl -q >one || complain "a single model"
grep -q '^perplexity' one || complain "$(cat one)"
tegu validate s --teacher t "${common[@]}" --fail-if 'needle.100<2' >out
[ $? = 3 ] || complain "a leaf: $(cat out)"
tegu validate s --teacher t "${common[@]}" --fail-if 'buckets.32-63.kl>=0' >out
[ $? = 3 ] || complain "a bucket: $(cat out)"
refused 2 "tegu validate: *no result is named 'kv.8'*" tegu validate s --teacher t "${common[@]}" --fail-if 'kv.8<1'
refused 2 "tegu validate: suite 'kl' compares with a teacher*" tegu validate s --data text --suite kl
refused 1 "tegu validate: v.json: exists*" tegu validate s --teacher t "${common[@]}" --json v.json
refused 1 "tegu validate: *vocabulary*" tegu validate s --teacher "$TEACHER" "${common[@]}"
