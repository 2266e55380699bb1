#!/usr/bin/env python3
"""Tiny checkpoints with quantised weights, each beside the same weights as float32.

    python3 tests/ref/make_quantised.py OUT

writes OUT/{fp8,mxfp4}{,_f32}/{config.json,model.safetensors} in the layout of tests/data/quantised: a DeepSeek V3 with
fp8 weights in blocks and their weight_scale_inv, and a gpt-oss with mxfp4 experts as its released files hold them
([E, out, in / 32, 16] of two numbers a byte, the first in the low nibble), of which the float32 form is [E, in, out]. Needs
torch, safetensors and transformers 5. Seeds are fixed.
"""
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = dict(vocab_size=20, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64, bos_token_id=0,
              eos_token_id=0, pad_token_id=0)
BLOCK = (8, 6)  # no size is a multiple of both
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def save(folder, weights, config):
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)


def source(out, family, **settings):
    config = AutoConfig.for_model(family, **COMMON, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    folder = os.path.join(out, "." + family)
    model.save_pretrained(folder)
    with open(os.path.join(folder, "config.json")) as f:
        return load_file(os.path.join(folder, "model.safetensors")), json.load(f)


def fp8(weights):
    stored, plain = {}, {}
    for name, w in weights.items():
        stored[name] = plain[name] = w
        if not name.endswith(("_proj.weight", "with_mqa.weight")):
            continue
        rows, cols = (-(-n // b) for n, b in zip(w.shape, BLOCK))
        scale = torch.rand(rows, cols) * 0.01 + 0.001
        full = scale.repeat_interleave(BLOCK[0], 0)[: w.shape[0]].repeat_interleave(BLOCK[1], 1)[:, : w.shape[1]]
        stored[name] = (w / full).clamp(-448, 448).to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = scale
        plain[name] = stored[name].float() * full
    return stored, plain


def mxfp4(weights):
    stored, plain = {}, {}
    table = torch.cat([E2M1, -E2M1])
    for name, w in weights.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[name] = plain[name] = w
            continue
        experts, cols, rows = w.shape
        codes = torch.randint(0, 16, (experts, rows, cols // 32, 32), dtype=torch.uint8)
        scales = torch.randint(118, 128, (experts, rows, cols // 32), dtype=torch.uint8)
        stored[name + "_blocks"] = codes[..., 0::2] | (codes[..., 1::2] << 4)
        stored[name + "_scales"] = scales
        values = table[codes.long()] * torch.pow(2.0, scales.float() - 127)[..., None]
        plain[name] = values.reshape(experts, rows, cols).transpose(1, 2)
    return stored, plain


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out = sys.argv[1]
    torch.manual_seed(11)
    weights, config = source(out, "deepseek_v3", hidden_size=20, intermediate_size=14, num_key_value_heads=2, q_lora_rank=10,
                             kv_lora_rank=10, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=5, n_routed_experts=4,
                             num_experts_per_tok=2, n_group=2, topk_group=1, moe_intermediate_size=10,
                             first_k_dense_replace=1)
    stored, plain = fp8(weights)
    save(os.path.join(out, "fp8_f32"), plain, config)
    quant = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(BLOCK)}
    save(os.path.join(out, "fp8"), stored, dict(config, quantization_config=quant))

    weights, config = source(out, "gpt_oss", hidden_size=32, intermediate_size=64, num_key_value_heads=1, head_dim=8,
                             num_local_experts=2, num_experts_per_tok=1, sliding_window=7)
    stored, plain = mxfp4(weights)
    save(os.path.join(out, "mxfp4_f32"), plain, config)
    quant = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    save(os.path.join(out, "mxfp4"), stored, dict(config, quantization_config=quant))


if __name__ == "__main__":
    main()
