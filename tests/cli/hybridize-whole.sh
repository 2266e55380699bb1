# The whole way: checkpoint, report, table, exit status; the same bits on another number of threads.
. "$LIB"
tiny t
tegu hybridize t out "${QUICK[@]}" --threads 1 --fail-if 'kl>5' >table 2>err || complain "$(cat err)"
for f in config.json model.safetensors tokenizer.json; do [ -f "out/$f" ] || complain "no out/$f"; done
for f in plan.json run.json log.jsonl report.json report.html; do [ -f "out.run/$f" ] || complain "no out.run/$f"; done
[ -e out.tmp ] && complain "out.tmp is left"
cmp t/tokenizer.json out/tokenizer.json || complain "the tokenizer is not the teacher's"
for word in perplexity "KL to the teacher" "same top token" "recall: needle 100" "recall: kv 2" "continuation agrees" parameters \
    "KV cache per token" "constant state" "ok *fail if kl>5: kl is"; do
    grep -q "$word" table || complain "the table has no '$word': $(cat table)"
done
head -n 1 table | grep -q "teacher *untrained window *hybrid" || complain "heads of the table"
for key in teacher student kl top1 generation_agreement recall params kv_bytes_per_token state_bytes buckets untrained checks passed; do
    grep -q "^  \"$key\":" out.run/report.json || complain "report.json has no $key"
done
grep -qE 'src=|href=|https?://[^w]|@import|url\(' out.run/report.html && complain "report.html fetches something"
grep -q '<svg' out.run/report.html || complain "report.html has no picture"
tegu inspect out | grep -q 'layers *2: 1 x softmax, 1 x gated_window' || complain "$(tegu inspect out)"
tegu hybridize t two "${QUICK[@]}" --threads 2 -q >table2 2>err2 || complain "$(cat err2)"
[ -s err2 ] && complain "-q: $(cat err2)"
same_weights out two
refused 1 "tegu hybridize: out: exists*--force*" tegu hybridize t out "${QUICK[@]}"
tegu hybridize t out "${QUICK[@]}" --force -q >/dev/null || complain "--force"
same_weights out two
