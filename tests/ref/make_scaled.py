#!/usr/bin/env python3
"""Golden values of block-scaled weights as Hugging Face checkpoints store them.

    python3 tests/ref/make_scaled.py OUT

writes OUT/scaled.safetensors. fp8.*: F8_E4M3 [32, 48] in blocks of 16 x 24, dequantised by transformers' Fp8Dequantize;
ragged.*: [2, 37, 50] in blocks of 16 x 24, whose last blocks are cut (DeepSeek's form, where transformers wants whole
blocks), row.* and tensor.*: one scale a row, one for all: float32 products by torch. mxfp4.*: blocks and scales as in
gpt-oss, by transformers' convert_moe_packed_tensors, whose transpose is undone. Needs torch, safetensors, transformers 5.
"""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

torch.manual_seed(4)


def fp8(*shape):
    return (torch.randn(*shape) * 60).clamp(-448, 448).to(torch.float8_e4m3fn)


def scales(*shape):
    return torch.rand(*shape) * 0.01 + 1e-4


out = {}
out["fp8.weight"], out["fp8.scale"] = fp8(32, 48), scales(2, 2)
out["fp8.f32"] = Fp8Dequantize(None)._dequantize_one(out["fp8.weight"], out["fp8.scale"], torch.float32)

out["ragged.weight"], out["ragged.scale"] = fp8(2, 37, 50), scales(2, 3, 3)
spread = out["ragged.scale"].repeat_interleave(16, 1).repeat_interleave(24, 2)[:, :37, :50]
out["ragged.f32"] = out["ragged.weight"].float() * spread

out["row.weight"], out["row.scale"] = fp8(9, 13), scales(9, 1)
out["row.f32"] = out["row.weight"].float() * out["row.scale"]
out["tensor.weight"], out["tensor.scale"] = fp8(9, 13), scales(1)[0]
out["tensor.f32"] = out["tensor.weight"].float() * out["tensor.scale"]

out["mxfp4.blocks"] = torch.randint(0, 256, (2, 5, 3, 16), dtype=torch.uint8)
out["mxfp4.scales"] = torch.randint(100, 150, (2, 5, 3), dtype=torch.uint8)
out["mxfp4.scales"].view(-1)[:4] = torch.tensor([0, 1, 2, 250], dtype=torch.uint8)
out["mxfp4.f32"] = convert_moe_packed_tensors(out["mxfp4.blocks"], out["mxfp4.scales"], dtype=torch.float32).transpose(1, 2)

os.makedirs(sys.argv[1], exist_ok=True)
save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(sys.argv[1], "scaled.safetensors"))
