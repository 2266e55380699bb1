# What fits and why not: --dry-run writes nothing, --json is the same for programs; layouts that only some engines load right need
# --allow-irregular, and say so in the card.
. "$LIB"
model qwen3 q
works tegu linearize q regular --mixer gated_deltanet --rotary false --conv 4 --keep 1 -q >table
works tegu linearize q irregular --mixer gated_deltanet --rotary false --conv 4 --keep 0 -q >table
works tegu convert regular out --arch auto --dry-run >verdicts
grep -q '^qwen3_5  *fits (transformers, vLLM, SGLang)$' verdicts || complain "$(cat verdicts)"
grep -q '^granitemoehybrid  *no (' verdicts || complain "$(cat verdicts)"
grep -q '^    layer [01]: ' verdicts || complain "no reason names its layer: $(cat verdicts)"
grep -q '^tegu  *fits' verdicts || complain "$(cat verdicts)"
works tegu convert irregular out --arch auto --dry-run >verdicts
grep -q '^qwen3_5  *with --allow-irregular' verdicts || complain "$(cat verdicts)"
works tegu convert irregular out --arch auto --dry-run --json >json
tr -d ' \n' <json >flat
grep -qF '"arch":"qwen3_5","gguf":false,"fits":false,"reasons":[],"irregular":["softmaxlayers' flat || complain "$(cat json)"
grep -qF '"arch":"granitemoehybrid","gguf":false,"fits":false,"reasons":["layer0:' flat || complain "$(cat json)"
works tegu convert regular out --arch auto --dry-run --json | tr -d ' \n' >flat
grep -qF '"arch":"qwen3_5","gguf":false,"fits":true,"reasons":[],"irregular":[]' flat || complain "$(cat flat)"
[ -e out ] && complain "--dry-run wrote something"
refused 1 "tegu convert: qwen3_5 cannot hold this model everywhere (--allow-irregular *): softmax layers *SGLang*" \
    tegu convert irregular out --arch qwen3_5
tegu convert irregular native --arch auto 2>err || complain "$(cat err)"
grep -q "not qwen3_5: softmax layers " err || complain "auto does not say why: $(cat err)"
grep -q '"model_type": "tegu"' native/config.json || complain "auto wrote what some engine loads wrongly"
tegu convert irregular out --arch qwen3_5 --allow-irregular 2>err || complain "$(cat err)"
grep -q "note: qwen3_5: softmax layers .*SGLang" err || complain "no note: $(cat err)"
grep -q '^- qwen3.*softmax layers .*SGLang' out/README.md || complain "the card does not say it: $(cat out/README.md)"
