# Writing that fails midway (here by a limit on the size of files) leaves nothing behind.
. "$LIB"
tiny t
tegu plan t --keep none --window 16 -o p.json -q >/dev/null || complain "plan"
trap '' XFSZ
limited() { (ulimit -f 8 && "$@"); }
refused 1 "tegu linearize: *model*safetensors*: *" limited tegu linearize t out --plan p.json
cp "$FAMILIES/llama/golden.safetensors" g.safetensors
refused 1 "tegu logits: o.safetensors*: *" limited tegu logits t --ids g.safetensors -o o.safetensors
if [ -w /dev/full ]; then
    tegu inspect t >/dev/full 2>err && complain "a full standard output is success"
    grep -q "standard output" err || complain "$(cat err)"
fi
exit 0
