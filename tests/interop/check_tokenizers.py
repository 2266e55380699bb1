#!/usr/bin/env python3
"""Random texts through HF `tokenizers` or sentencepiece and through `tegu tokenize` and `tegu detokenize`, for every folder given (default:
all of tests/data/tokenizers). Run from the root of the repository.
  check_tokenizers.py [--tegu build/tegu] [--count 2000] [--seed 1] [FOLDER...]"""
import argparse, glob, json, os, random, subprocess, sys, tempfile, unicodedata

parser = argparse.ArgumentParser()
parser.add_argument("--tegu", default="build/tegu")
parser.add_argument("--count", type=int, default=2000)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("folders", nargs="*")
args = parser.parse_args()
folders = args.folders or sorted(os.path.dirname(x) for x in glob.glob("tests/data/tokenizers/*/tokenizer.*"))
# Characters that the Unicode of the system's PCRE2 and utf8proc may not know are left out, as are those that JSON lines cannot carry.
known = [c for c in map(chr, [*range(1, 0xD800), *range(0xE000, 0x110000)]) if unicodedata.category(c) not in ("Cn", "Co")]


def pools(words):
    low = [c for c in known if ord(c) < 0x250]
    mid = [c for c in known if ord(c) < 0x3100]
    marks = [c for c in known if unicodedata.combining(c)]
    odd = list(" \t\n\r\u00a0\u3000\u2581\u0085\u200d\u200b\ufb01\u2026\u00ad'.,!1\u00bd")
    return [low, mid, known, list("the in of and  "), words, [*odd, *random.sample(mid, 30)], [*marks[:80], *"aeo\u0e01\uac00 "],
            [*words, *odd]]


def texts(vocabulary):
    words = random.sample(vocabulary, min(60, len(vocabulary)))
    words += [" " + w for w in words[:20]] + [w.replace("\u2581", " ").replace("\u0120", " ") for w in words]
    all_ = pools(words)
    for _ in range(args.count):
        yield "".join(random.choices(random.choice(all_), k=random.choice([1, 2, 4, 9, 20, 40, 90])))


def reference(folder):
    if os.path.exists(folder + "/tokenizer.json"):
        from tokenizers import Tokenizer
        t = Tokenizer.from_file(folder + "/tokenizer.json")
        return list(t.get_vocab()), lambda s: t.encode(s).ids, lambda ids: t.decode(ids)
    import sentencepiece
    t = sentencepiece.SentencePieceProcessor(model_file=folder + "/tokenizer.model")
    return [t.id_to_piece(i) for i in range(t.get_piece_size())], t.encode, t.decode


def run(command, lines):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(x, ensure_ascii=False) + "\n" for x in lines)
        f.flush()
        out = subprocess.run([args.tegu, *command, "--jsonl", f.name], capture_output=True)
    if out.returncode:
        sys.exit(f"{command}: {out.stderr.decode()}")
    return [json.loads(x) for x in out.stdout.decode().split("\n") if x]


failed = 0
for folder in folders:
    random.seed(f"{args.seed} {os.path.basename(folder)}")
    vocabulary, encode, decode = reference(folder)
    want, skipped = [], 0
    for s in texts(vocabulary):
        try:
            want.append((s, encode(s)))
        except BaseException:  # HF panics on some texts; so no result is known
            skipped += 1
    got = run(["tokenize", folder], [{"text": s} for s, _ in want])
    bad = [(s, ids, g["ids"]) for (s, ids), g in zip(want, got) if g["ids"] != ids]
    # A line of JSON that detokenize prints ends at NUL.
    back = run(["detokenize", folder, "--skip-special"], [{"ids": ids} for _, ids in want])
    lost = [(ids, decode(ids), g["text"]) for (_, ids), g in zip(want, back) if g["text"] != decode(ids) and "\0" not in decode(ids)]
    print(f"{os.path.basename(folder)}: {len(want)} texts, {len(bad)} differ in ids, {len(lost)} in decoded text"
          + (f", {skipped} skipped" if skipped else ""), flush=True)
    for x in [*bad[:3], *lost[:3]]:
        print("  ", *map(ascii, x), sep="\n    ")
    failed += bool(bad or lost) or len(got) != len(want)
sys.exit(failed > 0)
