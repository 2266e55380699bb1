#!/usr/bin/env python3
"""Makes the small variants in tests/data/tokenizers/{v,c,u}_*: what HF `tokenizers` (0.23) does with settings that the well-known
tokenizers do not use. Run from the root of the repository."""
import base64, copy, itertools, json, os, random, unicodedata
from tokenizers import Tokenizer

random.seed(7)
ROOT = "tests/data/tokenizers/"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
kinds = {}


def small():
    """gpt2's bytes with its first 60 merges, renumbered."""
    j = json.load(open(ROOT + "gpt2/tokenizer.json"))
    model = j["model"]
    tokens = [t for t in model["vocab"] if len(t) == 1]
    merges = [m for m in model["merges"]][:60]
    for a, b in merges:
        if a + b not in tokens:
            tokens.append(a + b)
    model["vocab"] = {t: i for i, t in enumerate(tokens)}
    model["merges"] = merges
    j["added_tokens"] = []
    return j


def variant(name, base=None, **keys):
    j = copy.deepcopy(base or small())
    for k, v in keys.items():
        if k.startswith("m_"):
            j["model"][k[2:]] = v
        else:
            j[k] = v
    kinds["v_" + name] = j
    return j


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def steps(*list_):
    return {"type": "Sequence", "pretokenizers": [*list_, BYTES]}


def without(characters):
    j = small()
    m = j["model"]
    gone = {t for t in m["vocab"] if any(c in t for c in characters)}
    m["vocab"] = {t: i for i, t in enumerate(t for t in m["vocab"] if t not in gone)}
    m["merges"] = [x for x in m["merges"] if not {x[0], x[1], x[0] + x[1]} & gone]
    return j


