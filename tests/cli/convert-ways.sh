# There and back: dtypes, shards, patterns; what stands beside the weights; the hash that does not depend on how tensors are stored.
. "$LIB"
content() { tegu inspect "$1" --hash | sed -n 's/^hash  *//p'; }
works tegu convert "$TEACHER" wide --dtype f32 --max-shard-size 10M --threads 3 -q
[ "$(ls wide/model-*-of-00004.safetensors | wc -l)" = 4 ] || complain "shards: $(ls wide)"
grep -q '"dtype": "float32"' wide/config.json || complain "config.json keeps the old dtype"
for f in tokenizer.json tokenizer_config.json generation_config.json calibration.txt.gz; do
    cmp "$TEACHER/$f" "wide/$f" || complain "$f is not the same"
done
same_weights wide "$TEACHER"
[ "$(content wide)" != "$(content "$TEACHER")" ] || complain "the hash does not see the dtype"
works tegu convert wide back --dtype bf16 --max-shard-size 0 -q
[ -f back/model.safetensors ] || complain "not one file: $(ls back)"
cmp "$TEACHER/config.json" back/config.json || complain "config.json is not the same again"
[ "$(content back)" = "$(content "$TEACHER")" ] || complain "not the same tensors again"
works tegu convert wide alone --threads 1 --max-shard-size 10M -q
for f in wide/*.safetensors; do cmp "$f" "alone/${f#wide/}" || complain "one thread writes another $f"; done
works tegu convert back mlp.safetensors --only '*.mlp.*' '*norm*' --exclude '*.3.*' -q
[ "$(tegu inspect mlp.safetensors --tensors | grep -c '^model')" = $((1 + 7 * 5)) ] || complain "$(tegu inspect mlp.safetensors --tensors)"
found 0 "74 tensors, 15.3 MiB become 30.5 MiB" tegu convert back never --dtype f32 --dry-run
[ -e never ] && complain "--dry-run wrote"
found 0 '"bytes_after": 31998976' tegu convert back never --dtype f32 --dry-run --json
