#!/usr/bin/env python3
"""The embedded teacher and the test families, written as GGUF by tests/ref/make_gguf_models.py, against their HF checkpoints: logits, token
ids, generated text.
   check_gguf_model.py [OUT]     OUT: the build folder; run from the root of the repository"""
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGMLQuantizationType, quants
from safetensors.numpy import load_file, save_file

sys.path.insert(0, "tests/ref")
from make_gguf_models import convert, tensors

OUT = sys.argv[1] if len(sys.argv) > 1 else "build"
TEACHER = "examples/teacher-8m"
PROMPT = "In the morning the ships left the harbour, 1,234 of them; it's"
TEXT = "examples/teacher-8m/heldout.txt.gz"
passed = failed = 0


def check(what, good, seen=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print("ok    " if good else "FAILED", what, seen)


def tegu(*args):
    return subprocess.run([os.path.join(OUT, "tegu"), *args], check=True, capture_output=True).stdout


def logits(model, folder, ids):
    path = os.path.join(folder, "logits.safetensors")
    tegu("logits", model, "-o", path, "--force", "-q", *ids)
    return load_file(path)["logits"].astype(np.float64)


def difference(a, b):
    return np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))


def dequantised(source, folder, kind):
    """The HF directory with the values that its matrices have in `kind`"""
    kind = GGMLQuantizationType[kind]
    os.makedirs(folder, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(os.path.join(source, name), folder)
    values = {n: quants.dequantize(quants.quantize(x, kind), kind) if x.ndim > 1 else x for n, x in tensors(source)}
    save_file({n: np.ascontiguousarray(x, dtype=np.float32) for n, x in values.items()}, folder + "/model.safetensors", {"format": "pt"})
    return folder


with tempfile.TemporaryDirectory() as folder:
    model = os.path.join(folder, "m.gguf")
    for family in ("llama", "llama__headdim", "llama__rope3_untied_bias", "qwen2", "qwen2__headdim", "qwen3", "qwen3__headdim", "gpt2",
                   "qwen3_5_text", "qwen3_5_moe_text__experts", "granitemoehybrid", "granitemoehybrid__rope"):
        source = "tests/data/families/" + family
        if not os.path.isdir(source):
            continue
        convert(source, model)
        golden = load_file(source + "/golden.safetensors")
        ids = ("--ids", source + "/golden.safetensors")
        ours, theirs = logits(model, folder, ids), logits(source, folder, ids)
        check(f"{family} F32: logits as of the HF directory", difference(ours, theirs) < 1e-6, difference(ours, theirs))
        check(f"{family} F32: logits as of transformers", difference(ours, golden["logits"]) < 1e-5, difference(ours, golden["logits"]))

    for kind in ("F32", "F16", "Q8_0", "Q4_0", "Q5_1"):
        convert(TEACHER, model, kind)
        other = dequantised(TEACHER, os.path.join(folder, "hf"), kind)
        ours, theirs, plain = (logits(m, folder, ("--text", PROMPT)) for m in (model, other, TEACHER))
        check(f"teacher {kind}: logits as of its values in F32", difference(ours, theirs) < 1e-6, difference(ours, theirs))
        print(f"       unquantised: {difference(ours, plain):.2g} away")
        ids = [tegu("tokenize", m, "--file", TEXT) for m in (model, TEACHER)]
        check(f"teacher {kind}: {len(ids[0].split())} token ids", ids[0] == ids[1] and len(ids[0]) > 1000)
        text = [tegu("generate", m, "--prompt", PROMPT, "-n", "48", "-q") for m in (model, other)]
        check(f"teacher {kind}: generated text", text[0] == text[1], "" if text[0] == text[1] else text)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
