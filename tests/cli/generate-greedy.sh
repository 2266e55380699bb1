# Greedy text is the same each time, and what --json says is what is shown; the golden ids of transformers.
. "$LIB"
tegu generate "$TEACHER" --prompt "The pass key is" -n 12 >a || complain "generate"
tegu generate "$TEACHER" --prompt "The pass key is" -n 12 --threads 1 >b || complain "generate"
cmp a b || complain "runs differ"
tegu generate "$TEACHER" --prompt "The pass key is" -n 12 --json >j || complain "--json"
[ "$(grep -cE '^    [0-9]+,?$' j)" = 12 ] || complain "$(cat j)"
head -c 15 a | grep -q "The pass key is" || complain "$(cat a)"
tegu generate "$TEACHER" --prompt "Once" -n 8 --temperature 1 --seed 3 >c && tegu generate "$TEACHER" --prompt "Once" -n 8 --temperature 1 --seed 3 >d
cmp c d || complain "the same seed gives other text"
tegu generate "$TEACHER" --prompt "Once" -n 8 --temperature 1 --seed 4 >d
cmp -s c d && complain "another seed gives the same text"
refused 2 "tegu generate: give one of --prompt S*" tegu generate "$TEACHER"
refused 1 "tegu generate: the prompt is empty*" tegu generate "$TEACHER" --prompt ""
refused 2 "tegu generate: option --temperature: -1 is out of range*" tegu generate "$TEACHER" --prompt a --temperature -1

# A vocabulary padded beyond the tokenizer's: ids without a token have no text, and take none from the others.
model llama padded
cat >padded/tokenizer.json <<'EOF'
{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
 "decoder": {"type": "ByteLevel"}}
EOF
tegu generate padded --prompt ab -n 1500 --temperature 1 --ignore-eos --json >j || complain "padded"
letters=$(sed -n 's/^  "text": "\([ab]*\)",$/\1/p' j) tokens=$(grep -cE '^    [01],?$' j)
[ "$tokens" -gt 0 ] && [ "${#letters}" = "$tokens" ] || complain "$tokens ids have a token, the text is '$letters'"
