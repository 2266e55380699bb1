# The three sources of text, and back.
. "$LIB"
printf 'Hello world.\nA second line.' >text
printf '{"text": "Hello world."}\n\n{"text": "caf\\u00e9"}\n' >docs.jsonl
tegu tokenize "$TEACHER" --text "Hello world." >a || exit 1
tegu tokenize "$TEACHER/tokenizer.json" --file text --json >b || exit 1
tegu tokenize "$TEACHER" --jsonl docs.jsonl >c || exit 1
[ "$(wc -l <a)" = 1 ] && [ "$(wc -l <c)" = 2 ] || complain "lines"
[ "{\"ids\":[$(tr ' ' ',' <a)]}" = "$(head -n 1 c)" ] || complain "ids of --text and --jsonl differ"
grep -qE '^\{"ids":\[[0-9,]+\]\}$' b || complain "--json"
tegu detokenize "$TEACHER" --file a
tegu detokenize "$TEACHER" --ids "$(cat a)"
tegu detokenize "$TEACHER" --jsonl c
sed 's/.*\[//; s/\].*//' b >d
tegu detokenize "$TEACHER" --file d
