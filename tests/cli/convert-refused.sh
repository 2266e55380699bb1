# What cannot be converted is said, and nothing is left behind.
. "$LIB"
model llama m
refused 1 "tegu convert: nowhere: *" tegu convert nowhere out
refused 1 "tegu convert: m: is the input itself*" tegu convert m m --force
mkdir there
refused 1 "tegu convert: there: exists; --force replaces it*" tegu convert m there
refused 2 "tegu convert: *dtype*" tegu convert m out --dtype f12
refused 1 "tegu convert: *no tensor is left by --only and --exclude*" tegu convert m out --only 'nothing*'
refused 1 "tegu convert: m/model.safetensors: tensor '*': safetensors files do not hold Q8_0*" tegu convert m out --dtype q8_0
poke m/model.safetensors -4 '\000\000\220\107' # 73728
refused 1 "tegu convert: m/model.safetensors: tensor 'model.norm.weight' is 73728 at element 31, which F16 cannot hold*" tegu convert m out --dtype f16
refused 1 "tegu convert: *is 73728*" tegu convert m out.safetensors --dtype f16
works tegu convert m out --dtype bf16 -q
# weights with scales of their own: another dtype would lose the scales, as they are they may move
for q in "$ROOT"/tests/data/quantised/{fp8,mxfp4}; do
    refused 1 "tegu convert: *quantised with scales of their own; only --dtype keep*" tegu convert "$q" scaled --dtype bf16
    works tegu convert "$q" "kept-$(basename "$q")" -q
done
# killed on the way: nothing that looks complete
(
    ulimit -f 20
    tegu convert m big -q 2>/dev/null
)
[ -e big ] && complain "a killed conversion left a directory"
truncate -s 20000 m/model.safetensors
refused 1 "tegu convert: m/model.safetensors: *" tegu convert m out2
exit 0
