# The embedded teacher's perplexity on the start of its held-out text, to four digits (by transformers: heldout_ppl.json has 40 windows).
. "$LIB"
tegu validate "$TEACHER" --data "$TEACHER/heldout.txt.gz" --suite ppl --length 512 --windows 2 --json v.json -q >one || complain "validate"
one=$(sed -n 's/^ *"ppl": \([0-9.]*\).*/\1/p' v.json | head -n 1)
rm v.json
# windows are independent: the first two alone are the first two of the file's first 1024 tokens
tegu validate "$TEACHER" --data "$TEACHER/heldout.txt.gz@0:1024" --suite ppl --length 512 --json v.json -q >two || complain "part"
two=$(sed -n 's/^ *"ppl": \([0-9.]*\).*/\1/p' v.json | head -n 1)
[ -n "$one" ] && [ "$one" = "$two" ] || complain "$one is not $two"
