# A sharded checkpoint: shards and index must say the same.
. "$LIB"
fresh() {
    rm -rf t
    teacher t
}
second=model-00002-of-00002.safetensors
fresh && rm t/$second
refused 1 "tegu inspect: *$second*" tegu inspect t
size=$(stat -c %s "$TEACHER/$second")
for cut in 0 7 8 1000 5000 $((size / 2)) $((size - 1)); do
    fresh && own t $second && truncate -s "$cut" t/$second
    refused 1 "tegu inspect: *$second*" tegu inspect t
done
fresh && own t model.safetensors.index.json
edit t/model.safetensors.index.json 's/"model.norm.weight"/"model.nrom.weight"/'
refused 1 "tegu inspect: *model.n*" tegu inspect t
fresh && own t model.safetensors.index.json
edit t/model.safetensors.index.json '0,/model-00002-of-00002/s//model-00001-of-00002/'
refused 1 "tegu inspect: *" tegu inspect t
fresh && own t model.safetensors.index.json
edit t/model.safetensors.index.json '0,/model-00002-of-00002.safetensors/s##../../../../../../etc/passwd#'
refused 1 "tegu inspect: *" tegu inspect t
fresh && own t model.safetensors.index.json && truncate -s 100 t/model.safetensors.index.json
refused 1 "tegu inspect: *model.safetensors.index.json*" tegu inspect t
