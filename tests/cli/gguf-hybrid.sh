# A GGUF teacher with its vocabulary: text in and out, and a hybrid that has the weights of the HF teacher's and speaks.
. "$LIB"
MODEL=$ROOT/tests/data/gguf/models/qwen3.gguf
found 0 "39 68 95 64" tegu tokenize "$MODEL" --text $'He\na'
found 0 "He a" tegu detokenize "$MODEL" --ids 39,68,94,64
found 0 "tokenizer      byte-level BPE, 96 tokens" tegu inspect "$MODEL"
works tegu plan "$MODEL" --keep 1 -o plan.json -q
works tegu linearize "$MODEL" ours --plan plan.json -q
works tegu linearize "$FAMILIES/qwen3" theirs --plan plan.json -q
same_weights ours theirs
[ -f ours/tokenizer.gguf ] || complain "no tokenizer.gguf: $(ls ours)"
tegu generate ours --prompt "He a" -n 8 --ignore-eos -q >text || complain "the hybrid does not speak"
[ "$(head -c 4 text)" = "He a" ] && [ "$(wc -c <text)" = 13 ] || complain "$(cat text)"
tegu inspect ours | grep -q 'tokenizer      byte-level BPE, 96 tokens' || complain "$(tegu inspect ours)"
works tegu convert ours moved --dtype f32 -q
cmp ours/tokenizer.gguf moved/tokenizer.gguf || complain "conversion left the vocabulary behind"
exit 0
