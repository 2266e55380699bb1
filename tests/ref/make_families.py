#!/usr/bin/env python3
"""Tiny random checkpoints of families in other builds than their defaults, with golden values of transformers.

    python3 tests/ref/make_families.py OUT [NAME...]

writes OUT/FAMILY__VARIANT/{config.json,model.safetensors,golden.safetensors} for the rows of VARIANTS in the layout of
tests/data/families. Needs torch, safetensors and transformers 5; float32, eager attention, CPU. Seeds are fixed. A golden
file holds input_ids [2,40], logits [2,40,N], generated_ids (16 tokens of row 0, then 12 greedy ones, each from a full forward
without a cache) and transformers' own hidden.{i} [2,40,D]: before layer i, the last one after the final norm (Mamba-2 gives
what comes after layer i, OPT projects the last one to the size of its embeddings).
"""
import copy
import os
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

ROWS, LENGTH, PROMPT, GREEDY, VOCAB = 2, 40, 16, 12, 96
SMALLEST_MARGIN = 1e-3  # between the two largest logits of a greedy step, so that rounding cannot change the choice

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
COMMON = dict(vocab_size=VOCAB, bos_token_id=0, eos_token_id=0, pad_token_id=0)
LLAMA = dict(COMMON, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, rope_parameters=ROPE)


HYBRID = dict(COMMON, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
MAMBA = dict(mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_n_groups=2, mamba_d_conv=3, mamba_chunk_size=16,
             mamba_conv_bias=True, mamba_proj_bias=True, time_step_limit=(0.2, 1.5))
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=6, linear_key_head_dim=4, linear_value_head_dim=6,
             linear_conv_kernel_dim=3)


def row(family, variant, base=LLAMA, seed=1000, **changes):
    """Name, family, first seed that is tried, settings of the config; `...` takes one of the base away."""
    settings = {**base, **changes}
    return f"{family}__{variant}", family, seed, {k: v for k, v in settings.items() if v is not ...}


def hybrid(family, variant, **changes):
    return row(family, variant, base=HYBRID, seed=2000, **changes)


def rope(kind, **keys):
    return {"rope_type": kind, "rope_theta": 10000.0, **keys}


