. "$LIB"
model qwen3 m
tegu inspect m --json --tensors --hash --check >json || exit 1
for key in family params kv_bytes_per_token state_bytes layers tensors sha256; do
    grep -q "\"$key\"" json || complain "no $key"
done
tegu inspect m --tensors | grep -c '^model\.'
tegu inspect m --hash | grep -E '^sha256 +[0-9a-f]{64}$' | wc -l
