#!/usr/bin/env python3
"""Exports with mixtures of types against what llama.cpp makes of the same model in float32: type and bytes of every tensor, and the
logits that llama.cpp computes. Needs llama-cpp-python.
   check_gguf_types.py [OUT]     OUT: the build folder; run from the root of the repository"""
import ctypes
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np
from gguf import GGUFReader
from safetensors.numpy import load_file

TEGU = os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "tegu")
MODELS = {"llama": "examples/teacher-8m", "qwen35": "tests/data/families/qwen3_5_text"}
MIXTURES = ("q8_0", "q4_k_m", "q5_k_m", "q6_k")
TEXT = "It was a bright cold day in April, and the clocks were striking 13.\n\n\"I've 12 of them,\" he said."
passed = failed = 0


def check(what, good):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("differs:", what)


def convert(model, arch, dtype, to):
    subprocess.run([TEGU, "convert", model, to, "--arch", arch, "--dtype", dtype, "-q", "--force"], check=True)
    return GGUFReader(to)


def quantize(source, file_type, to):
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.nthread = file_type, 1
    if llama_cpp.llama_model_quantize(source.encode(), to.encode(), ctypes.byref(p)):
        sys.exit("llama.cpp does not quantize " + source)
    return GGUFReader(to)


def compare_files(name, ours, theirs):
    a, b = ({t.name: t for t in r.tensors} for r in (ours, theirs))
    check(f"{name}: names", a.keys() == b.keys())
    for n in a.keys() & b.keys():
        check(f"{name}: type of {n}", a[n].tensor_type == b[n].tensor_type)
        check(f"{name}: {n}", a[n].data.tobytes() == b[n].data.tobytes())
    for key in ("general.file_type", "general.quantization_version"):
        check(f"{name}: {key}", ours.fields[key].contents() == theirs.fields[key].contents())


def compare_logits(name, path, out, limit):
    """Engines keep keys and values as halves and quantise activations, so that logits are near each other."""
    subprocess.run([TEGU, "logits", path, "--text", TEXT, "-o", out, "-q", "--force"], check=True)
    f = load_file(out)
    llm = llama_cpp.Llama(path, n_ctx=256, logits_all=True, verbose=False)
    ids = llm.tokenize(TEXT.encode(), add_bos=True, special=True)
    check(name + ": ids", ids == f["input_ids"][0].tolist())
    llm.eval(ids)
    got, want = np.array(llm.scores[:len(ids)]), f["logits"][0]
    check(f"{name}: logits", np.sqrt(((got - want) ** 2).mean() / (want ** 2).mean()) < limit)


with tempfile.TemporaryDirectory() as folder:
    at = lambda name: os.path.join(folder, name)
    for arch, model in MODELS.items():
        convert(model, arch, "f32", at("f32.gguf"))
        for mix in MIXTURES:
            ours = convert(model, arch, mix, at("ours.gguf"))
            theirs = quantize(at("f32.gguf"), ours.fields["general.file_type"].contents(), at("theirs.gguf"))
            compare_files(f"{arch} {mix}", ours, theirs)
            if arch == "llama":
                compare_logits(f"{arch} {mix}", at("ours.gguf"), at("logits.safetensors"), 0.03)
        if arch == "llama":
            compare_logits(f"{arch} f32", at("f32.gguf"), at("logits.safetensors"), 1e-3)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
