. "$LIB"
printf 'good \377 bad' >latin
: >empty
printf '{"text": "a"}\n{"txt": "b"}\n' >key.jsonl
printf '{"text": "a"}\n{"text": \n' >cut.jsonl
refused 1 "tegu tokenize: *latin: *UTF-8*5*" tegu tokenize "$TEACHER" --file latin
refused 1 "tegu tokenize: *empty*" tegu tokenize "$TEACHER" --file empty
refused 1 "tegu tokenize: *missing: *No such file*" tegu tokenize "$TEACHER" --file missing
refused 2 "tegu tokenize: give one of *" tegu tokenize "$TEACHER"
refused 2 "tegu tokenize: give one of *" tegu tokenize "$TEACHER" --text a --file empty
refused 1 "tegu tokenize: *UTF-8*" tegu tokenize "$TEACHER" --text "$(printf '\300\200')"
refused 1 "tegu tokenize: *tokenizer.json*" tegu tokenize . --text a
tegu tokenize "$TEACHER" --jsonl key.jsonl 2>err >out && complain "a document without text"
grep -q "^tegu tokenize: key.jsonl: line 2: .*text" err || complain "$(cat err)"
tegu tokenize "$TEACHER" --jsonl cut.jsonl 2>err >out && complain "a document cut short"
grep -q "^tegu tokenize: .*line 2: " err || complain "$(cat err)"
refused 1 "tegu detokenize: --ids: 'x' is not a token id*" tegu detokenize "$TEACHER" --ids "1 x"
refused 1 "tegu detokenize: *8192*" tegu detokenize "$TEACHER" --ids "8192"
