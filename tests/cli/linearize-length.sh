# The closed form runs mixers on data: of teachers whose rotary frequencies depend on the text's length too.
. "$LIB"
head="{'descr': '<u2', 'fortran_order': False, 'shape': (2000,), }" # padded to 117 bytes and a line's end
{
    printf '\223NUMPY\001\000\166\000%-117s\n' "$head"
    for i in $(seq 2000); do printf "\\x$(printf %02x $((i * i % 89 + 1)))\\000"; done
} >ids.npy
for name in llama__dynamic phi3__longrope; do
    works tegu plan "$FAMILIES/$name" --mixer gated_window --window 4 --keep none -o plan.json --force -q >/dev/null
    works tegu linearize "$FAMILIES/$name" "h-$name" --plan plan.json --data ids.npy -q
done
