#!/usr/bin/env python3
"""PyTorch's files of tensors, against PyTorch itself and transformers.

    python3 tests/interop/check_torch.py [BUILD [--large]]

Needs torch (CPU), safetensors and transformers, and BUILD/tests/test_torch and test_torch_write (BUILD: build). Prints
"N passed, N failed" last. --large also writes a tensor of more than 4 GiB (needs 9 GB of disk in TMPDIR).
"""
import json
import os
import subprocess
import sys
import tempfile
import traceback
import zipfile

import torch
from safetensors.torch import save_file

BUILD = next((a for a in sys.argv[1:] if not a.startswith("-")), "build")
DTYPES = ("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 float8_e4m3fn "
          "float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu").split()


def run(program, *args):
    done = subprocess.run([f"{BUILD}/tests/{program}", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def bits(t):
    t = t.detach().contiguous()
    return t.dtype, tuple(t.shape), bytes(t.flatten().view(torch.uint8).numpy()) if t.numel() else b""


def same(a, b):
    assert set(a) == set(b), (set(a) ^ set(b))
    for name in a:
        assert bits(a[name]) == bits(b[name]), name


def tensors():
    """One of each type, of odd shapes, with bytes that are not all numbers."""
    g = torch.Generator().manual_seed(1)
    out = {}
    for i, name in enumerate(DTYPES):
        dtype = getattr(torch, name)
        raw = torch.randint(0, 2 if name == "bool" else 256, (3, 5 + i, dtype.itemsize), generator=g, dtype=torch.uint8)
        out[f"layer.{i}.{name}"] = raw.view(dtype).reshape(3, 5 + i)
    out["scalar"] = torch.tensor(2.5)
    out["empty"] = torch.zeros(0, 7)
    out["ünïcode \n name"] = torch.arange(6).reshape(1, 2, 3, 1)
    return out


def load(path, mmap):
    return torch.load(path, weights_only=True, mmap=mmap)


def check_written(tmp):
    """What Tegu writes is what torch.load gives, mapped or not, and a sound zip archive."""
    want = tensors()
    save_file(want, f"{tmp}/want.safetensors")
    os.mkdir(f"{tmp}/one")
    run("test_torch_write", "--copy", f"{tmp}/want.safetensors", f"{tmp}/one", 0)
    path = f"{tmp}/one/pytorch_model.bin"
    assert zipfile.ZipFile(path).testzip() is None
    for mmap in False, True:
        got = load(path, mmap)
        assert type(got).__name__ == "OrderedDict"
        same(got, want)
    torch.nn.Linear(2, 2).load_state_dict(got, strict=False)


def check_shards(tmp):
    """Shards and their index, as transformers names them."""
    want = tensors()
    os.mkdir(f"{tmp}/shards")
    run("test_torch_write", "--copy", f"{tmp}/want.safetensors", f"{tmp}/shards", 200)
    index = json.load(open(f"{tmp}/shards/pytorch_model.bin.index.json"))
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files == [f"pytorch_model-{i + 1:05d}-of-{len(files):05d}.bin" for i in range(len(files))]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in want.values())
    got = {}
    for f in files:
        part = load(f"{tmp}/shards/{f}", True)
        assert set(part) == {k for k, v in index["weight_map"].items() if v == f}
        got.update(part)
    same(got, want)
    run("test_torch", "--same", f"{tmp}/want.safetensors", f"{tmp}/shards")


def check_transformers(tmp):
    """A model of transformers, its weights rewritten by Tegu, loads with nothing missing."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False))
    model.save_pretrained(f"{tmp}/llama")
    for shard in 0, 20000:
        to = f"{tmp}/llama-bin-{shard}"
        os.mkdir(to)
        model.config.save_pretrained(to)
        run("test_torch_write", "--copy", f"{tmp}/llama", to, shard)
        again, info = AutoModelForCausalLM.from_pretrained(to, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        same(again.state_dict(), model.state_dict())


def check_read(tmp):
    """What torch.save writes, both containers, all forms of views and dictionaries."""
    want = tensors()
    base = torch.arange(120.0).reshape(4, 5, 6)
    views = {"t": base.permute(2, 0, 1), "slice": base[1:3, ::2, 3:], "row": base[2], "expand": base[:1].expand(7, 5, 6),
             "one": base[:, :1], "diag": base[0].diagonal(), "scalar": base[3, 4, 5], "none": base[2:2]}
    flat = {**want, **views, "param": torch.nn.Parameter(torch.ones(3)), "view8": want["layer.14.float8_e4m3fn"].t()}
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = 1
    flat["marked"] = marked
    noted = torch.ones(4)
    noted.note = "x"
    flat["noted"] = noted
    save_file({k: v.detach().clone().contiguous() for k, v in flat.items()}, f"{tmp}/flat.safetensors")
    extra = {"epoch": 3, "lr": 0.1, "size": torch.Size([1, 2]), "set": {1, 2}, "bytes": b"ab", "dtype": torch.float32,
             "device": torch.device("cpu"), "big": 1 << 100, "nil": None, "list": [1, (2, "x")], "complex": 1j}
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    save_file(model.state_dict(), f"{tmp}/model.safetensors")
    nested = {"a": {"b": torch.ones(1), "c": [torch.zeros(2), {"d": torch.ones(3)}]}, 7: torch.ones(2)}
    save_file({"a.b": torch.ones(1), "a.c.0": torch.zeros(2), "a.c.1.d": torch.ones(3), "7": torch.ones(2)}, f"{tmp}/nested.safetensors")
    cases = [("flat", flat), ("flat", {**flat, **extra}), ("flat", {"state_dict": flat, **extra}), ("flat", {"module": flat}),
             ("model", model.state_dict()), ("model", {"model": model.state_dict(), "args": extra}), ("nested", nested)]
    for i, (name, what) in enumerate(cases):
        for zipped in True, False:
            path = f"{tmp}/read-{i}-{zipped}.pt"
            torch.save(what, path, _use_new_zipfile_serialization=zipped)
            run("test_torch", "--same", f"{tmp}/{name}.safetensors", path)


def check_deflated(tmp):
    """An archive packed anew by zipfile, deflated."""
    torch.save(tensors(), f"{tmp}/stored.pt")
    with zipfile.ZipFile(f"{tmp}/stored.pt") as old, zipfile.ZipFile(f"{tmp}/deflated.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    run("test_torch", "--same", f"{tmp}/want.safetensors", f"{tmp}/deflated.pt")


def check_refused(tmp):
    """What is refused, and that the message names it."""
    for what, words in ((torch.ones(2, 2).to_sparse(), "_rebuild_sparse_tensor"), (torch.ones(2, dtype=torch.complex128), "ComplexDouble"),
                        (torch.ones(2, dtype=torch.complex64).conj(), "conjugated"), (torch.ones(2, dtype=torch.complex32), "complex32"),
                        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "QInt8Storage"),
                        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear")):
        torch.save({"a": what}, f"{tmp}/refused.pt")
        done = subprocess.run([f"{BUILD}/tests/test_torch", "--same", f"{tmp}/want.safetensors", f"{tmp}/refused.pt"],
                              capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr and "refused.pt" in done.stderr, (words, done)


def check_large(tmp):
    """Sizes and offsets above 4 GiB."""
    want = {"a": torch.zeros(5, dtype=torch.uint8), "b": torch.zeros((1 << 32) + 70, dtype=torch.uint8), "c": torch.arange(9)}
    want["b"][-1] = 7
    save_file(want, f"{tmp}/large.safetensors")
    os.mkdir(f"{tmp}/large")
    run("test_torch_write", "--copy", f"{tmp}/large.safetensors", f"{tmp}/large", 0)
    for name, t in load(f"{tmp}/large/pytorch_model.bin", True).items():
        assert torch.equal(t, want[name]), name
    os.remove(f"{tmp}/large.safetensors")
    assert zipfile.ZipFile(f"{tmp}/large/pytorch_model.bin").testzip() is None
    torch.save(want, f"{tmp}/large.pt")
    del want, t
    run("test_torch", "--same", f"{tmp}/large.pt", f"{tmp}/large")


def main():
    failed = 0
    checks = [check_written, check_shards, check_transformers, check_read, check_deflated, check_refused]
    if "--large" in sys.argv:
        checks.append(check_large)
    with tempfile.TemporaryDirectory() as tmp:
        for check in checks:
            try:
                check(tmp)
                print(f"{check.__name__}: ok", flush=True)
            except Exception:
                traceback.print_exc()
                print(f"{check.__name__}: FAILED", flush=True)
                failed += 1
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
