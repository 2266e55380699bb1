# Bad input: a clear message, status 1 (2 for wrong usage), nothing left behind.
. "$LIB"
tiny t
printf 'good text, then \377' >latin
: >empty
gzip -c text | head -c 5000 >cut.gz
run() { tegu hybridize t out "$@" --length 64 --stage kl:tokens=4k; }
refused 1 "tegu hybridize: *99*" run --data text --keep 99
refused 1 "tegu hybridize: *keep*" run --data text --keep 1,x
refused 1 "tegu hybridize: *keep*" run --data text --keep auto:9
refused 1 "tegu hybridize: *latin*UTF-8*" run --data latin
refused 1 "tegu hybridize: *empty*" run --data empty
refused 1 "tegu hybridize: *missing*" run --data missing
refused 1 "tegu hybridize: *cut.gz*" run --data cut.gz
refused 1 "tegu hybridize: *" run --data text@50%:20%
refused 1 "tegu hybridize: nowhere*" tegu hybridize nowhere out --data text
refused 2 "tegu hybridize: *stage 'magic' is unknown*" tegu hybridize t out --data text --stage magic
refused 2 "tegu hybridize: *tokns*" tegu hybridize t out --data text --stage kl:tokns=5
refused 2 "tegu hybridize: *tokens*" tegu hybridize t out --data text --stage kl:tokens=-5
refused 2 "tegu hybridize: recall: 'needle' is not TASK:SIZE*" run --data text --recall needle
refused 2 "tegu hybridize: *haystack*" run --data text --recall haystack:3
refused 2 "tegu hybridize: option --suite: 'kk' is not one of ppl, kl, recall, generation*" run --data text --suite ppl,kk
refused 2 "tegu hybridize: missing argument: TEACHER OUT*" tegu hybridize out
mkdir out
refused 1 "tegu hybridize: out: exists; --force replaces it*" run --data text
