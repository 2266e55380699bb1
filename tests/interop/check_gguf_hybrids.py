#!/usr/bin/env python3
"""The GGUF files that the tests read (tests/ref/make_gguf_models.py) in llama.cpp itself, against transformers: they are what the engine means. Float32, at
once and token by token.
   check_gguf_hybrids.py     run from the root of the repository. Needs llama-cpp-python (0.3.36 or newer), gguf, safetensors, torch"""
import sys
import tempfile

import numpy as np
from llama_cpp import Llama
from safetensors.numpy import load_file

sys.path.insert(0, "tests/ref")
from make_gguf_models import convert

passed = failed = 0


def check(what, good, seen=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print("ok    " if good else "FAILED", what, seen)


def difference(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))


def engine(path):
    return Llama(path, n_ctx=256, n_batch=256, n_gpu_layers=0, logits_all=True, type_k=0, type_v=0, verbose=False)


def logits(llama, ids, pieces):
    rows = []
    for row in ids:
        llama.reset()
        llama._ctx.kv_cache_clear()
        llama.scores[:] = np.nan
        for at in range(0, len(row), pieces):
            llama.eval([int(i) for i in row[at:at + pieces]])
        rows.append(np.array(llama.scores[:len(row)]))
    return np.stack(rows)


def compare(what, path, ids, want):
    """All tokens at once, and one after the other"""
    llama = engine(path)
    for pieces in (ids.shape[1], 1):
        error = difference(logits(llama, ids, pieces), want)
        check(f"{what}, {pieces} at a time", error < 1e-5, error)


with tempfile.TemporaryDirectory() as folder:
    for family in ("llama__rope3_untied_bias", "qwen2", "qwen3", "qwen3_5_text", "granitemoehybrid", "granitemoehybrid__rope"):
        path, golden = folder + "/model.gguf", load_file(f"tests/data/families/{family}/golden.safetensors")
        convert("tests/data/families/" + family, path, bare=True)
        compare(f"{family} against transformers", path, golden["input_ids"], golden["logits"])
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
