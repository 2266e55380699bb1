#!/usr/bin/env python3
"""Tiny random checkpoints whose head size is not width / heads, with golden values of transformers.

    python3 tests/ref/make_families.py OUT

writes OUT/{llama,mistral,qwen2,qwen3}__headdim/{config.json,model.safetensors,golden.safetensors} in the layout of
tests/data/families. Needs torch, safetensors and transformers 5; float32, eager attention, CPU. Seeds are fixed. A golden
file holds input_ids [2,40], logits [2,40,N], hidden.{i} [2,40,D] (before layer i, the last one after the final norm) and
generated_ids: 16 tokens of row 0, then 12 greedy ones (each from a full forward without a cache).
"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

ROWS, LENGTH, PROMPT, GREEDY, VOCAB = 2, 40, 16, 12, 96
SMALLEST_MARGIN = 1e-3  # between the two largest logits of a greedy step, so that rounding cannot change the choice

COMMON = dict(
    vocab_size=VOCAB, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=256, rms_norm_eps=1e-6,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, bos_token_id=0, eos_token_id=0, pad_token_id=0,
)
# width, heads, kv heads, head size: heads * head size is never the width; qwen2's half size is odd
FAMILIES = {
    "llama": dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    "mistral": dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=12, sliding_window=10,
                    tie_word_embeddings=False),
    "qwen2": dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
                  tie_word_embeddings=False),
    "qwen3": dict(hidden_size=48, num_attention_heads=6, num_key_value_heads=3, head_dim=16,
                  tie_word_embeddings=True),
}


def randomise(model, generator):
    """Weights of size fan_in^-1/2, norms around 1, biases of 0.2: every parameter matters for the logits."""
    seen = set()
    for name, p in model.named_parameters():
        if p.data_ptr() in seen:
            continue
        seen.add(p.data_ptr())
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
        if p.dim() >= 2:
            p.data.copy_(noise * p.shape[-1] ** -0.5)
        elif name.endswith(".bias"):
            p.data.copy_(0.2 * noise)
        else:
            p.data.copy_(1 + 0.2 * noise)


def greedy(model, prompt):
    """The ids after `prompt` and the smallest margin met."""
    ids, margin = prompt.clone(), float("inf")
    for _ in range(GREEDY):
        logits = model(input_ids=ids, use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2).values
        margin = min(margin, float(best[0] - best[1]))
        ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
    return ids, margin


def make(family, settings, folder):
    config = AutoConfig.for_model(family, **COMMON, **settings)
    config._attn_implementation = "eager"
    for seed in range(100):
        generator = torch.Generator().manual_seed(1000 + seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        randomise(model, generator)
        ids = torch.randint(1, VOCAB, (ROWS, LENGTH), generator=generator)
        generated, margin = greedy(model, ids[:1, :PROMPT])
        if margin > SMALLEST_MARGIN:
            break
    else:
        raise SystemExit(f"{family}: no seed gives a greedy margin above {SMALLEST_MARGIN}")

    attention = model.model.layers[0].self_attn
    wide = settings["num_attention_heads"] * settings["head_dim"]
    if attention.q_proj.weight.shape[0] != wide or wide == settings["hidden_size"]:
        raise SystemExit(f"{family}: transformers ignored head_dim: q_proj is {tuple(attention.q_proj.weight.shape)}")

    out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    if not torch.allclose(model.lm_head(out.hidden_states[-1]), out.logits, atol=1e-5):
        raise SystemExit(f"{family}: the last hidden state is not the head's input")
    golden = {"input_ids": ids.to(torch.int32), "logits": out.logits, "generated_ids": generated.to(torch.int32)}
    for i, h in enumerate(out.hidden_states):
        golden[f"hidden.{i}"] = h

    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    extra = os.path.join(folder, "generation_config.json")
    if os.path.exists(extra):
        os.remove(extra)
    save_file({k: v.detach().contiguous().clone() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    with open(os.path.join(folder, "config.json")) as f:
        written = json.load(f)
    if written.get("head_dim") != settings["head_dim"]:
        raise SystemExit(f"{family}: config.json has head_dim {written.get('head_dim')}")
    print(f"{folder}: seed {1000 + seed}, smallest greedy margin {margin:.3g}, "
          f"logits RMS {float(out.logits.pow(2).mean().sqrt()):.3f}")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with torch.no_grad():
        for family, settings in FAMILIES.items():
            make(family, settings, os.path.join(sys.argv[1], f"{family}__headdim"))


if __name__ == "__main__":
    main()
