# Recipes: the same settings, overridden by flags; what is wrong is named by its path.
. "$LIB"
tiny t
cat >r.json <<'END'
{ "teacher": "t",
  "plan": { "mixer": "gated_window", "keep": "1", "window": 8 },
  "data": { "files": ["text"], "length": 64, "recall_mix": 0.25 },
  "stages": [ { "kind": "align", "tokens": "2k" }, { "kind": "kl", "tokens": 4096, "train": "all" } ],
  "validate": { "suite": ["ppl", "kl"], "windows": 2, "fail_if": ["kl>9"] },
  "export": { "arch": "auto", "dtype": "f32" } }
END
tegu hybridize out --recipe r.json -q >/dev/null || complain "recipe"
tegu inspect out | grep -q 'F32' || complain "dtype"
tegu inspect out --json | grep -q '"window": 8' || complain "window"
tegu hybridize t flags --recipe r.json --window 4 --dtype bf16 -q >/dev/null || complain "flags"
tegu inspect flags --json | grep -q '"window": 4' || complain "a flag does not override"
tegu inspect flags | grep -q 'BF16' || complain "dtype by flag"
sed 's/"window": 8/"window": 8, "layers": ["0=window,window=4"], "output_gate": false/' r.json >l.json
tegu hybridize layers --recipe l.json -q >/dev/null || complain "layers"
tegu inspect layers --json | grep -A 6 '"mixer": "window"' | grep -q '"window": 4' || complain "no other mixer"
bad() { # sed script, pattern
    sed "$1" r.json >b.json
    cmp -s r.json b.json && complain "nothing changed: $1"
    refused 1 "tegu hybridize: b.json: *$2*" tegu hybridize t new --recipe b.json
}
bad 's/"window": 8/"windw": 8/' 'plan.windw'
bad 's/"window": 8/"window": "wide"/' 'plan.window'
bad 's/"window": 8/"window": -1/' 'plan.window'
bad 's/"window": 8/"window": true/' 'plan.window'
bad 's/"window": 8/"rotary": 1/' 'plan.rotary: must be true or false'
bad 's/"window": 8/"window_form": "across"/' 'plan.window_form'
bad 's/"window": 8/"window_form": true/' 'plan.window_form'
bad 's/"window": 8/"kv": 2/' 'plan.kv: must be a string'
bad 's/"window": 8/"conv": 33/' 'plan.conv'
bad 's/"window": 8/"layers": "0=window"/' 'plan.layers'
bad 's/"recall_mix": 0.25/"recall_mix": 1.5/' 'data.recall_mix'
bad 's/"recall_mix": 0.25/"recall_mix": "0.5"/' 'data.recall_mix'
bad 's/"files": \["text"\]/"files": "text"/' 'data.files'
bad 's/"files": \["text"\]/"files": [1]/' 'data.files'
bad 's/"mixer": "gated_window"/"mixer": "magic"/' 'plan.mixer'
bad 's/"kl", "tokens": 4096/"kx", "tokens": 4096/' 'kx'
bad 's/"tokens": 4096/"tokns": 4096/' 'stages?1?*tokns'
bad 's/"tokens": 4096/"tokens": []/' 'stages?1?*tokens'
bad 's/"suite": \["ppl", "kl"\]/"suite": ["ppl", "kk"]/' 'validate.suite'
bad 's/"plan"/"plane"/' 'plane'
bad 's/"dtype": "f32"/"dtype": "f33"/' 'export.dtype'
bad 's/"length": 64/"length": 64, "length": 64/' 'length'
bad 's/"teacher": "t"/"teacher": 5/' 'teacher'
sed 's/"kl>9"/"kk>9"/' r.json >b.json
refused 2 "tegu hybridize: fail-if: no result is named 'kk'*" tegu hybridize t new --recipe b.json
refused 1 "tegu hybridize: none.json: *" tegu hybridize t new --recipe none.json
head -c 100 r.json >b.json
refused 1 "tegu hybridize: b.json: *" tegu hybridize t new --recipe b.json
