#!/usr/bin/env python3
"""Makes the SentencePiece models in tests/data/tokenizers/sp_* and what sentencepiece (0.2) does with them: tiny ones, trained on the
documentation of this repository, with the settings that text can depend on. Run from the root of the repository."""
import glob, io, json, os, random, re, struct
import sentencepiece as spm

random.seed(11)
ROOT = "tests/data/tokenizers/"
lines = [x for f in sorted(glob.glob("docs/*.md")) for x in open(f).read().split("\n") if x.strip()][:1500]
rules = "/tmp/tegu_rules.tsv"  # characters to replacements, as hexadecimal code points
with open(rules, "w") as f:
    for a, b in [("FB01", "66 69"), ("2026", "2E 2E 2E"), ("41", "61"), ("41 301", "E1"), ("65 301", "E9"), ("3000", "20"), ("A0", "20"), ("9", "20"),
                 ("AD", ""), ("2460", "31"), ("2460 20DD", "20 31 20"), ("D", "20")]:
        f.write(a + "\t" + b + "\n")
# Text of the user-defined pieces may look like anything, also like the normalizer's food.
user = ["<sep>", "a b", "\ufb01x", "ing", "\u2581\u2581", "1234"]
kinds = {
    "unigram": dict(model_type="unigram", vocab_size=400),
    # One piece is so unlikely that a sum in float has few digits left for the others, one so that it has none unless it starts anew.
    "unigram_far": dict(model_type="unigram", vocab_size=400),
    "unigram_bytes": dict(model_type="unigram", vocab_size=500, byte_fallback=True, user_defined_symbols=user, bos_id=-1, eos_id=1),
    "unigram_suffix": dict(model_type="unigram", vocab_size=300, treat_whitespace_as_suffix=True, remove_extra_whitespaces=False),
    "bpe": dict(model_type="bpe", vocab_size=400),
    "bpe_bytes": dict(model_type="bpe", vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
                      remove_extra_whitespaces=False, split_digits=True, control_symbols=["<c>"], user_defined_symbols=user),
    # As Llama 2 has it: tests/test_vocabularies.c takes it for the vocabulary of a GGUF file too.
    "bpe_llama": dict(model_type="bpe", vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
                      remove_extra_whitespaces=False, split_digits=True),
    "bpe_bare": dict(model_type="bpe", vocab_size=300, add_dummy_prefix=False, user_defined_symbols=["<sep>", "the"]),
}
pools = ["abc the ing. A1 2  \n\t", "e\u0301 \u3000\ufb01\u2026\u00ada b<sep> \u2581\u2581x",
         ["the ", "a b", "<sep>", "<s>", "</s>", "<unk>", "<0x41>", "<c>", "ing", "  ", "\u2581", "\ufb01x", "1234", "12345", "\u2460", "\u20dd"],
         [chr(c) for c in range(0xA0, 0x250)], [chr(c) for c in random.sample(range(0x300, 0xD000), 400)],
         [chr(c) for c in random.sample(range(0x10000, 0x1FA00), 300)]]
texts = ["", " ", "   ", "\u2581", "Hello world", "  two  spaces  ", "\u3000 \u00a0x\u00a0", "\u00ad", "tokenizer.json holds the tokens"]
texts += ["".join(random.choice(pool) for _ in range(n)) for pool in pools for n in [1, 3, 8, 20, 40, 70]]
texts += [random.choice(lines)[:random.randint(5, 200)] for _ in range(14)]
for kind, settings in kinds.items():
    out = io.BytesIO()
    normal = {} if "normalization_rule_name" in settings else dict(normalization_rule_tsv=rules)
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, num_threads=1, minloglevel=2,
                                   hard_vocab_limit=False, **normal, **settings)
    model = out.getvalue()
    if kind == "unigram_far":
        def rescore(piece, score=None):
            """The score of a piece, after setting it."""
            global model
            pattern = rb"(?s)(\n" + bytes([len(piece)]) + piece.encode() + rb"\x15)(....)"
            if score is not None:
                model = re.sub(pattern, lambda m: m[1] + struct.pack("<f", score), model)
            found = re.findall(pattern, model)
            return struct.unpack("<f", found[0][1])[0] if len(found) == 1 else None

        assert rescore("q", -1e9) and rescore("x", -9e4)
        both = [a + b for a in "aeinorst" for b in "aeinorst" if rescore(a + b)]
        for pair in both:  # hardly less than its letters
            rescore(pair, rescore(pair[0]) + rescore(pair[1]) - 0.001)
        assert len(both) > 5
    sp = spm.SentencePieceProcessor(model_proto=model)
    os.makedirs(ROOT + "sp_" + kind, exist_ok=True)
    open(ROOT + "sp_" + kind + "/tokenizer.model", "wb").write(model)
    with open(ROOT + "sp_" + kind + "/golden.jsonl", "w") as f:
        for s in texts if kind != "unigram_far" else ["qx"[i % 2] + s for i, s in enumerate(texts)]:
            ids = sp.encode(s)
            f.write(json.dumps({"text": s, "ids": ids, "ids_no_special": ids, "decoded": sp.decode(ids)}, ensure_ascii=False) + "\n")
    print(kind, len(model), sp.get_piece_size())
