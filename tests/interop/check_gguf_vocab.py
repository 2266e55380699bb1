#!/usr/bin/env python3
"""Vocabularies that Tegu writes into GGUF files: read with the `gguf` package, and if llama-cpp-python is there, the ids that
llama.cpp gives random texts against those of `tokenizers`.
   check_gguf_vocab.py [OUT] [--count N] [--seed N]     OUT: the build folder; run from the root of the repository"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

from gguf import GGUFReader
from tokenizers import Tokenizer

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

DATA = "tests/data/tokenizers/"
BITS = (" |  |\n|\r\n|\t|'s|'LL|e|th|The|and|Ab|xY|1|23|456|!|?!|...|(|_|$|`|^|'|\"|é|ß|ñ|Ж|中|文|か|カ|가|١|²|—|…|“|ing|"
        "🙂|ª|<|begin|>").split("|")
# llama.cpp takes letters for upper and lower case by other rules outside ASCII there
APPROXIMATE = ("split-tekken", "split-gpt-4o", "split-llama4")
passed = failed = 0


def check(what, good):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("differs:", what)


def text(rng, ascii_only):
    """Bits of text, and other characters that Unicode had assigned when this Python was made"""
    out = [b for b in rng.choices(BITS, k=rng.randrange(1, 24)) if b.isascii() or not ascii_only]
    for _ in range(0 if ascii_only else rng.randrange(3)):
        c = chr(rng.choice((rng.randrange(0xA0, 0xD800), rng.randrange(0x10000, 0x20000))))
        if unicodedata.category(c) != "Cn":
            out.insert(rng.randrange(len(out) + 1), c)
    return "".join(out)


def compare_tokens(name, path, tok):
    r = GGUFReader(path)
    tokens = r.fields["tokenizer.ggml.tokens"].contents()
    types = r.fields["tokenizer.ggml.token_type"].contents()
    vocab = tok.get_vocab(with_added_tokens=True)
    check(f"{name}: tokens", all(tokens[i] == t for t, i in vocab.items()))
    check(f"{name}: types", all((types[i] == 5) == (i not in vocab.values()) for i in range(len(tokens))))
    check(f"{name}: length of the lists", len(tokens) == len(types))


def reference(tok, folder, texts):
    """Ids of `tokenizers`, or of a SentencePiece model by Tegu, which check_tokenizers.py holds against its package"""
    if tok:
        return [tok.encode(s).ids for s in texts]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write("".join(json.dumps({"text": s}) + "\n" for s in texts))
        f.flush()
        out = subprocess.run([os.path.join(args.out, "tegu"), "tokenize", folder, "--jsonl", f.name], capture_output=True, check=True)
    return [json.loads(x)["ids"] for x in out.stdout.decode().split("\n") if x]


def compare_ids(name, path, tok):
    rng = random.Random(f"{args.seed} {name}")
    texts = [text(rng, name in APPROXIMATE) for _ in range(args.count)]
    if tok and tok.normalizer is not None and "NFC" in str(tok.normalizer):
        texts = [unicodedata.normalize("NFC", s) for s in texts]
    texts = [s for s in texts if s]
    llm = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    for s, want in zip(texts, reference(tok, DATA + name, texts)):
        got = llm.tokenize(s.encode(), add_bos=True, special=True)
        if got != want:
            return check(f"{name}: {s!r}: {got} against {want}", False)
    check(name, True)


a = argparse.ArgumentParser()
a.add_argument("out", nargs="?", default="build")
a.add_argument("--count", type=int, default=500)
a.add_argument("--seed", type=int, default=1)
args = a.parse_args()
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([os.path.join(args.out, "tests/test_gguf_vocab_write"), folder], check=True)
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".gguf")):
        name, path = file[:-5], os.path.join(folder, file)
        file = os.path.join(folder, name + ".json")
        file = file if os.path.exists(file) else DATA + name + "/tokenizer.json"
        check(name + ": opens", "tokenizer.ggml.tokens" in GGUFReader(path).fields)
        tok = Tokenizer.from_file(file) if os.path.exists(file) else None
        if tok:
            compare_tokens(name, path, tok)
        if llama_cpp:
            compare_ids(name, path, tok)
print(f"{passed} passed, {failed} failed" + ("" if llama_cpp else "; llama-cpp-python is not installed: no ids compared"))
sys.exit(failed > 0)
