# hybridize --arch: a plan that fits, the export validated, a card; stopped and gone on with, the same bytes. auto writes what fits
# nothing as tegu; a plan that cannot fit is refused before any work.
. "$LIB"
tiny t
quick=(--data text --length 64 --stage align:tokens=2k kl:tokens=4k --suite ppl,kl --windows 4 --threads 1)
mkdir q
cp "$FAMILIES"/qwen3/config.json "$FAMILIES"/qwen3/model.safetensors t/tokenizer.json q/
printf -- '---\nlicense: apache-2.0\nlanguage:\n- en\n- "no"\n---\n# Q\n' >q/README.md
works tegu hybridize q out "${quick[@]}" --arch qwen3_5 --keep 1 --fail-if 'kl>50' --save-every 0 >table
grep -q '"model_type": "qwen3_5_text"' out/config.json || complain "$(cat out/config.json)"
grep -q 'KL to the teacher' table || complain "$(cat table)"
grep -q '"for": "qwen3_5"' out.run/run.json || complain "run.json does not say for what it was planned"
for words in 'base_model: "q"' 'base_model_relation: finetune' 'library_name: transformers' 'license: "apache-2.0"' '- "no"' '- hybrid' \
    '- gated_deltanet' '- vllm' 'tegu hybridize q out' '| kl | 4,000 | all |' '6,000 tokens in all' '| perplexity | ' 'untrained window' \
    'passed: fail if `kl>50`' 'vllm serve out' 'Measured on these weights' '| as written | '; do
    grep -qF -- "$words" out/README.md || complain "the card does not say '$words': $(cat out/README.md)"
done
# the same run, stopped when it has begun to train
mkdir other
cp -r q text other/
cd other || exit 99
tegu hybridize q out "${quick[@]}" --arch qwen3_5 --keep 1 --fail-if 'kl>50' --save-every 0 >/dev/null 2>err &
pid=$!
for _ in $(seq 200); do
    [ -s out.run/log.jsonl ] && break
    sleep 0.01
done
kill -INT $pid
wait $pid
works tegu hybridize q out "${quick[@]}" --arch qwen3_5 --keep 1 --fail-if 'kl>50' --save-every 0 >table
cd ..
for f in config.json model.safetensors tegu_report.json README.md; do
    cmp out/$f other/out/$f || complain "$f differs after an interruption: $(diff out/$f other/out/$f | head -20)"
done
refused 1 "tegu hybridize: qwen3_5 cannot hold*layer 0: softmax without q/k norms*" tegu hybridize t not "${quick[@]}" --arch qwen3_5
refused 1 "tegu hybridize: *qwen3_5*gated_window*" tegu hybridize q not "${quick[@]}" --arch qwen3_5 --mixer gated_window
works tegu hybridize t native "${quick[@]}" --keep 1 --window 16 -q >table
grep -q '"model_type": "tegu"' native/config.json || complain "auto: $(cat native/config.json)"
