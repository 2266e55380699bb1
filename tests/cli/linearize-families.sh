# Every family whose layers are softmax is a teacher: all of its layers become windows with a gated far branch, and the hybrid,
# written and read back, computes the same as a whole and token by token. Of the others it is said which layer a plan cannot change.
. "$LIB"
made=0
for f in "$FAMILIES"/*/; do
    name=$(basename "$f") && [[ $name != *__* ]] || continue
    if tegu inspect "$f" | grep -qE '^layers .*(mla|mamba|kda|lightning|short_conv|gated_deltanet|rglru)'; then
        refused 1 "tegu plan: *layer 0 is '*', only softmax and window layers can be changed*" tegu plan "$f" --keep none
        continue
    fi
    works tegu plan "$f" --mixer gated_window --window 4 --keep none -o plan.json --force -q >/dev/null
    works tegu linearize "$f" "h-$name" --plan plan.json -q
    for mode in parallel recurrent; do
        works tegu logits "h-$name" --ids "$f/golden.safetensors" --mode $mode -o $mode.safetensors --force -q
    done
    tegu compare parallel.safetensors recurrent.safetensors --max-rel 2e-6 >c || complain "$name: $(cat c)"
    made=$((made + 1))
done
[ "$made" -ge 30 ] || complain "only $made families were made hybrids"
