# PyTorch's files, there and back: one file and shards, the same tensors, and a model that is read from them as it is.
. "$LIB"
content() { tegu inspect "$1" --hash | sed -n 's/^hash  *//p'; }
works tegu convert "$TEACHER" bin --to torch --max-shard-size 0 -q
[ -f bin/pytorch_model.bin ] || complain "not one file: $(ls bin)"
works tegu convert "$TEACHER" shards --to torch --max-shard-size 5M --threads 3 -q
[ -f shards/pytorch_model.bin.index.json ] || complain "no index: $(ls shards)"
for d in bin shards; do
    [ "$(content $d)" = "$(content "$TEACHER")" ] || complain "$d does not hold the same tensors"
done
works tegu convert shards back --to safetensors --max-shard-size 0 -q
works tegu convert "$TEACHER" plain --max-shard-size 0 -q
cmp back/model.safetensors plain/model.safetensors || complain "not the same file again"
works tegu convert bin/pytorch_model.bin alone.bin -q
cmp bin/pytorch_model.bin alone.bin || complain "a file converted to its own format changes"
head -c 100000 bin/pytorch_model.bin >cut.bin
refused 1 "tegu inspect: cut.bin: zip: no end record*" tegu inspect cut.bin
