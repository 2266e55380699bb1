# The code for transformers stands beside every native checkpoint as it stands in the source, knows every mixer and every key of a layer, and is
# what config.json names. Without it, and without the keys that name it, a checkpoint is read as before.
. "$LIB"
works tegu linearize "$FAMILIES/llama" h --mixer window --window 4 --keep none -q
for f in "$ROOT"/convert/native/*.py; do
    cmp -s "$f" "h/$(basename "$f")" || complain "$(basename "$f") is not the source's"
done
[ "$(ls h/*.py | wc -l)" = "$(ls "$ROOT"/convert/native/*.py | wc -l)" ] || complain "other Python files: $(ls h)"
grep -q '"architectures": \[' h/config.json || complain "no architectures"
for class in configuration_tegu.TeguConfig modeling_tegu.TeguModel modeling_tegu.TeguForCausalLM; do
    grep -q "\"Auto[A-Za-z]*\": \"$class\"" h/config.json || complain "auto_map does not name $class"
    grep -q "^class ${class#*.}(" "h/${class%.*}.py" || complain "there is no $class"
done
names=0
for name in $(sed -n 's/^TG_MIXER(\([a-z0-9_]*\),.*/\1/p' "$ROOT/convert/mixers.def"); do
    grep -qE "^    .*\"$name\": [A-Za-z]" h/modeling_tegu.py h/recurrent_tegu.py || complain "no class for the mixer $name"
    names=$((names + 1))
done
[ "$names" -ge 25 ] || complain "only $names mixers in mixers.def"
keys=0
for key in $(sed -n '/^static const struct field layer_fields/,/^};/s/^ *[A-Z{(]*"\([a-z0-9_]*\)",.*/\1/p' "$ROOT/convert/families/tegu.c"); do
    grep -q "\"$key\"" h/configuration_tegu.py || complain "configuration_tegu.py does not know the key $key"
    keys=$((keys + 1))
done
[ "$keys" -ge 70 ] || complain "only $keys keys of a layer in tegu.c"
works tegu logits h --ids "$FAMILIES/llama/golden.safetensors" -o a.safetensors -q
rm h/*.py
edit h/config.json '/"auto_map"/,/}/d'
grep -q Auto h/config.json && complain "auto_map is still there"
works tegu logits h --ids "$FAMILIES/llama/golden.safetensors" -o b.safetensors -q
cmp -s a.safetensors b.safetensors || complain "other logits without the code"
