#!/usr/bin/env python3
"""What Tegu writes as safetensors, against `safetensors` itself and transformers.

    python3 tests/interop/check_safetensors.py [BUILD]

Run from the root of the repository. Needs torch (CPU), numpy, safetensors and transformers, and BUILD/tegu (BUILD: build).
Prints "N passed, N failed" last.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
FAMILIES = "tests/data/families"
DTYPES = ("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 float8_e4m3fn "
          "float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu").split()
NUMPY = ("float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64").split()
# tied and untied heads, other names and layouts, experts, a hybrid
MODELS = "llama llama__rope3_untied_bias gpt2 gemma3_text qwen3_moe deepseek_v3 qwen3_next mamba2".split()
INDEX = "model.safetensors.index.json"


def tegu(*args):
    done = subprocess.run([f"{BUILD}/tegu", *map(str, args), "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def bits(t):
    t = t.detach().contiguous()
    return t.dtype, tuple(t.shape), bytes(t.flatten().view(torch.uint8).numpy()) if t.numel() else b""


def same(got, want):
    assert set(got) == set(want), set(got) ^ set(want)
    for name in want:
        assert bits(got[name]) == bits(want[name]), name


def tensors(names):
    """One of each type, of odd shapes, with bytes that are not all numbers."""
    g = torch.Generator().manual_seed(1)
    out = {}
    for i, name in enumerate(names):
        dtype = getattr(torch, name)
        raw = torch.randint(0, 2 if name == "bool" else 256, (3, 5 + i, dtype.itemsize), generator=g, dtype=torch.uint8)
        out[f"layer.{i}.{name}"] = raw.view(dtype).reshape(3, 5 + i)
    out["scalar"] = torch.tensor(2.5)
    out["empty"] = torch.zeros(0, 7)
    out["ünïcode \n name"] = torch.arange(6).reshape(1, 2, 3, 1)
    return out


def check_single(tmp):
    """One file: every type bit for bit through safe_open, and through numpy those that numpy has."""
    want = tensors(DTYPES)
    save_file(want, f"{tmp}/want.safetensors", {"format": "pt"})
    tegu("convert", f"{tmp}/want.safetensors", f"{tmp}/one.safetensors")
    with safe_open(f"{tmp}/one.safetensors", framework="pt") as f:
        assert f.metadata()["format"] == "pt"
        same({k: f.get_tensor(k) for k in f.keys()}, want)
    want = tensors(NUMPY)
    save_file(want, f"{tmp}/numpy.safetensors")
    tegu("convert", f"{tmp}/numpy.safetensors", f"{tmp}/two.safetensors")
    with safe_open(f"{tmp}/two.safetensors", framework="numpy") as f:
        for name in f.keys():
            a = f.get_tensor(name)
            assert a.tobytes() == bits(want[name])[2] and a.shape == tuple(want[name].shape), name


def read_sharded(folder):
    with open(f"{folder}/{INDEX}") as f:
        index = json.load(f)
    files = sorted(set(index["weight_map"].values()))
    got = {}
    for file in files:
        part = load_file(f"{folder}/{file}")
        assert all(index["weight_map"][k] == file for k in part)
        got.update(part)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in got.values())
    return got, files


def check_sharded(tmp):
    """Shards that the index places, each by the name that transformers looks for."""
    want = tensors(DTYPES)
    os.mkdir(f"{tmp}/in")
    save_file(want, f"{tmp}/in/model.safetensors")
    tegu("convert", f"{tmp}/in", f"{tmp}/out", "--max-shard-size", 500)
    got, files = read_sharded(f"{tmp}/out")
    assert len(files) > 2
    assert files == [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
    same(got, want)


def check_dtypes(tmp):
    """What floating tensors become is what torch's own rounding gives."""
    g = torch.Generator().manual_seed(2)
    want = {"w": torch.randn(37, 41, generator=g) * torch.logspace(-9, 3, 41), "ids": torch.arange(9)}
    save_file(want, f"{tmp}/f32.safetensors")
    for name, dtype in ("bf16", torch.bfloat16), ("f16", torch.float16), ("f8_e5m2", torch.float8_e5m2):
        tegu("convert", f"{tmp}/f32.safetensors", f"{tmp}/{name}.safetensors", "--dtype", name)
        same(load_file(f"{tmp}/{name}.safetensors"), {"w": want["w"].to(dtype), "ids": want["ids"]})


def logits(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    ids = torch.arange(1, 41).view(1, 40) % 90
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def check_model(name):
    """Cut into shards and rounded to bf16 by Tegu, a model has in transformers the logits of the original, bit for bit."""
    def check(tmp):
        source = f"{tmp}/original"
        os.mkdir(source)
        for file in "config.json", "model.safetensors":
            shutil.copy(f"{FAMILIES}/{name}/{file}", source)
        for dtype, kind in (torch.float32, "f32"), (torch.bfloat16, "bf16"):
            out = f"{tmp}/{kind}"
            tegu("convert", source, out, "--dtype", kind, "--max-shard-size", 20000)
            assert len(read_sharded(out)[1]) > 1
            want = logits(source, dtype)
            assert torch.isfinite(want).all() and want.float().std() > 0
            assert torch.equal(logits(out, dtype), want), kind
    check.__doc__ = f"{name}: {check_model.__doc__}"
    return check


def main():
    torch.set_num_threads(1)
    failed = 0
    checks = [("single", check_single), ("sharded", check_sharded), ("dtypes", check_dtypes)]
    checks += [(name, check_model(name)) for name in MODELS]
    for name, check in checks:
        with tempfile.TemporaryDirectory() as tmp:
            try:
                check(tmp)
                print("ok    ", name)
            except Exception:
                failed += 1
                print("FAILED", name)
                traceback.print_exc()
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
