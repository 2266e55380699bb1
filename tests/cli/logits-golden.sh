# Both modes agree with the logits and hidden states of transformers, for every family.
. "$LIB"
for f in "$FAMILIES"/*/; do
    for mode in parallel recurrent; do
        tegu logits "$f" --ids "$f/golden.safetensors" --hidden --mode $mode -o o.safetensors --force -q || complain "$f $mode"
        tegu compare o.safetensors "$f/golden.safetensors" --max-rel 2e-6 >c || complain "$f $mode: $(cat c)"
        [ "$(grep -cE '^(hidden\.[0-9]+|logits|input_ids) ' c)" -ge 5 ] || complain "$f $mode compares too little: $(cat c)"
    done
done
