# GGUF models compute what the HF directories compute that they were made of; conversion to GGUF and to parts keeps metadata and values.
. "$LIB"
MODELS=$ROOT/tests/data/gguf/models
for f in "$MODELS"/*.gguf; do
    family=$(basename "$f" .gguf) golden=$FAMILIES/$(basename "$f" .gguf)/golden.safetensors
    tegu logits "$f" --ids "$golden" --hidden -o a --force -q || complain "$family"
    tegu logits "$FAMILIES/$family" --ids "$golden" --hidden -o b --force -q || complain "$family"
    # but where the file has -exp(A_log) rounded, from which A_log is taken
    cmp -s a b || { grep -qaF .ssm_a "$f" && tegu compare a b --max-rel 1e-6 >c; } || complain "$family: not the HF directory's logits"
    tegu compare a "$golden" --max-rel 2e-6 >c || complain "$family: $(cat c)"
    # again as GGUF, whole and in parts, from a directory too
    works tegu convert "$f" copy.gguf --force -q
    works tegu convert "$f" parts --max-shard-size 20K --force -q
    [ "$(ls parts | wc -l)" -gt 2 ] || complain "parts: $(ls parts)"
    for copy in copy.gguf parts parts/model-00002-of-*.gguf; do
        tegu logits "$copy" --ids "$golden" --hidden -o c --force -q || complain "$family $copy"
        cmp a c || complain "$family: $copy: not the same bits"
    done
    # quantised it computes what its values in float32 compute, and not what it did before
    works tegu convert "$f" q.gguf --dtype q8_0 --force -q
    works tegu convert q.gguf wide.gguf --dtype f32 --force -q
    tegu inspect q.gguf | grep -q Q8_0 || [ "$family" = qwen2__headdim ] || complain "$family: nothing became Q8_0"
    for copy in q wide; do
        tegu logits $copy.gguf --ids "$golden" --hidden -o $copy --force -q || complain "$family $copy"
    done
    cmp q wide || complain "$family: Q8_0 differs from its values in float32"
    # a rough bound: the layers of these models are random. A choice of experts jumps, and has none
    grep -qaF ffn_gate_inp "$f" || tegu compare q a --tensor logits --max-rel 0.2 >c || complain "$family: Q8_0: $(cat c)"
    # as safetensors the names are GGUF's, but the values are the same
    works tegu convert "$f" st.safetensors --force -q
    tegu compare st.safetensors "$f" --max-rel 0 >c || complain "$family: $(cat c)"
done
rm parts/model-00002-of-*.gguf
refused 1 "tegu logits: parts/model-00001-of-*: one of * parts, but parts/model-00002-of-* is missing*" tegu logits parts --text a -o out
refused 1 "tegu logits: *headdim.gguf: has no tokenizer.ggml.tokens*" tegu logits "$MODELS/qwen2__headdim.gguf" --text a -o out
cp "$MODELS/qwen3.gguf" m.gguf
truncate -s -1000 m.gguf
refused 1 "tegu logits: m.gguf: tensor '*': *do not lie in the file's*" tegu logits m.gguf --text a -o out
exit 0
