# convert --arch: a hybrid as a model that other engines load. auto says what did not fit; a target that does not fit is an error
# that names layer and reason and leaves nothing; options that do not go together are misuse.
. "$LIB"
model qwen3 q
works tegu linearize q hybrid --mixer gated_deltanet --rotary false --conv 4 --keep 1 -q >table
says() { # TEXT in the messages of the last command
    grep -qF -- "$1" err || complain "does not say '$1': $(cat err)"
}
tegu convert hybrid out --arch auto 2>err || complain "$(cat err)"
says "written as qwen3_5: loads in transformers, vLLM, SGLang"
says "every parameter as it should be"
grep -q '"model_type": "qwen3_5_text"' out/config.json || complain "$(cat out/config.json)"
grep -q '"dtype": "bfloat16"' out/config.json || complain "--dtype keep changed the type: $(cat out/config.json)"
tegu inspect out >seen || complain "the export cannot be read"
grep -q '1 x softmax, 1 x gated_deltanet' seen || complain "$(cat seen)"
[ -e out.tmp ] && complain "out.tmp is left"

# what others could not hold is said, one line for each, before what was written
model llama l
tegu convert l plain --arch auto --dtype f32 2>err || complain "$(cat err)"
says "not qwen3_5: layer 0: softmax without q/k norms"
grep -q '"dtype": "float32"' plain/config.json || complain "--dtype f32: $(cat plain/config.json)"
works tegu linearize q window --keep 1 -q >table
tegu convert window native --arch auto 2>err || complain "$(cat err)"
says "not qwen3_5: layer 0: "
says "written as tegu"
grep -q '"model_type": "tegu"' native/config.json || complain "$(cat native/config.json)"
same_weights window native
tegu convert window quiet --arch auto -q 2>err || complain "$(cat err)"
[ -s err ] && complain "-q: $(cat err)"

# what does not fit
refused 1 "tegu convert: qwen3_5 cannot hold this model: layer 0: *" tegu convert window not --arch qwen3_5
refused 1 "tegu convert: granitemoehybrid cannot hold this model: layer *gated_deltanet*" tegu convert hybrid not --arch granitemoehybrid
refused 1 "tegu convert: arch: qwen3_5 is written as a directory, but the output is a GGUF file*" tegu convert hybrid not.gguf --arch qwen3_5
refused 1 "tegu convert: arch: qwen35 is a GGUF architecture, but the output is a directory*" \
    tegu convert hybrid not --arch qwen35 --to safetensors
refused 1 "tegu convert: arch: tegu is a directory, not a GGUF file*" tegu convert hybrid not.gguf --arch tegu
refused 1 "tegu convert: no GGUF architecture can hold this model: *: layer 0: *" tegu convert window not.gguf --arch auto
refused 1 "tegu convert: *dtype*f8_e4m3*" tegu convert hybrid not --arch qwen3_5 --dtype f8_e4m3
refused 1 "tegu convert: *dtype*q8_0*" tegu convert hybrid not --arch tegu --dtype q8_0

# misuse
refused 2 "tegu convert: option --arch: 'qwen' is not one of auto, tegu, *" tegu convert hybrid not --arch qwen
refused 2 "tegu convert: option --arch writes a whole model: no --only, no --exclude*" tegu convert hybrid not --arch auto --only 'a*'
refused 2 "tegu convert: option --arch writes a whole model: no --only, no --exclude*" tegu convert hybrid not --arch auto --exclude 'a*'
refused 2 "tegu convert: option --arch writes safetensors or GGUF, not torch*" tegu convert hybrid not --arch auto --to torch
refused 2 "tegu convert: option --arch writes a directory or a GGUF file*" tegu convert hybrid not.safetensors --arch auto
refused 2 "tegu convert: option --allow-irregular is for --arch*" tegu convert hybrid not --allow-irregular

# an output that is there
refused 1 "tegu convert: out: exists; --force replaces it*" tegu convert hybrid out --arch auto
echo >out/mine
works tegu convert hybrid out --arch qwen3_5 --dtype f16 --force -q
[ -e out/mine ] && complain "--force left a file of the old output"
grep -q '"dtype": "float16"' out/config.json || complain "$(cat out/config.json)"
exit 0
