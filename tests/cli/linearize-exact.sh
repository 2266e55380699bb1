# With a window at least as long as the text and no sinks nothing is lost: the hybrid's logits are the teacher's.
. "$LIB"
ids=$FAMILIES/llama/golden.safetensors
tiny t
tegu logits t --ids "$ids" -o t.safetensors -q || complain "teacher"
for mixer in window gated_window; do
    tegu plan t --mixer $mixer --keep none --window 64 --sinks 0 -o $mixer.json -q >/dev/null || complain "plan $mixer"
    tegu linearize t $mixer --plan $mixer.json --dtype f32 -q >/dev/null || complain "linearize $mixer"
    for mode in parallel recurrent; do
        tegu logits $mixer --ids "$ids" -o $mixer.$mode.safetensors --mode $mode -q || complain "logits $mixer $mode"
        tegu compare $mixer.$mode.safetensors t.safetensors --max-rel 2e-6 >c || complain "$mixer $mode: $(cat c)"
    done
done
# and a short window does lose something, or the comparison proves nothing
tegu plan t --mixer window --keep none --window 4 --sinks 0 -o short.json -q >/dev/null
tegu linearize t short --plan short.json --dtype f32 -q >/dev/null || complain "linearize short"
tegu logits short --ids "$ids" -o short.safetensors -q || complain "logits short"
tegu compare short.safetensors t.safetensors --max-rel 2e-6 >c && complain "a window of 4 changes nothing: $(cat c)"
refused 1 "tegu linearize: window: exists*" tegu linearize t window --plan window.json
edit window.json 's/window/widow/'
refused 1 "tegu linearize: window.json: *" tegu linearize t new --plan window.json
refused 1 "tegu linearize: none.json: *" tegu linearize t new --plan none.json
