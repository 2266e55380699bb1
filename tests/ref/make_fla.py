#!/usr/bin/env python3
"""Tiny random models of flash-linear-attention with golden values of its published equations (tests/interop/check_fla.py), in float64.

    python3 tests/ref/make_fla.py OUT

writes OUT/fla__TYPE/{config.json,model.safetensors,golden.safetensors} in the layout of tests/data/families, golden values as in
tests/ref/make_families.py. Needs numpy, torch and safetensors. Seeds are fixed. tests/interop/check_fla.py holds the equations against fla itself.
"""
import os
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
from check_fla import ARCHITECTURES, naive_run, noise, shapes, write_model  # noqa: E402
from make_families import GREEDY, LENGTH, PROMPT, ROWS, SMALLEST_MARGIN  # noqa: E402

FRAME = dict(vocab_size=48, hidden_size=24, intermediate_size=32, num_hidden_layers=2, norm_eps=1e-5, hidden_act="swish",
             max_position_embeddings=256, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False, dtype="float32")
ATTN = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "qkv_bias": True, "rope_theta": 500.0}
MODELS = [
    dict(model_type="gla", num_heads=4, num_kv_heads=2, expand_k=0.5, num_hidden_layers=3,
         attn=[ATTN, {"layers": [2], "num_heads": 6, "window_size": 9}]),
    dict(model_type="delta_net", num_heads=3, expand_k=0.5, expand_v=1.5, conv_size=3, allow_neg_eigval=True),
    dict(model_type="gated_deltanet", head_dim=10, num_heads=2, num_v_heads=4, expand_v=1.6, attn=ATTN),
    dict(model_type="kda", head_dim=6, num_heads=2, num_v_heads=4, expand_v=2, conv_size=2),
    dict(model_type="hgrn2", expand_ratio=8, num_heads=3, use_lower_bound=False, norm_eps=1e-2, attn=ATTN),
    dict(model_type="retnet", num_heads=3, attn=ATTN),
    dict(model_type="linear_attn", num_heads=4, num_kv_heads=2, feature_map="elu", expand_v=2, norm_eps=1e-2, tie_word_embeddings=True),
]


def greedy(run, prompt):
    ids, margin = prompt, float("inf")
    for _ in range(GREEDY):
        best = torch.topk(run(ids)[1][0, -1], 2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        ids = torch.cat([ids, best.indices[:1].view(1, 1)], dim=1)
    return ids, margin


def make(config, folder):
    for seed in range(3000, 3100):
        rng = np.random.default_rng(seed)
        tensors = {n: noise(rng, n, s) for n, s in shapes(config).items()}
        weights = {n: torch.from_numpy(t).double() for n, t in tensors.items()}
        ids = torch.from_numpy(rng.integers(1, config["vocab_size"], (ROWS, LENGTH)))
        generated, margin = greedy(lambda i: naive_run(config, weights, i), ids[:1, :PROMPT])
        if margin > SMALLEST_MARGIN:
            break
    hidden, logits = naive_run(config, weights, ids)
    golden = {"input_ids": ids.int(), "logits": logits.float(), "generated_ids": generated.int()}
    golden |= {f"hidden.{i}": h.float() for i, h in enumerate(hidden)}
    write_model(folder, config, tensors)
    save_file({n: t.contiguous().numpy() for n, t in golden.items()}, os.path.join(folder, "golden.safetensors"))
    print(f"{folder}: seed {seed}, smallest greedy margin {margin:.3g}, logits RMS {float(logits.square().mean().sqrt()):.3f}")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    for model in MODELS:
        kind = model["model_type"]
        make(FRAME | model | {"architectures": [ARCHITECTURES[kind] + "ForCausalLM"]}, os.path.join(sys.argv[1], "fla__" + kind))


if __name__ == "__main__":
    main()
