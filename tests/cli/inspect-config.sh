# Configs without or with absurd values: a message that names file and key, status 1.
. "$LIB"
bad() { # sed script, pattern after "m/config.json: "
    rm -rf m
    model llama m
    edit m/config.json "$1"
    refused 1 "tegu inspect: m/config.json: *$2*" tegu inspect m
}
for key in hidden_size num_attention_heads num_key_value_heads num_hidden_layers intermediate_size vocab_size head_dim; do
    for value in 0 -1 1000000000000000000 1.5 '"x"' '[]' true; do
        bad "s/\"$key\": [0-9]*/\"$key\": $value/" "$key"
    done
done
for key in hidden_size num_attention_heads num_hidden_layers intermediate_size vocab_size; do
    bad "s/\"$key\"/\"x_$key\"/" "$key"
done
bad 's/"num_key_value_heads": 2/"num_key_value_heads": 3/' ''
bad 's/"rms_norm_eps": 1e-06/"rms_norm_eps": -1/' rms_norm_eps
bad 's/"rope_theta": 10000.0/"rope_theta": 0/' rope_theta
bad 's/"rope_type": "default"/"rope_type": "spiral"/' spiral
bad 's/"hidden_act": "silu"/"hidden_act": "sine"/' sine
bad 's/"model_type": "llama"/"model_type": "camel"/' camel
bad 's/"model_type"/"x_model_type"/' model_type
bad 's/"head_dim": 8/"head_dim": 7/' ''
bad 's/"vocab_size": 96/"vocab_size": 96, "vocab_size": 96/' vocab_size
rm -rf m && model llama m && truncate -s 200 m/config.json
refused 1 "tegu inspect: m/config.json: *" tegu inspect m
: >m/config.json
refused 1 "tegu inspect: m/config.json: *" tegu inspect m
rm m/config.json
found 0 "weights        20 tensors in 1 safetensors file" tegu inspect m # tensors without a model
refused 1 "tegu logits: m*config.json*" tegu logits m --text x -o o.safetensors
refused 1 "tegu inspect: nowhere*" tegu inspect nowhere
# "[[[[..." must not exhaust the stack
head -c 1000000 /dev/zero | tr '\0' '[' >m/config.json
refused 1 "tegu inspect: m/config.json: *" tegu inspect m
