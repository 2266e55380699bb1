# Weights that break the rules of their format or do not fit the config: a message that names what, status 1.
. "$LIB"
fresh() {
    rm -rf m
    model "${1:-llama}" m
}
size=$(stat -c %s "$FAMILIES/llama/model.safetensors")
for cut in 0 1 7 8 9 100 2000 $((size - 1)); do
    fresh
    truncate -s "$cut" m/model.safetensors
    refused 1 "tegu inspect: m/model.safetensors: *" tegu inspect m
done
fresh && poke m/model.safetensors 0 '\377\377\377\377\377\377\377\177'
refused 1 "tegu inspect: m/model.safetensors: *header*" tegu inspect m
fresh && poke m/model.safetensors 0 '\377\377\377\377\377\377\377\377'
refused 1 "tegu inspect: m/model.safetensors: *header*" tegu inspect m
fresh && edit m/model.safetensors '1s/"data_offsets":\[0,12288\]/"data_offsets":[4,12288]/'
refused 1 "tegu inspect: m/model.safetensors: *" tegu inspect m
fresh && edit m/model.safetensors '1s/"data_offsets":\[12288,12416\]/"data_offsets":[12284,12412]/' # overlap
refused 1 "tegu inspect: m/model.safetensors: *" tegu inspect m
fresh && edit m/model.safetensors '1s/"data_offsets":\[12288,12416\]/"data_offsets":[12289,12417]/' # gap
refused 1 "tegu inspect: m/model.safetensors: *" tegu inspect m
fresh && edit m/model.safetensors '1s/model.layers.0.input_layernorm.weight/model.layers.1.input_layernorm.weight/' # twice
refused 1 "tegu inspect: *model.layers.1.input_layernorm.weight*" tegu inspect m
fresh && edit m/model.safetensors '1s/model.norm.weight/model.nrom.weight/'
refused 1 "tegu inspect: *model.nrom.weight*" tegu inspect m
fresh && edit m/model.safetensors '1s/"shape":\[32,48\]/"shape":[48,32]/'
refused 1 "tegu inspect: *mlp.down_proj.weight*\[*48,32*" tegu inspect m
fresh && edit m/model.safetensors '1s/"dtype":"F32"/"dtype":"I32"/'
refused 1 "tegu inspect: *model.embed_tokens.weight*I32*" tegu inspect m
fresh && edit m/model.safetensors '1s/"dtype":"F32"/"dtype":"X32"/'
refused 1 "tegu inspect: *X32*" tegu inspect m
fresh && edit m/config.json 's/"num_hidden_layers": 2/"num_hidden_layers": 3/'
refused 1 "tegu inspect: *model.layers.2.*" tegu inspect m
fresh && edit m/config.json 's/"num_hidden_layers": 2/"num_hidden_layers": 1/'
refused 1 "tegu inspect: *model.layers.1.*" tegu inspect m
fresh && rm m/model.safetensors
refused 1 "tegu inspect: m: *" tegu inspect m
fresh && poke m/model.safetensors -4 '\000\000\300\177'
found 3 "m/model.safetensors: tensor 'model.norm.weight' has 1 NaN and 0 infinities, the first at element 31" tegu inspect m --check
cp "$FAMILIES/llama/golden.safetensors" g.safetensors
refused 1 "tegu logits: *NaN*" tegu logits m --ids g.safetensors -o o.safetensors
fresh && poke m/model.safetensors -4 '\000\000\200\377'
found 3 "has 0 NaN and 1 infinity, the first at element 31" tegu inspect m --check
fresh && poke m/model.safetensors -128 "$(printf '\\000%.0s' $(seq 128))"
found 0 "tensor 'model.norm.weight' is all zero" tegu inspect m --check
found 0 "values         all finite" tegu inspect "$TEACHER" --check
