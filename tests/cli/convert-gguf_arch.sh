# convert --arch into GGUF: one file by its ending, or a directory with a card; both say whose model it is; mixtures of types.
. "$LIB"
works tegu plan "$TEACHER" --for granitehybrid --keep every:4 -o plan.json >table
works tegu linearize "$TEACHER" hybrid --plan plan.json -q >table
cp hybrid/README.md before
sed -i 's/"languages": \[\]/"license": "apache-2.0", "languages": ["en", "no"]/' hybrid/tegu_report.json
sed -i 's/"name": "teacher-8m"/"name": "org\/teacher-8m"/' hybrid/tegu_report.json
tegu convert hybrid model.gguf --arch auto 2>err || complain "$(cat err)"
grep -q "not qwen35: layer 0: " err || complain "auto does not say why: $(cat err)"
grep -q "written as granitehybrid: loads in llama.cpp" err || complain "$(cat err)"
[ "$(echo *)" = "before err hybrid model.gguf plan.json table" ] || complain "something stands beside the file: $(echo *)"
for words in general.name general.license apache-2.0 general.base_model.0.name teacher-8m general.base_model.0.organization org \
    general.tags linear-attention mamba2 general.languages tokenizer.ggml.tokens; do
    grep -qaF -- "$words" model.gguf || complain "model.gguf does not say $words"
done
found 0 '6 x mamba2' tegu inspect model.gguf
works tegu convert hybrid dir --arch granitehybrid --dtype q4_k_m -q
[ "$(echo dir/*)" = "dir/README.md dir/model.gguf dir/tegu_report.json" ] || complain "$(echo dir/*)"
for words in 'library_name: gguf' '- llama-cpp' 'llama-cli -m model.gguf' 'weights in q4_k_m'; do
    grep -qF -- "$words" dir/README.md || complain "the card does not say '$words': $(cat dir/README.md)"
done
found 0 'Q6_K' tegu inspect dir
refused 2 "tegu convert: option --dtype q4_k_m is a mixture of types, for --arch*" tegu convert hybrid not --dtype q4_k_m
refused 1 "tegu convert: dtype: *'f8_e4m3'*" tegu convert hybrid not.gguf --arch auto --dtype f8_e4m3
refused 1 "tegu convert: model.gguf: exists*" tegu convert hybrid model.gguf --arch auto
works tegu convert hybrid model.gguf --arch auto --force -q
exit 0
