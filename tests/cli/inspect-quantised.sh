# Quantised checkpoints are refused by the name of their method.
. "$LIB"
for method in gptq awq bitsandbytes; do
    rm -rf m
    model llama m
    edit m/config.json "s/\"use_cache\": true/\"quantization_config\": {\"quant_method\": \"$method\", \"bits\": 4}, \"use_cache\": true/"
    refused 1 "tegu inspect: *$method*" tegu inspect m
    refused 1 "tegu hybridize: *$method*" tegu hybridize m out --data "$TEACHER/heldout.txt.gz"
done