# The head size of "headdim" is never width / heads; qwen2's half size is odd. Windows and original positions are shorter
# than the texts; those after which frequencies change lie between the greedy text and the whole one.
VARIANTS = [
    row("llama", "headdim", head_dim=16, rms_norm_eps=1e-6, tie_word_embeddings=True),
    row("mistral", "headdim", num_key_value_heads=1, head_dim=12, rms_norm_eps=1e-6, sliding_window=10,
        tie_word_embeddings=False),
    row("qwen2", "headdim", hidden_size=24, head_dim=10, rms_norm_eps=1e-6, tie_word_embeddings=False),
    row("qwen3", "headdim", hidden_size=48, num_attention_heads=6, num_key_value_heads=3, head_dim=16, rms_norm_eps=1e-6,
        tie_word_embeddings=True),
    row("llama", "linear", rope_parameters=rope("linear", factor=2.0)),
    row("llama", "dynamic", max_position_embeddings=32, rope_parameters=rope("dynamic", factor=2.0)),
    row("llama", "yarn", rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    row("phi3", "longrope", original_max_position_embeddings=32, sliding_window=9, max_position_embeddings=96,
        rope_parameters=rope("longrope", short_factor=[1.0, 1.1, 1.2], long_factor=[1.0, 2.0, 5.0],
                             partial_rotary_factor=0.75)),
    row("gemma2", "headdim", head_dim=12, query_pre_attn_scalar=20, sliding_window=7),
    row("gemma3_text", "full", num_hidden_layers=3, head_dim=12, query_pre_attn_scalar=20, sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": rope("linear", factor=8.0, rope_theta=1e6), "sliding_attention": ROPE}),
    row("olmo3", "full", num_hidden_layers=3, sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": rope("yarn", factor=4.0, original_max_position_embeddings=16),
                         "sliding_attention": ROPE}),
    row("olmo", "clip", clip_qkv=0.5),
    row("exaone4", "full", num_hidden_layers=3, head_dim=12, sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    row("ministral", "window", head_dim=12, sliding_window=7, layer_types=["sliding_attention", "full_attention"]),
    row("smollm3", "window", num_hidden_layers=3, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=7,
        layer_types=["full_attention", "sliding_attention", "full_attention"]),
    # the worked example of docs/adding.md
    row("cohere2", "window", sliding_window=7, layer_types=["sliding_attention", "full_attention"], logit_scale=0.25,
        tie_word_embeddings=True),
    row("phi", "qknorm", qk_layernorm=True, partial_rotary_factor=0.5),
    row("stablelm", "qknorm", qk_layernorm=True, use_parallel_residual=True, use_qkv_bias=True, partial_rotary_factor=0.5),
    row("cohere", "qknorm", use_qk_norm=True, attention_bias=True),
    row("gpt_neox", "serial", num_key_value_heads=..., use_parallel_residual=False,
        rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    row("falcon", "grouped", num_key_value_heads=..., intermediate_size=..., num_kv_heads=2, new_decoder_architecture=True,
        bias=True),
    row("falcon", "heads", num_key_value_heads=..., intermediate_size=..., multi_query=False, parallel_attn=False, bias=True),
    row("opt", "post", base=COMMON, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, do_layer_norm_before=False, word_embed_proj_dim=24, pad_token_id=1),
    row("gpt2", "scales", base=COMMON, n_embd=32, n_layer=2, n_head=4, n_inner=40, n_positions=64,
        scale_attn_by_inverse_layer_idx=True),
    row("gpt_oss", "headdim", num_local_experts=3, num_experts_per_tok=2, head_dim=12, sliding_window=7,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=16, truncate=False)),
    row("deepseek_v3", "straight", num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=12, qk_nope_head_dim=6,
        qk_rope_head_dim=4, v_head_dim=5, n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2,
        n_shared_experts=2, moe_intermediate_size=12, first_k_dense_replace=1, routed_scaling_factor=1.5,
        rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0)),
    row("nemotron", "bias", attention_bias=True, mlp_bias=True, partial_rotary_factor=0.5),
    row("glm4", "headdim", head_dim=12, partial_rotary_factor=0.5),
    row("helium", "bias", head_dim=8, attention_bias=True, mlp_bias=True),
    row("qwen3_moe", "dense", num_hidden_layers=3, head_dim=12, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12,
        mlp_only_layers=[1], norm_topk_prob=False),
    row("deepseek_v3", "yarn", num_key_value_heads=4, q_lora_rank=14, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=8,
        v_head_dim=6, n_routed_experts=6, num_experts_per_tok=2, n_group=1, topk_group=1, n_shared_experts=1,
        moe_intermediate_size=12, first_k_dense_replace=1, attention_bias=True, rope_interleave=False, norm_topk_prob=False,
        rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=0.7)),
    # hybrids, with every setting away from its default
    row("mamba2", "groups", base=dict(COMMON, num_hidden_layers=2), seed=2000, hidden_size=32, num_heads=4, head_dim=16,
        state_size=8, n_groups=2, use_bias=True, expand=2, conv_kernel=3, chunk_size=16, time_step_limit=(0.2, 1.5),
        tie_word_embeddings=True),
    hybrid("bamba", "bias", **MAMBA, attn_layer_indices=[0], attention_bias=True, mlp_bias=True,
           rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    hybrid("granitemoehybrid", "moe", **MAMBA, layer_types=["mamba", "attention"], num_local_experts=4, num_experts_per_tok=2,
           shared_intermediate_size=20, position_embedding_type="rope", embedding_multiplier=3.0, logits_scaling=2.0,
           residual_multiplier=0.6, attention_multiplier=0.3, rope_parameters=ROPE),
    hybrid("granitemoehybrid", "rope", **{**MAMBA, "mamba_n_groups": 1, "mamba_proj_bias": False, "time_step_limit": ...},
           layer_types=["attention", "mamba"], attention_bias=True, num_local_experts=4, num_experts_per_tok=2,
           shared_intermediate_size=20, position_embedding_type="rope", embedding_multiplier=3.0, logits_scaling=2.0,
           residual_multiplier=0.6, attention_multiplier=0.3, tie_word_embeddings=True,
           rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                original_max_position_embeddings=16)),
    hybrid("falcon_h1", "factors", **MAMBA, mamba_d_ssm=64, mamba_rms_norm=True, mamba_norm_before_gate=False,
           projectors_bias=True, mlp_bias=True, embedding_multiplier=2.0, lm_head_multiplier=0.5, mlp_multipliers=[0.7, 1.4],
           key_multiplier=0.6, attention_in_multiplier=0.9, attention_out_multiplier=0.8,
           ssm_multipliers=[0.7, 1.3, 0.9, 1.1, 1.5], ssm_in_multiplier=0.8, ssm_out_multiplier=1.2, rope_parameters=ROPE),
    hybrid("lfm2", "bias", layer_types=["conv", "full_attention"], conv_bias=True, conv_L_cache=4,
           block_auto_adjust_ff_dim=True, block_multiple_of=16, block_ffn_dim_multiplier=1.2, rope_parameters=ROPE),
    hybrid("jamba", "moe", attn_layer_period=2, attn_layer_offset=0, expert_layer_period=2, expert_layer_offset=1,
           num_experts=4, num_experts_per_tok=2, mamba_d_state=5, mamba_d_conv=3, mamba_dt_rank=3, mamba_proj_bias=True,
           use_mamba_kernels=False),
    hybrid("recurrent_gemma", "width", num_hidden_layers=3, lru_width=24, conv1d_width=3, attention_window_size=9,
           attention_bias=True, logits_soft_cap=5.0, rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    hybrid("minimax", "factors", head_dim=12, num_hidden_layers=3, block_size=8, num_local_experts=4, num_experts_per_tok=2,
           layer_types=["linear_attention", "full_attention", "linear_attention"], full_attn_alpha_factor=1.5,
           full_attn_beta_factor=0.7, linear_attn_alpha_factor=0.8, linear_attn_beta_factor=1.2, mlp_alpha_factor=0.9,
           mlp_beta_factor=1.3, rope_parameters=ROPE),
    hybrid("qwen3_5_text", "heads", **DELTA, head_dim=16, attention_bias=True,
           layer_types=["full_attention", "linear_attention"], rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
    hybrid("qwen3_5_moe_text", "experts", **DELTA, head_dim=8, layer_types=["linear_attention", "full_attention"],
           num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=16,
           rope_parameters=dict(ROPE, partial_rotary_factor=0.5, mrope_section=[1, 1, 0], mrope_interleaved=True)),
    hybrid("olmo_hybrid", "nope", **DELTA, linear_allow_neg_eigval=False, layer_types=["full_attention", "linear_attention"],
           rope_parameters={"rope_type": "default", "rope_theta": None}),
    hybrid("kimi_linear", "moe", num_key_value_heads=4, q_lora_rank=12, kv_lora_rank=16, qk_nope_head_dim=8,
           qk_rope_head_dim=4, v_head_dim=6, moe_intermediate_size=20, num_local_experts=4, num_experts_per_tok=2, n_group=2,
           topk_group=1, n_shared_experts=2, linear_head_dim=6, linear_num_heads=3, linear_conv_kernel_dim=3,
           layer_types=["full_attention", "linear_attention"], mlp_layer_types=["sparse", "dense"]),
]


def randomise(model, generator):
    """Weights of size fan_in^-1/2, norms around their identity, biases of 0.2, decays of a usual size: every parameter
    matters for the logits."""
    seen = set()
    for name, p in list(model.named_parameters()) + [b for b in model.named_buffers() if "correction_bias" in b[0]]:
        if p.data_ptr() in seen:
            continue
        seen.add(p.data_ptr())
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
        last = name.split(".")[-1]
        if last == "A_log" or ("conv" in name and p.dim() == 3):
            p.data.copy_(0.5 * noise)
        elif "correction_bias" in name:
            p.data.copy_(0.1 * noise)
        elif last.endswith("bias") or last == "recurrent_param":
            p.data.copy_(0.2 * noise)
        elif p.dim() >= 2:
            p.data.copy_(noise * p.shape[-1] ** -0.5)
        else:
            p.data.copy_(p.data.mean().round() + 0.2 * noise)


def greedy(model, prompt):
    """The ids after `prompt` and the smallest margin met."""
    ids, margin = prompt.clone(), float("inf")
    for _ in range(GREEDY):
        logits = model(input_ids=ids, use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2).values
        margin = min(margin, float(best[0] - best[1]))
        ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
    return ids, margin


def make(family, first_seed, settings, folder):
    config = AutoConfig.for_model(family, **copy.deepcopy(settings))  # it changes what it is given
    config._attn_implementation = "eager"
    for seed in range(first_seed, first_seed + 100):
        generator = torch.Generator().manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        randomise(model, generator)
        ids = torch.randint(1, VOCAB, (ROWS, LENGTH), generator=generator)
        generated, margin = greedy(model, ids[:1, :PROMPT])
        if margin > SMALLEST_MARGIN:
            break
    else:
        raise SystemExit(f"{family}: no seed gives a greedy margin above {SMALLEST_MARGIN}")

    out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    golden = {"input_ids": ids.to(torch.int32), "logits": out.logits, "generated_ids": generated.to(torch.int32)}
    for i, h in enumerate(out.hidden_states):
        golden[f"hidden.{i}"] = h

    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    extra = os.path.join(folder, "generation_config.json")
    if os.path.exists(extra):
        os.remove(extra)
    save_file({k: v.detach().contiguous().clone() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    print(f"{folder}: seed {seed}, smallest greedy margin {margin:.3g}, "
          f"logits RMS {float(out.logits.pow(2).mean().sqrt()):.3f}")


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with torch.no_grad():
        for name, family, seed, settings in VARIANTS:
            if len(sys.argv) == 2 or name in sys.argv[2:]:
                make(family, seed, settings, os.path.join(sys.argv[1], name))


if __name__ == "__main__":
    main()
