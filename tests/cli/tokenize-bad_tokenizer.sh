# A tokenizer that breaks its rules is refused by every command that opens the model.
. "$LIB"
teacher t
own t tokenizer.json
cp t/tokenizer.json good
edit t/tokenizer.json 's/"merges"/"mergers"/'
refused 1 "tegu tokenize: t/tokenizer.json: *merges*" tegu tokenize t --text a
refused 1 "tegu inspect: t/tokenizer.json: *merges*" tegu inspect t
cp good t/tokenizer.json
edit t/tokenizer.json 's/"id": 0,/"id": 999999999999,/'
refused 1 "tegu tokenize: t/tokenizer.json: *" tegu tokenize t --text a
cp good t/tokenizer.json
edit t/tokenizer.json 's/"id": 0,/"id": 8192,/'
refused 1 "tegu inspect: t/tokenizer.json: *819*" tegu inspect t
cp good t/tokenizer.json
edit t/tokenizer.json '0,/"type": "BPE"/s//"type": "XYZ"/'
refused 1 "tegu tokenize: t/tokenizer.json: *XYZ*" tegu tokenize t --text a
head -c 100000 good >t/tokenizer.json
refused 1 "tegu tokenize: t/tokenizer.json: *" tegu tokenize t --text a
