# What is known of a hybrid goes with it: results, training and licence of a native hybrid stand in the card of its export, and in that
# of the export's export. Nothing that a file says is taken at its word.
. "$LIB"
tiny t
cp "$FAMILIES"/qwen3/config.json "$FAMILIES"/qwen3/model.safetensors t/
cat >t/README.md <<'MD'
---
license: other # no licence of the list
license_name: my licence
license_link: https://example.org/licence
language: [en, "no", 'fr']
tags:
- language
license_bad: "x
---
license: mit
MD
echo "the text of the licence" >t/LICENSE
works tegu hybridize t native --data text --mixer gated_deltanet --rotary false --conv 4 --keep 1 --length 64 --arch tegu --dtype f32 \
    --stage kl:tokens=4k --suite ppl,kl --windows 4 -q >table
says() { # FILE TEXT
    grep -qF -- "$2" "$1" || complain "$1 does not say '$2': $(cat "$1")"
}
says native/README.md 'trust_remote_code=True'
says native/README.md 'Measured on these weights'
works tegu convert native out --arch qwen3_5 --dtype bf16 -q
works tegu convert out again --arch tegu -q
for f in out again; do
    cmp native/tegu_report.json $f/tegu_report.json || complain "the record of $f is another"
    cmp t/LICENSE $f/LICENSE || complain "$f has no licence"
    says $f/README.md 'base_model: "t"'
    says $f/README.md 'license: "other"'
    says $f/README.md 'license_name: "my licence"'
    says $f/README.md 'license_link: "https://example.org/licence"'
    says $f/README.md '- "fr"'
    says $f/README.md '4,000 tokens in all'
    says $f/README.md "$(grep '^| perplexity' native/README.md)"
    says $f/README.md 'Measured on the hybrid before it was converted: `tegu`, weights in f32'
done
# training goes on: a further step, and no results that are of other weights
works tegu distill native more --teacher t --data text --length 64 --stage kl:tokens=2k -q
says more/README.md 'tegu hybridize t native'
says more/README.md 'tegu distill native more'
grep -q 'perplexity' more/README.md && complain "results of other weights: $(cat more/README.md)"
# a hybrid that has no record: its config says who its teacher was
rm native/tegu_report.json native/README.md
works tegu convert native old --arch qwen3_5 -q
says old/README.md 'base_model: "t"'
says old/README.md 'tegu hybridize t native'
# a record that is none; marks in it stay text
echo '{"format": 1, "steps": {}}' >native/tegu_report.json
refused 1 "tegu convert: native/tegu_report.json: steps: not a list*" tegu convert native not --arch qwen3_5
echo '{"format": 9}' >native/tegu_report.json
refused 1 "tegu convert: native/tegu_report.json: format*9*" tegu convert native not --arch qwen3_5
cat >native/tegu_report.json <<'JSON'
{ "format": 1, "base_model": { "name": "a\nlicense: mit\"\\", "license": "b\"\ntags: [x]", "languages": [1, "e\"n"] },
  "teacher": { "name": "<script>|`x`\n# Title" }, "results": { "student": { "ppl": 3 }, "recall": { "a|b": { "1": { "student": 1 } } } },
  "steps": [ 7, { "command": "tegu\n```\n# no", "settings": { "stages": [ { "kind": "|", "tokens": "x" } ] } } ] }
JSON
works tegu convert native odd --arch qwen3_5 -q
sed -n '/^---$/,/^---$/p' odd/README.md >head
grep -qE '^(license: mit|tags: \[x\])' head && complain "the record wrote metadata: $(cat head)"
says head 'base_model: "alicense: mit\"\\"'
grep -qF '````' odd/README.md || complain "a command ends its own block: $(cat odd/README.md)"
grep -E '^#|(^|[^\])<script' odd/README.md | grep -vqE '^#+ (odd|Use|transformers|vLLM|SGLang|Layers|How it was made|Results|The export)$' &&
    complain "the record wrote Markdown: $(cat odd/README.md)"
exit 0
