#!/usr/bin/env bash
# Streaming conversion of a large checkpoint: time beside cp's in the same run, peak memory, equal hashes through GGUF and back.
#   convert.sh OUT [GIB [DIR]]
# makes a sharded bf16 checkpoint of GIB (16) gibibytes in DIR (a temporary folder), which needs four times that space, and removes it.
set -eu
cd "$(dirname "$0")/../.."
tegu=$PWD/${1:?usage: convert.sh OUT [GIB [DIR]]}/tegu
gib=${2:-16}
dir=$(mktemp -d -p "${3:-${TMPDIR:-/tmp}}")
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
check() { # what, condition of awk
    if awk "BEGIN { exit !($2) }"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    printf '%-52s %s\n' "$1" "$2"
}

# One tensor's data: finite bf16 numbers of the embedded teacher, repeated to 128 MiB
shard=examples/teacher-8m/model-00001-of-00002.safetensors
tail -c 8388608 "$shard" >"$dir/part"
for _ in $(seq 16); do cat "$dir/part"; done >"$dir/tensor"
mkdir "$dir/in"
shards=$(((gib + 3) / 4)) n=0
for s in $(seq "$shards"); do
    name=$(printf 'model-%05d-of-%05d.safetensors' "$s" "$shards")
    count=$(((gib - 4 * (s - 1) < 4 ? gib - 4 * (s - 1) : 4) * 8))
    header='{"__metadata__":{"format":"pt"}' at=0
    for _ in $(seq "$count"); do
        header+=$(printf ',"model.layers.%d.mlp.up_proj.weight":{"dtype":"BF16","shape":[8192,8192],"data_offsets":[%d,%d]}' \
            "$n" "$at" $((at + 134217728)))
        index+=$(printf '%s"model.layers.%d.mlp.up_proj.weight":"%s"' "${index:+,}" "$n" "$name")
        at=$((at + 134217728)) n=$((n + 1))
    done
    header+='}'
    while [ $((${#header} % 8)) != 0 ]; do header+=' '; done
    {
        printf "$(printf '\\x%02x\\x%02x\\x%02x\\x00\\x00\\x00\\x00\\x00' $((${#header} & 255)) $((${#header} >> 8 & 255)) $((${#header} >> 16)))"
        printf '%s' "$header"
        for _ in $(seq "$count"); do cat "$dir/tensor"; done
    } >"$dir/in/$name"
done
[ "$shards" = 1 ] && mv "$dir/in/$name" "$dir/in/model.safetensors" ||
    printf '{"metadata":{"total_size":%d},"weight_map":{%s}}' $((gib << 30)) "$index" >"$dir/in/model.safetensors.index.json"
rm "$dir/part" "$dir/tensor"
sync

seconds() { # sets took and peak (MiB) of a command, until its output is on the disk
    local begin
    begin=$(date +%s.%N)
    /usr/bin/env bash -c 'exec "$@"' _ /usr/bin/time -f '%M' -o "$dir/rss" "$@"
    sync
    took=$(awk "BEGIN { printf \"%.1f\", $(date +%s.%N) - $begin }")
    peak=$(awk '{ printf "%d", $1 / 1024 }' "$dir/rss")
    printf '%8.1f s %6d MiB  %s\n' "$took" "$peak" "${*##*/}"
}
seconds cp -r "$dir/in" "$dir/copy" && cp=$took && rm -r "$dir/copy"
seconds "$tegu" convert "$dir/in" "$dir/out" --max-shard-size 2G -q
check "re-sharding: at most 1.25 times cp" "$took <= 1.25 * $cp"
check "re-sharding: peak memory below 1 GiB" "$peak < 1024"
rm -r "$dir/out"
seconds cp -r "$dir/in" "$dir/copy" && cp=$took && rm -r "$dir/copy"
seconds "$tegu" convert "$dir/in" "$dir/q8.gguf" --dtype q8_0 -q
check "bf16 to q8_0: at most 1.5 times cp" "$took <= 1.5 * $cp"
check "bf16 to q8_0: peak memory below 1 GiB" "$peak < 1024"
rm "$dir/q8.gguf"
seconds "$tegu" convert "$dir/in" "$dir/all.gguf" -q
check "to GGUF: peak memory below 1 GiB" "$peak < 1024"
before=$("$tegu" inspect "$dir/in" --hash | grep '^hash')
rm -r "$dir/in"
seconds "$tegu" convert "$dir/all.gguf" "$dir/back" --to safetensors -q
after=$("$tegu" inspect "$dir/back" --hash | grep '^hash')
check "through GGUF and back: equal hashes" "\"$before\" == \"$after\" && \"$after\" != \"\""
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
