# The input is never replaced by the output, not even with --force.
. "$LIB"
tiny t
ln -s t link
before=$(sha256sum t/*)
refused 1 "*t: is the input itself*" tegu hybridize t t "${QUICK[@]}" --force
refused 1 "*link: is the input itself*" tegu hybridize t link "${QUICK[@]}" --force
tegu plan t --keep none -o plan.json -q >/dev/null || complain "plan"
refused 1 "*is the input itself*" tegu linearize t ./t/ --plan plan.json --force
refused 1 "*is the input itself*" tegu distill t t --teacher t --data text --stage kl:tokens=1k --force
[ "$before" = "$(sha256sum t/*)" ] || complain "the input has changed"
