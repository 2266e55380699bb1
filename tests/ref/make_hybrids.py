#!/usr/bin/env python3
"""Tiny random checkpoints of hybrids with every setting away from its default, with golden values of transformers.

    python3 tests/ref/make_hybrids.py OUT [NAME...]

writes OUT/NAME/{config.json,model.safetensors,golden.safetensors} in the layout of tests/data/families (see
make_families.py). Needs torch, safetensors and transformers 5; float32, eager attention, CPU. Seeds are fixed.
"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from make_families import LENGTH, PROMPT, ROWS, SMALLEST_MARGIN, VOCAB, greedy

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
COMMON = dict(vocab_size=VOCAB, num_hidden_layers=2, bos_token_id=0, eos_token_id=0, pad_token_id=0)
DENSE = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
MAMBA = dict(mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_n_groups=2, mamba_d_conv=3, mamba_chunk_size=16,
             mamba_conv_bias=True, mamba_proj_bias=True, time_step_limit=(0.2, 1.5))
LINEAR = dict(linear_num_key_heads=2, linear_num_value_heads=6, linear_key_head_dim=4, linear_value_head_dim=6)
VARIANTS = {
    "mamba2__groups": dict(hidden_size=32, num_heads=4, head_dim=16, state_size=8, n_groups=2, use_bias=True, expand=2,
                           conv_kernel=3, chunk_size=16, time_step_limit=(0.2, 1.5), tie_word_embeddings=True),
    "bamba__bias": dict(DENSE, **MAMBA, attn_layer_indices=[0], attention_bias=True, mlp_bias=True,
                        rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    "granitemoehybrid__moe": dict(DENSE, **MAMBA, layer_types=["mamba", "attention"], num_local_experts=4,
                                  num_experts_per_tok=2, shared_intermediate_size=20, position_embedding_type="rope",
                                  embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.6,
                                  attention_multiplier=0.3, rope_parameters=ROPE),
    "falcon_h1__factors": dict(DENSE, **MAMBA, mamba_d_ssm=64, mamba_rms_norm=True, mamba_norm_before_gate=False,
                               projectors_bias=True, mlp_bias=True, embedding_multiplier=2.0, lm_head_multiplier=0.5,
                               mlp_multipliers=[0.7, 1.4], key_multiplier=0.6, attention_in_multiplier=0.9,
                               attention_out_multiplier=0.8, ssm_multipliers=[0.7, 1.3, 0.9, 1.1, 1.5],
                               ssm_in_multiplier=0.8, ssm_out_multiplier=1.2, rope_parameters=ROPE),
    "lfm2__bias": dict(DENSE, layer_types=["conv", "full_attention"], conv_bias=True, conv_L_cache=4,
                       block_auto_adjust_ff_dim=True, block_multiple_of=16, block_ffn_dim_multiplier=1.2,
                       rope_parameters=ROPE),
    "jamba__moe": dict(DENSE, attn_layer_period=2, attn_layer_offset=0, expert_layer_period=2, expert_layer_offset=1,
                       num_experts=4, num_experts_per_tok=2, mamba_d_state=5, mamba_d_conv=3, mamba_dt_rank=3,
                       mamba_proj_bias=True, use_mamba_kernels=False),
    "recurrent_gemma__width": dict(DENSE, num_hidden_layers=3, lru_width=24, conv1d_width=3, attention_window_size=9,
                                   attention_bias=True, logits_soft_cap=5.0,
                                   rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    "minimax__factors": dict(DENSE, head_dim=12, num_hidden_layers=3, block_size=8, num_local_experts=4,
                             layer_types=["linear_attention", "full_attention", "linear_attention"],
                             num_experts_per_tok=2, full_attn_alpha_factor=1.5, full_attn_beta_factor=0.7,
                             linear_attn_alpha_factor=0.8, linear_attn_beta_factor=1.2, mlp_alpha_factor=0.9,
                             mlp_beta_factor=1.3, rope_parameters=ROPE),
    "qwen3_5_text__heads": dict(DENSE, **LINEAR, head_dim=16, attention_bias=True, linear_conv_kernel_dim=3,
                                layer_types=["full_attention", "linear_attention"],
                                rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    "olmo_hybrid__nope": dict(DENSE, **LINEAR, linear_conv_kernel_dim=3, linear_allow_neg_eigval=False,
                              layer_types=["full_attention", "linear_attention"],
                              rope_parameters={"rope_type": "default", "rope_theta": None}),
    "kimi_linear__moe": dict(dict(DENSE, num_key_value_heads=4), q_lora_rank=12, kv_lora_rank=16,
                             qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, moe_intermediate_size=20,
                             num_local_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1, n_shared_experts=2,
                             linear_head_dim=6, linear_num_heads=3, linear_conv_kernel_dim=3,
                             layer_types=["full_attention", "linear_attention"], mlp_layer_types=["sparse", "dense"]),
}


def randomise(model, generator):
    """Weights of size fan_in^-1/2, norms around their identity, biases of 0.2; gates where they matter."""
    seen = set()
    for name, p in list(model.named_parameters()) + [b for b in model.named_buffers() if "e_score" in b[0]]:
        if p.data_ptr() in seen:
            continue
        seen.add(p.data_ptr())
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
        last = name.split(".")[-1]
        if "conv" in name and last == "weight" and p.dim() == 3:
            p.data.copy_(0.5 * noise)
        elif p.dim() >= 2 and last != "A_log" and not last.endswith("bias"):
            p.data.copy_(noise * p.shape[-1] ** -0.5)
        elif last == "A_log":
            p.data.copy_(0.5 * noise)
        elif last.endswith("bias") or last == "recurrent_param":
            p.data.copy_(0.2 * noise)
        else:
            p.data.copy_(p.data.mean().round() + 0.2 * noise)


def hidden_states(model, out, ids):
    """Before layer i, and after the final norm: Mamba-2 itself gives what comes after layer i."""
    states = list(out.hidden_states)
    if model.config.model_type == "mamba2":
        states = [model.get_input_embeddings()(ids)] + states[:-2] + states[-1:]
    return states


def make(name, folder):
    family = name.split("__")[0]
    config = AutoConfig.for_model(family, **dict(COMMON, **VARIANTS[name]))
    config._attn_implementation = "eager"
    for seed in range(100):
        generator = torch.Generator().manual_seed(2000 + seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        randomise(model, generator)
        ids = torch.randint(1, VOCAB, (ROWS, LENGTH), generator=generator)
        generated, margin = greedy(model, ids[:1, :PROMPT])
        if margin > SMALLEST_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a greedy margin above {SMALLEST_MARGIN}")
    out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    golden = {"input_ids": ids.to(torch.int32), "logits": out.logits, "generated_ids": generated.to(torch.int32)}
    for i, h in enumerate(hidden_states(model, out, ids)):
        golden[f"hidden.{i}"] = h
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    extra = os.path.join(folder, "generation_config.json")
    if os.path.exists(extra):
        os.remove(extra)
    save_file({k: v.detach().contiguous().clone() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    with open(os.path.join(folder, "config.json")) as f:
        json.load(f)
    print(f"{folder}: seed {2000 + seed}, smallest greedy margin {margin:.3g}, "
          f"logits RMS {float(out.logits.pow(2).mean().sqrt()):.3f}")


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with torch.no_grad():
        for name in sys.argv[2:] or VARIANTS:
            make(name, os.path.join(sys.argv[1], name))


if __name__ == "__main__":
    main()
