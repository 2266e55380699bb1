# plan --for: sizes, mixer and layout such that the export will fit; what cannot is refused with the reason.
. "$LIB"
works tegu plan "$FAMILIES/qwen3" --for qwen3_5 -o plan.json >table
grep -q 'gated_deltanet' table || complain "$(cat table)"
works tegu linearize "$FAMILIES/qwen3" hybrid --plan plan.json -q >table
works tegu convert hybrid out --arch qwen3_5 -q
refused 1 "tegu plan: qwen3_5 cannot hold*layer 0: softmax without q/k norms*" tegu plan "$FAMILIES/llama" --for qwen3_5
refused 1 "tegu plan: qwen3_5 holds changed layers of mixer gated_deltanet, not kda*" tegu plan "$FAMILIES/qwen3" --for qwen3_5 --mixer kda
refused 1 "tegu plan: qwen3_5*softmax layers *" tegu plan "$FAMILIES/qwen3" --for qwen3_5 --keep 0
refused 2 "tegu plan: option --for: 'tegu' is not one of *" tegu plan "$FAMILIES/qwen3" --for tegu
works tegu plan "$FAMILIES/llama" --for granitemoehybrid --keep 1 -o granite.json >table
grep -q 'mamba2' table || complain "$(cat table)"
works tegu linearize "$FAMILIES/llama" granite --plan granite.json -q >table
works tegu convert granite out2 --arch granitemoehybrid -q
exit 0
