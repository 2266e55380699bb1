# Both modes agree with the logits and hidden states of transformers, for every family.
. "$LIB"
for f in "$FAMILIES"/*/; do
    # transformers' Mamba-2 counts its hidden states from behind the first layer, so that the last one alone fits
    # in; its OPT projects the last one to the width of the embeddings
    case $f in
    */mamba2*) only=(--tensor logits input_ids hidden.2) least=3 ;;
    */opt__post*) only=(--tensor logits input_ids hidden.0 hidden.1 hidden.2) least=5 ;;
    *) only=() least=5 ;;
    esac
    for mode in parallel recurrent; do
        tegu logits "$f" --ids "$f/golden.safetensors" --hidden --mode $mode -o o.safetensors --force -q || complain "$f $mode"
        tegu compare o.safetensors "$f/golden.safetensors" "${only[@]}" --max-rel 1e-5 >c || complain "$f $mode: $(cat c)"
        [ "$(grep -cE '^(hidden\.[0-9]+|logits|input_ids) ' c)" -ge "$least" ] || complain "$f $mode compares too little: $(cat c)"
    done
done
