#!/usr/bin/env python3
"""Makes the small variants in tests/data/tokenizers/v_*: what HF `tokenizers` (0.23) does with settings that the well-known
tokenizers do not use. Run from the root of the repository."""
import copy, itertools, json, os, random, unicodedata
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
for kind, j in kinds.items():
    t = Tokenizer.from_str(json.dumps(j))
    os.makedirs(ROOT + kind, exist_ok=True)
    with open(ROOT + kind + "/tokenizer.json", "w") as f:
        f.write(json.dumps(j, ensure_ascii=False) + "\n")
    with open(ROOT + kind + "/golden.jsonl", "w") as f:
        for s in texts:
            a = t.encode(s).ids
            f.write(json.dumps({"text": s, "ids": a, "ids_no_special": t.encode(s, add_special_tokens=False).ids,
                                "decoded": t.decode(a)}, ensure_ascii=False) + "\n")
