# A check that does not hold: OUT is written, the report says FAILED, status 3. Names are checked before any work.
. "$LIB"
tiny t
tegu hybridize t out "${QUICK[@]}" -q --fail-if 'kl>1e-9' --fail-if 'recall.kv.2.student<0' >table
rc=$?
[ $rc = 3 ] || complain "status $rc"
[ -f out/config.json ] || complain "no out"
grep -q '^FAILED  fail if kl>1e-9: kl is' table || complain "$(cat table)"
grep -q '^ok      fail if recall.kv.2.student<0' table || complain "$(cat table)"
grep -q '"passed": false' out.run/report.json || complain "report.json"
grep -q 'FAILED' out.run/report.html || complain "report.html"
refused 2 "tegu hybridize: fail-if: no result is named 'kk'; there are: *" tegu hybridize t new "${QUICK[@]}" --fail-if 'kk>1'
refused 2 "tegu hybridize: fail-if: 'ppl' may mean 'teacher.ppl' or 'student.ppl'*" tegu hybridize t new "${QUICK[@]}" --fail-if 'ppl>1'
refused 2 "tegu hybridize: fail-if: 'kl=1' is not NAME<NUMBER*" tegu hybridize t new "${QUICK[@]}" --fail-if 'kl=1'
refused 2 "tegu hybridize: fail-if: 'kl>x': 'x' is not a number*" tegu hybridize t new "${QUICK[@]}" --fail-if 'kl>x'
