#!/usr/bin/env python3
"""Makes tests/data/gguf/ with the `gguf` package (0.19): what tests/test_gguf.c reads, and writes again byte for byte. Run from the
root of the repository."""
import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType as V, GGUFWriter

OUT = "tests/data/gguf/"
TYPES = ["F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
         "Q6_K", "MXFP4"]
SCALARS = [("u8", V.UINT8, 200), ("i8", V.INT8, -100), ("u16", V.UINT16, 60000), ("i16", V.INT16, -30000), ("u32", V.UINT32, 4000000000),
           ("i32", V.INT32, -2000000000), ("f32", V.FLOAT32, 1.5), ("bool", V.BOOL, True), ("string", V.STRING, 'h\u00e9 "x"'),
           ("u64", V.UINT64, 2**63 + 5), ("i64", V.INT64, -(2**62) - 1), ("f64", V.FLOAT64, 0.1)]


def data(k, rows, row_bytes):
    n = rows * row_bytes
    return ((k * 31 + np.arange(n) * 7) % 256).astype(np.uint8).reshape(rows, row_bytes)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def all_types(path):
    w = GGUFWriter(path, "llama")
    w.add_custom_alignment(64)
    for name, kind, value in SCALARS:
        w.add_key_value("t." + name, value, kind)
    for name, kind, value in SCALARS:
        other = "" if kind == V.STRING else False if kind == V.BOOL else 7
        w.add_key_value("a." + name, [value, other, value], V.ARRAY, sub_type=kind)
    for k, name in enumerate(TYPES):
        kind = GGMLQuantizationType[name]
        block, size = GGML_QUANT_SIZES[kind]
        w.add_tensor("w." + name, data(k, 2, size if block > 1 else 3 * size), raw_dtype=kind)
    for rank in (1, 3, 4):
        w.add_tensor(f"rank.{rank}", np.arange(24, dtype=np.float32).reshape({1: (24,), 3: (2, 3, 4), 4: (1, 2, 3, 4)}[rank]))
    finish(w)


def parts(path, **options):
    w = GGUFWriter(path, "llama", **options)
    w.add_string("general.name", "parts")
    for k, name in enumerate(("one", "two", "three")):
        w.add_tensor(name, data(k, 2, 12 + 4 * k), raw_dtype=GGMLQuantizationType.F32)
    finish(w)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    all_types(OUT + "types.gguf")
    parts(OUT + "model.gguf", split_max_tensors=1)
    parts(OUT + "first.gguf", split_max_tensors=3, small_first_shard=True)
