# Wrong usage: status 2, a message on standard error, nothing on standard output, nothing done.
. "$LIB"
for c in $(sed -n 's/^TG_COMMAND(\([a-z]*\),.*/\1/p' "$ROOT/tools/commands.def"); do
    refused 2 "tegu $c: unknown option '--no-such'*Try 'tegu help $c'." tegu "$c" --no-such
    refused 2 "tegu $c: option '--threads' needs a value (N)*" tegu "$c" --threads
    refused 2 "tegu $c: option --threads: 'two' is not a whole number*" tegu "$c" --threads two
    refused 2 "tegu $c: option --threads: 65 is out of range (0 to 64)*" tegu "$c" --threads 65
    refused 2 "tegu $c: option '--quiet' takes no value*" tegu "$c" --quiet=1
done
for c in hybridize inspect rank plan linearize distill validate generate logits compare tokenize detokenize bench; do
    refused 2 "tegu $c: missing argument: *" tegu "$c"
done
refused 2 "tegu selftest: unexpected argument 'x'*" tegu selftest x
refused 2 "tegu plan: unexpected argument 'b'*" tegu plan a b
refused 2 "tegu plan: unknown option '--kep': did you mean '--keep'?*" tegu plan a --kep none
refused 2 "tegu: unknown command 'hybridise': did you mean 'hybridize'?*" tegu hybridise
refused 2 "tegu: unknown command 'xyzzy'*" tegu help xyzzy
refused 2 "usage: tegu <command>*" tegu
refused 2 "tegu rank: option '--data FILE' is required*" tegu rank m
refused 2 "tegu plan: option --mixer: 'gated' is not one of window, gated_window,*" tegu plan m --mixer gated
refused 2 "tegu plan: option --window: '12x' is not a whole number*" tegu plan m --window 12x
refused 2 "tegu logits: give one of --ids F*" tegu logits m -o o.safetensors
refused 2 "tegu inspect: TG_CPU_MASK: 'all' is not a number*" env TG_CPU_MASK=all tegu inspect m
