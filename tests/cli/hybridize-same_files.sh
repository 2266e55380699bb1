# The same settings give the same files of weights, byte for byte, wherever they are written; config.json records the command.
. "$LIB"
tiny t
few=(--data text --keep 1 --window 16 --length 64 --stage kl:tokens=1k,batch=2 --suite kl --windows 2 --threads 1 -q)
tegu hybridize t one "${few[@]}" >/dev/null || complain "one"
tegu hybridize t other "${few[@]}" --max-shard-size 1G >/dev/null || complain "other"
cmp one/model.safetensors other/model.safetensors >&2 || complain "the files of weights differ"
grep -q "hybridize t other " other/config.json || complain "config.json does not record the command"
