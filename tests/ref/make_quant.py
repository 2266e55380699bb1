#!/usr/bin/env python3
"""Golden blocks of the quantised types of GGUF, made by ggml itself.

    python3 tests/ref/make_quant.py LIB OUT [OTHER_LIB]

LIB is a shared library with ggml's quantize_row_*_ref and dequantize_row_*: ggml-quants.c compiled with -ffp-contract=off, so
that every operation rounds by itself (add -Wl,--unresolved-symbols=ignore-all and nothing else of ggml is needed). Writes
OUT/write.safetensors (x: float32 rows of 256; for each type that is written its blocks of x as U8) and OUT/read.safetensors
(for each type random blocks as U8 and their values as F32). Where the package `gguf` is installed, its own readers must agree.
With OTHER_LIB, compiled another way, it says how many rows that library quantises to other bytes. Needs numpy and safetensors.
"""
import ctypes
import os
import sys

import numpy as np
from safetensors.numpy import save_file

TYPES = {  # elements, bytes; where d and dmin stand
    "q4_0": (32, 18, [0]), "q4_1": (32, 20, [0, 2]), "q5_0": (32, 22, [0]), "q5_1": (32, 24, [0, 2]), "q8_0": (32, 34, [0]),
    "q2_K": (256, 84, [80, 82]), "q3_K": (256, 110, [108]), "q4_K": (256, 144, [0, 2]), "q5_K": (256, 176, [0, 2]),
    "q6_K": (256, 210, [208]), "mxfp4": (32, 17, []),
}
WRITTEN = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K"]
WIDTH = 256
rng = np.random.default_rng(20)


def inputs():
    normal = lambda s=1.0: rng.standard_normal(WIDTH) * s
    signs = np.where(np.arange(WIDTH) % 2, -1.0, 1.0)
    rows = [normal(s) for s in (1, 1, 1, 1, 0.02, 0.02, 0.02, 0.02, 1e-3, 30)]
    rows += [np.sign(n) * abs(n) ** 3 for n in (normal(), normal(0.3))]  # heavy tails
    # the best codes of Q4_K and Q5_K come of the first and the last try, those of Q6_K of the first
    rows += [np.random.default_rng(seed).standard_normal(WIDTH) ** 3 for seed in (0, 1, 18, 108, 236)]
    half = np.full(WIDTH, np.nextafter(np.float32(0.5), np.float32(0)))  # rounds to 0, plus 0.5 to 1
    half[::32] = 127
    rows.append(half)
    for at in (0, 31, 100, 255):  # one outlier
        row = normal(0.02)
        row[at] = 1.5 * signs[at]
        rows.append(row)
    rows += [abs(normal()), -abs(normal()), normal() + 3, normal() - 3, rng.uniform(-1, 1, WIDTH), rng.uniform(0.1, 0.2, WIDTH)]
    rows += [np.full(WIDTH, v) for v in (0.5, -0.7, 0.0, -0.0, 1e-7, 65504.0)]
    rows += [signs, signs * 0.3, -signs, np.repeat(signs[:32], 8), signs * 0.0]  # equal magnitudes: the first wins
    rows += [np.arange(WIDTH) - 128.0, (np.arange(WIDTH) % 32 - 16) / 16.0, np.arange(WIDTH) % 8 + 0.5, rng.integers(-127, 128, WIDTH) + 0.5]
    rows += [(rng.random(WIDTH) < 0.03) * normal(), normal() * (np.arange(WIDTH) // 32 % 2), normal() * (np.arange(WIDTH) // 16 % 2)]
    rows += [normal(s) for s in (3e-8, 1e-12, 1e-15, 1e-16, 1e-20, 1e-30, 1e-37, 1e-38, 3e-39, 1e-40, 3e-44)]
    rows += [normal(s) for s in (1e4, 1e6, 3e7, 1e12, 1e19, 1e30)]
    rows += [np.clip(normal(1e38), -3e38, 3e38)]
    x = np.stack(rows).astype(np.float32)
    rounded = normal(0.02).astype(np.float32).view(np.uint32) & 0xFFFF0000  # bfloat16 weights
    return np.concatenate([x, rounded.view(np.float32)[None], x[:8] * np.repeat(np.exp2(np.arange(8) - 4.0), 32)]).astype(np.float32)


def quantize(lib, name, x):
    elements, size, _ = TYPES[name]
    out = np.zeros((len(x), WIDTH // elements * size), np.uint8)
    getattr(lib, f"quantize_row_{name}_ref")(x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size))
    return out


def dequantize(lib, name, blocks):
    elements, size, _ = TYPES[name]
    out = np.empty((len(blocks), blocks.shape[1] // size * elements), np.float32)
    getattr(lib, f"dequantize_row_{name}")(blocks.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(out.size))
    return out


def random_blocks(name):
    """Rows with scales of a usual size, of any finite size, and of any bits."""
    elements, size, scales = TYPES[name]
    blocks = rng.integers(0, 256, (5, WIDTH // elements, size), dtype=np.uint8)
    for at in scales:
        half = blocks[:, :, at:at + 2]
        usual = (rng.standard_normal(half[:2].shape[:2]) * 0.01).astype(np.float16)
        half[:2] = usual[..., None].view(np.uint8)
        half[2:4, :, 1] &= 0xBF  # exponent below 16: finite, small and subnormal too
    if name == "mxfp4":
        blocks[:, 0, 0] = [0, 1, 2, 254, 255]
    return blocks.reshape(5, -1)


def same(a, b):
    return ((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all()


def main():
    lib, out = ctypes.CDLL(sys.argv[1], mode=os.RTLD_LAZY), sys.argv[2]
    x = inputs()
    write, read = {"x": x}, {}
    for name in WRITTEN:
        write[name] = quantize(lib, name, x)
    for name in TYPES:
        read[name] = random_blocks(name)
        read[name + ".f32"] = dequantize(lib, name, read[name])
        try:
            import gguf
        except ImportError:
            continue
        kind = getattr(gguf.GGMLQuantizationType, name.upper())
        with np.errstate(all="ignore"):
            if not same(gguf.quants.dequantize(read[name], kind), read[name + ".f32"]):
                print(f"{name}: gguf reads other values")
    os.makedirs(out, exist_ok=True)
    save_file(write, os.path.join(out, "write.safetensors"))
    save_file(read, os.path.join(out, "read.safetensors"))
    if len(sys.argv) > 3:
        other = ctypes.CDLL(sys.argv[3], mode=os.RTLD_LAZY)
        for name in WRITTEN:
            rows = (quantize(other, name, x) != write[name]).any(axis=1)
            print(f"{name}: {rows.sum()} of {len(x)} rows differ: {np.flatnonzero(rows).tolist()}")


main()
