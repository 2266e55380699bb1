. "$LIB"
tegu selftest >out || complain "$(cat out)"
grep -q ' 0 failed' out || complain "$(cat out)"
for m in $(sed -n 's/^TG_MIXER(\([a-z_]*\)).*/\1/p' "$ROOT/convert/mixers.def"); do grep -q " $m " out || complain "no $m"; done
TG_CPU_MASK=0 tegu selftest | grep -q 'this build uses c kernels here' || complain "TG_CPU_MASK"