words = {"Regex": r"\s+|\p{P}|(?=\p{Lu})"}
for behavior in ["Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
    variant("split_" + behavior.lower(), pre_tokenizer=steps(split(words, behavior)))
variant("split_next_inverted", pre_tokenizer=steps(split({"Regex": r"\w"}, "MergedWithNext", True)))
variant("split_string", pre_tokenizer=steps(split({"String": "a."}, "MergedWithPrevious")))
variant("split_empty", pre_tokenizer=steps(split({"Regex": "x*"}, "MergedWithPrevious")))
variant("deepseek", pre_tokenizer=steps(
    split({"Regex": r"\p{N}{1,3}"}), split({"Regex": "[一-龥぀-ゟ゠-ヿ]+"}),
    split({"Regex": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                    " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"})))
variant("digits", pre_tokenizer=steps({"type": "Digits", "individual_digits": False}))
variant("escapes", pre_tokenizer=steps(split({"Regex": r"\b\h+|\w\B|(?m:x.)|[\h_!]|\H\b"}, "MergedWithPrevious")))
variant("missing", without("xyzÃ"))
variant("missing_unk", without("xyzÃ"), m_unk_token="!")
variant("missing_fuse", without("xyzÃ"), m_unk_token="!", m_fuse_unk=True)
variant("no_decoder", decoder=None)
shuffled = small()["model"]["merges"]
random.shuffle(shuffled)
variant("shuffled", m_merges=[" ".join(m) for m in shuffled], pre_tokenizer=BYTES)
# Symbols of a few letters in every combination, ranks in any order: merges that take each other's parts.
crossed = small()
vocab, merges = crossed["model"]["vocab"], []
for size in [2, 3, 4]:
    for word in map("".join, itertools.product("abc", repeat=size)):
        cuts = [i for i in range(1, size) if word[:i] in vocab and word[i:] in vocab]
        if cuts and (size == 2 or random.random() < 0.5):
            vocab.setdefault(word, len(vocab))
            merges += [[word[:i], word[i:]] for i in cuts]
for both in ["abcabc", "abab", "cbacba"]:  # pairs of one symbol that several merges make
    vocab.setdefault(both, len(vocab))
    half = both[:len(both) // 2]
    if half in vocab:
        merges.append([half, half])
random.shuffle(merges)
variant("crossed", crossed, m_merges=merges, pre_tokenizer=BYTES)
base = small()
n = len(base["model"]["vocab"])
for i, (content, flags) in enumerate([("<a", ""), ("<a b>", ""), ("ﬁ", "normalized"), (" the", "lstrip"),
                                      ("cat", "single_word lstrip rstrip"), ("…", "rstrip special"), ("aaa", ""), ("  ", ""),
                                      ("<s>", "special lstrip rstrip single_word"), ("e", "normalized single_word")]):
    token = {"id": n + i, "content": content}
    if content in base["model"]["vocab"]:
        token["id"] = base["model"]["vocab"][content]
    for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"]:
        token[flag] = flag in flags.split()
    base["added_tokens"].append(token)
variant("added", base)
for form in ["NFC", "NFD", "NFKC", "NFKD"]:
    variant("added_" + form.lower(), base, normalizer={"type": "Sequence", "normalizers": [{"type": form}]})
ids = {"x": {"id": "x", "ids": [1, 2], "tokens": ["a", "b"]}, "y": {"id": "y", "ids": [3], "tokens": ["c"]}}
around = lambda *names: {"type": "TemplateProcessing", "special_tokens": ids, "pair": [
    {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "single": [
    {"Sequence": {"id": "A", "type_id": 0}} if x == "A" else {"SpecialToken": {"id": x, "type_id": 0}} for x in names]}
variant("template", base, post_processor={"type": "Sequence", "processors": [around("x", "y", "A", "y")]})

pools = ["abcxyz  \n\r\t'.,!<>A1 2",
         "the cat aaa e <a b> <a <s> … ﬁ é e\u0301 ".split(" ") + [" ", "  ", "   ", "\n"],
         [chr(c) for c in range(0xA0, 0x600)],
         [chr(c) for c in [*range(0x2000, 0x2070), *range(0x300, 0x370), 0x20, 0x41, 0xA, 0xD, 0x85, 0x180E, 0x1680, 0x3000,
                           0xAC00, 0x1100, 0x1161, 0x11A8, 0x3099, 0x304B]],
         [c for c in map(chr, random.sample([*range(1, 0xD800), *range(0xE000, 0x30000)], 3000))
          if unicodedata.category(c) != "Cn"]]
texts = ["".join(random.choice(pool) for _ in range(n)) for pool in pools for n in [1, 3, 8, 20, 40, 60, 60]]
texts += ["".join(random.choice("abc") for _ in range(300)) for _ in range(4)]
texts += ["a" * 90 + "b" * 90, "".join(random.choice("etaoinsth ") for _ in range(400))]
# Kinds with U+2581 for spaces, and text of their own: merges and pieces of spbpe_llama2 and unigram.
rng = random.Random(8)
MARK = "\u2581"
spaced = {}


def metaspace(scheme=None, **keys):
    return {"type": "Metaspace", "replacement": MARK, **({"prepend_scheme": scheme} if scheme else {}), **keys}


def replace(a, b, kind="String"):
    return {"type": "Replace", "pattern": {kind: a}, "content": b}


def several(what, *list_):
    return {"type": "Sequence", what: [*list_]}


LLAMA_DECODER = several("decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0})


def characters(name, no_bytes=(), **keys):
    """spbpe_llama2 with 90 merges."""
    j = json.load(open(ROOT + "spbpe_llama2/tokenizer.json"))
    m = j["model"]
    m["merges"] = m["merges"][:90]
    made = {a + b for a, b in (x if isinstance(x, list) else x.split(" ") for x in m["merges"])}
    keep = [t for t in m["vocab"] if (len(t) == 1 and (ord(t) < 0x80 or t in MARK)) or t in made or
            t.startswith("<") and t not in {"<0x%02X>" % b for b in no_bytes}]
    m["vocab"] = {t: i for i, t in enumerate(keep)}
    j["added_tokens"] = [a for a in j["added_tokens"] if a["id"] < 3]
    n = len(keep)
    j["added_tokens"] += [{"id": n, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                           "special": False},
                          {"id": n + 1, "content": "Th e", "single_word": False, "lstrip": False, "rstrip": True, "normalized": True,
                           "special": False}]
    j["normalizer"], j["pre_tokenizer"], j["decoder"], j["post_processor"] = None, metaspace("first", split=False), LLAMA_DECODER, None
    for k, v in keys.items():
        if k.startswith("m_"):
            m[k[2:]] = v
        else:
            j[k] = v
    spaced["c_" + name] = j


def pieces(name, extra=(), **keys):
    """unigram with its first 250 pieces."""
    j = json.load(open(ROOT + "unigram/tokenizer.json"))
    m = j["model"]
    m["vocab"] = m["vocab"][:250] + list(extra)
    for k, v in keys.items():
        if k.startswith("m_"):
            m[k[2:]] = v
        else:
            j[k] = v
    spaced["u_" + name] = j


NO_BYTES = range(256)
for scheme in ["first", "always", "never"]:
    characters("meta_" + scheme, pre_tokenizer=metaspace(scheme), decoder={**metaspace(scheme), "split": True})
characters("meta_old", NO_BYTES, pre_tokenizer=metaspace(add_prefix_space=True, str_rep=MARK), decoder=metaspace(add_prefix_space=True))
characters("meta_old_never", NO_BYTES, pre_tokenizer=metaspace("never", add_prefix_space=False), decoder=metaspace("never"))
characters("meta_after_strip", normalizer=several("normalizers", {"type": "Strip", "strip_left": True, "strip_right": False},
                                                  replace("  +", " ", "Regex"), {"type": "Lowercase"}))
characters("gemma", normalizer=replace(" ", MARK), decoder=several("decoders", replace(MARK, " "), {"type": "ByteFallback"},
                                                                   {"type": "Fuse"}),
           pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False})
characters("bytes_missing", no_bytes=[0xC3, 0xE2], m_fuse_unk=False)
characters("bytes_missing_fuse", no_bytes=[0xC3, 0xE2])
characters("bytes_missing_drop", no_bytes=[0xC3, 0xE2], m_unk_token=None)
characters("unk", m_byte_fallback=False, m_fuse_unk=False)
characters("ignore", NO_BYTES, m_ignore_merges=True, pre_tokenizer=metaspace("always"))
del spaced["c_ignore"]["model"]["merges"][20:]
characters("whitespace", NO_BYTES, pre_tokenizer={"type": "Whitespace"}, decoder=None)
characters("whitespace_split", pre_tokenizer=several("pretokenizers", {"type": "WhitespaceSplit"}, metaspace("first")),
           decoder=several("decoders", {"type": "ByteFallback"}, {"type": "Strip", "content": "e", "start": 0, "stop": 1},
                           {"type": "Strip", "content": MARK, "start": 2, "stop": 0}))
characters("delimiter", NO_BYTES, pre_tokenizer=several("pretokenizers", {"type": "CharDelimiterSplit", "delimiter": "e"}, metaspace("first")),
           decoder=several("decoders"))
characters("digits", pre_tokenizer=several("pretokenizers", {"type": "Digits", "individual_digits": True}, metaspace("always")),
           decoder=several("decoders", replace("[a-m\\d]+", "<>", "Regex"), {"type": "ByteFallback"}))
for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
    characters("punctuation_" + behavior.lower(), NO_BYTES, pre_tokenizer={"type": "Punctuation", "behavior": behavior})
characters("normal", NO_BYTES, normalizer=several("normalizers", {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
                                        replace("(?<=t)h|q*", "-", "Regex"), {"type": "Strip", "strip_left": False, "strip_right": True},
                                        {"type": "Prepend", "prepend": "ab"}))
bytes_ = [["<0x%02X>" % b, 0.0] for b in range(256)]
pieces("bytes", bytes_, m_byte_fallback=True, decoder=several("decoders", {"type": "ByteFallback"}, metaspace("always")))
pieces("unknown_run", [["\u4e2d\u00e9", -40.0], ["q<unk>", -2.5]], normalizer=None)
pieces("whole", pre_tokenizer=None, decoder=replace(MARK, " "), normalizer=replace(" ", MARK))


def fields(b):
    """(number, value) of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        v = shift = 0
        while True:
            v |= (b[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if b[at - 1] < 128:
                return v

    while at < len(b):
        key = varint()
        n = varint() if key & 7 in (0, 2) else 4
        if key & 7:
            at += n
        yield key >> 3, b[at - n:at] if key & 7 else n


model = dict(fields(open(ROOT + "sp_unigram/tokenizer.model", "rb").read()))
charsmap = base64.b64encode(dict(fields(model[3]))[2]).decode()
pieces("precompiled", normalizer=several("normalizers", {"type": "Precompiled", "precompiled_charsmap": charsmap},
                                         {"type": "Strip", "strip_left": False, "strip_right": True}, replace(" {2,}", MARK, "Regex")))

spaced_texts = ["", " ", "   ", "a", " a", "  the cat", "Th e", "Th e x", "<x> the", "the<x>  the", MARK, MARK + "the " + MARK, "<unk>q<unk>",
                "\u4e2d\u00e9\u00e9\u4e2d", "\ufb01n \u0130I\u03a3 e\u0301\u2026", "A\u00adB\u3000\u00a0 \ufb01x e\u0301\u0302 \u2460\u20dd",
                "don't, (a.b) 3\u00bd4 \u2014 _x_ $5+6", "\r\n\t x\x0b\u0085y \u2028", "\U0001f468\u200d\U0001f469 \u0e01\u0e33 \uac01\u11a8"]
spaced_texts += ["A\u0301 e\u1df8\u0327 \u08f8\u1df8 \U0001fbf4"]
spaced_pools = ["the in, e  x\n", "aeth\u00e9\u00c3\u2581 <x>", [*"the 12.,!", "<x>", "Th e", "<s>", "\u4e2d", "\U0001f600"],
                [chr(c) for c in range(0x20, 0x250)]]
spaced_texts += ["".join(rng.choice(pool) for _ in range(n)) for pool in spaced_pools for n in [7, 19, 45]]
for kind, j in [*kinds.items(), *spaced.items()]:
    t = Tokenizer.from_str(json.dumps(j))
    os.makedirs(ROOT + kind, exist_ok=True)
    with open(ROOT + kind + "/tokenizer.json", "w") as f:
        f.write(json.dumps(j, ensure_ascii=False) + "\n")
    with open(ROOT + kind + "/golden.jsonl", "w") as f:
        for s in texts if kind in kinds else spaced_texts:
            a = t.encode(s).ids
            f.write(json.dumps({"text": s, "ids": a, "ids_no_special": t.encode(s, add_special_tokens=False).ids,
                                "decoded": t.decode(a)}, ensure_ascii=False) + "\n")
