. "$LIB"
g=$FAMILIES/llama/golden.safetensors
model llama m
works tegu logits m --ids "$g:input_ids" -o a.safetensors -q
works tegu logits m --ids "$g" -o b.safetensors -q
cmp a.safetensors b.safetensors || complain "runs differ"
refused 1 "tegu logits: *has no tensor 'ids'*" tegu logits m --ids "$g:ids" -o c.safetensors
refused 1 "tegu logits: *" tegu logits m --ids "$g:logits" -o c.safetensors
refused 1 "tegu logits: a.safetensors: exists*" tegu logits m --ids "$g" -o a.safetensors
refused 1 "tegu logits: m: has no tokenizer.json*" tegu logits m --text a -o c.safetensors
refused 1 "tegu logits: nowhere/c.safetensors*" tegu logits m --ids "$g" -o nowhere/c.safetensors
# ids of another vocabulary
refused 1 "tegu logits: *vocabulary of 96*" tegu logits m --ids "$TEACHER/golden.safetensors" -o c.safetensors
