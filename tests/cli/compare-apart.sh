. "$LIB"
g=$FAMILIES/llama/golden.safetensors
cp "$g" b.safetensors
works tegu compare "$g" b.safetensors --max-rel 0 >/dev/null
model llama m
poke m/model.safetensors -4 '\000\000\300\177' # NaN in the last tensor
tegu compare m "$FAMILIES/llama" --max-rel 1e30 >out && complain "NaN is near: $(cat out)"
tegu compare m "$FAMILIES/llama" >out || complain "without --max-rel nothing is judged"
poke m/model.safetensors -4 '\000\000\000\101' # 8
tegu compare m "$FAMILIES/llama" --max-rel 1e-3 >out
[ $? = 3 ] || complain "another weight: $(cat out)"
works tegu compare m "$FAMILIES/llama" --max-rel 1e-3 --tensor model.embed_tokens.weight >/dev/null
tegu compare "$FAMILIES/llama" "$FAMILIES/llama__headdim" >out
[ $? = 3 ] || complain "other shapes: $(cat out)"
grep -q 'shapes differ' out || complain "$(cat out)"
works tegu compare "$g" "$g" --tensor logits --json | grep -q '"name": "logits"' || complain "--tensor"
refused 1 "tegu compare: *has no tensor 'nix'*" tegu compare "$g" "$g" --tensor nix
refused 1 "tegu compare: *no tensor of the same name*" tegu compare "$g" "$FAMILIES/llama"
