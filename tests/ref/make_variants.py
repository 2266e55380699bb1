#!/usr/bin/env python3
"""Tiny random checkpoints of every decoder family in the forms that its plain fixture does not have, with golden values of
transformers: head sizes that are not width / heads, rotary scalings, windows shorter than the text, layers of several kinds,
biases, q/k norms, multipliers, routers.

    python3 tests/ref/make_variants.py OUT [NAME...]

writes OUT/<family>__<variant>/{config.json,model.safetensors,golden.safetensors} in the layout of tests/data/families (see
make_families.py). Needs torch, safetensors and transformers 5; float32, eager attention, CPU. Seeds are fixed.
"""
import json
import os
import sys
import zlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

ROWS, LENGTH, PROMPT, GREEDY, VOCAB = 2, 32, 16, 8, 48
SMALLEST_MARGIN = 1e-3  # between the two largest logits of a greedy step, so that rounding cannot change the choice

COMMON = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=0, pad_token_id=0,
              tie_word_embeddings=False)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
BOTH = ["sliding_attention", "full_attention"]
MAMBA = dict(mamba_n_heads=6, mamba_d_head=8, mamba_d_state=8, mamba_expand=2, mamba_d_conv=4, mamba_chunk_size=8)
DELTA = dict(layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=4,
             linear_key_head_dim=6, linear_value_head_dim=10, linear_conv_kernel_dim=4)
MOE = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12)
LONG = [1.0 + 0.3 * i for i in range(3)]

VARIANTS = {
    # head size is not width / heads
    **{f"{f}__headdim": (f, dict(head_dim=10, rope_parameters=ROPE)) for f in
       ("ministral", "gemma", "olmo", "olmo2", "smollm3", "granite", "starcoder2", "cohere", "mixtral",
        "seed_oss", "phi3")},
    "gemma2__headdim": ("gemma2", dict(head_dim=10, query_pre_attn_scalar=24, sliding_window=8, layer_types=BOTH,
                                       rope_parameters=ROPE)),
    "glm4__headdim": ("glm4", dict(head_dim=12, partial_rotary_factor=0.5, attention_bias=True)),
    "nemotron__headdim": ("nemotron", dict(head_dim=12, partial_rotary_factor=0.5, attention_bias=True, mlp_bias=True)),
    "gpt_oss__headdim": ("gpt_oss", dict(head_dim=10, sliding_window=8, layer_types=BOTH, num_local_experts=5,
                                         num_experts_per_tok=3, rope_parameters=dict(
                                             rope_type="yarn", rope_theta=150000.0, factor=8.0, beta_fast=32.0,
                                             beta_slow=1.0, truncate=False, original_max_position_embeddings=16))),
    # rotary scaling
    "llama__linear": ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.5))),
    "llama__dynamic": ("llama", dict(max_position_embeddings=12, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, factor=3.0))),
    "llama__yarn": ("llama", dict(head_dim=16, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32))),
    "qwen3__yarn": ("qwen3", dict(head_dim=16, rope_parameters=dict(
        rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=64, beta_fast=16.0,
        beta_slow=2.0, attention_factor=1.2))),
    "phi3__longrope_short": ("phi3", dict(original_max_position_embeddings=64, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.4], long_factor=LONG,
        original_max_position_embeddings=64, factor=2.0))),
    "phi3__longrope_long": ("phi3", dict(original_max_position_embeddings=20, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.4], long_factor=LONG,
        original_max_position_embeddings=20, factor=6.4))),
    # windows shorter than the text, layers of both kinds
    "ministral__window": ("ministral", dict(head_dim=6, sliding_window=8, layer_types=["sliding_attention"] * 2,
                                            rope_parameters=ROPE)),
    "starcoder2__window": ("starcoder2", dict(sliding_window=8, use_bias=False, rope_parameters=ROPE)),
    "phi3__window": ("phi3", dict(sliding_window=8, rope_parameters=dict(ROPE, partial_rotary_factor=0.5),
                                  original_max_position_embeddings=128, hidden_size=32)),
    "gemma3_text__both": ("gemma3_text", dict(head_dim=10, num_hidden_layers=3, sliding_window=8, query_pre_attn_scalar=20,
                                              layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                              rope_parameters=dict(
                                                  full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
                                                  sliding_attention=ROPE))),
    "olmo3__both": ("olmo3", dict(num_hidden_layers=3, sliding_window=8, head_dim=16,
                                  layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                  rope_parameters=dict(
                                      full_attention=dict(rope_type="yarn", rope_theta=500000.0, factor=8.0,
                                                          original_max_position_embeddings=16, attention_factor=1.2,
                                                          beta_fast=32.0, beta_slow=1.0),
                                      sliding_attention=dict(rope_type="default", rope_theta=500000.0)))),
    "exaone4__both": ("exaone4", dict(head_dim=10, num_hidden_layers=3, sliding_window=8,
                                      layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                      rope_parameters=ROPE)),
    # biases, norms, topologies
    "seed_oss__biases": ("seed_oss", dict(head_dim=6, attention_bias=True, attention_out_bias=True, mlp_bias=True)),
    "llama__biases": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "cohere__qk_norm": ("cohere", dict(use_qk_norm=True, attention_bias=True, logit_scale=0.25, tie_word_embeddings=True)),
    "stablelm__qk_norm": ("stablelm", dict(qk_layernorm=True, use_qkv_bias=True, use_parallel_residual=True,
                                           partial_rotary_factor=0.5, hidden_size=32)),
    "stablelm__bias": ("stablelm", dict(use_qkv_bias=True, partial_rotary_factor=0.5, hidden_size=32)),
    "phi__qk_norm": ("phi", dict(qk_layernorm=True, partial_rotary_factor=0.5, hidden_size=32)),
    "olmo__clip": ("olmo", dict(clip_qkv=0.8, attention_bias=False)),
    "falcon__new": ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2, bias=True, ffn_hidden_size=40)),
    "falcon__one_norm": ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1)),
    "falcon__serial": ("falcon", dict(new_decoder_architecture=False, multi_query=False, parallel_attn=False, bias=True)),
    "gpt_neox__serial": ("gpt_neox", dict(use_parallel_residual=False, rotary_pct=0.5, attention_bias=False,
                                          hidden_size=32)),
    "gpt2__scaled": ("gpt2", dict(n_embd=24, n_head=4, n_layer=2, n_positions=64, n_inner=40,
                                  scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=True)),
    "opt__post": ("opt", dict(do_layer_norm_before=False, word_embed_proj_dim=16, ffn_dim=40, tie_word_embeddings=True)),
    "granite__scales": ("granite", dict(attention_multiplier=0.3, embedding_multiplier=2.0, logits_scaling=4.0,
                                        residual_multiplier=0.4, attention_bias=True, mlp_bias=True,
                                        tie_word_embeddings=True)),
    "smollm3__nope": ("smollm3", dict(num_hidden_layers=4, no_rope_layers=[1, 1, 0, 1], use_sliding_window=True,
                                      sliding_window=8, layer_types=BOTH * 2)),
    # the worked example of docs/adding.md
    "cohere2": ("cohere2", dict(sliding_window=8, layer_types=BOTH, logit_scale=0.25, tie_word_embeddings=True,
                                rope_parameters=ROPE)),
    # experts
    "qwen3_moe__headdim": ("qwen3_moe", dict(**MOE, head_dim=10)),
    "qwen3_moe__some": ("qwen3_moe", dict(**MOE, num_hidden_layers=3, mlp_only_layers=[1], norm_topk_prob=False, head_dim=10,
                                          attention_bias=True)),
    "mixtral__window": ("mixtral", dict(num_local_experts=5, num_experts_per_tok=3, sliding_window=8)),
    "deepseek_v3__bias": ("deepseek_v3", dict(
        num_key_value_heads=4, n_routed_experts=12, n_group=4, topk_group=2, num_experts_per_tok=3, n_shared_experts=2,
        moe_intermediate_size=12, routed_scaling_factor=1.7, first_k_dense_replace=1, num_hidden_layers=3, q_lora_rank=None,
        kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=10, norm_topk_prob=True)),
    "deepseek_v3__yarn": ("deepseek_v3", dict(
        num_key_value_heads=4, n_routed_experts=6, n_group=1, topk_group=1, num_experts_per_tok=2, n_shared_experts=1,
        moe_intermediate_size=12, first_k_dense_replace=1, q_lora_rank=14, kv_lora_rank=12, qk_nope_head_dim=6,
        qk_rope_head_dim=8, v_head_dim=6, attention_bias=True, rope_interleave=False, norm_topk_prob=False,
        rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, mscale=1.0, mscale_all_dim=0.7,
                             original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0))),
    # hybrids
    "qwen3_5_text__shapes": ("qwen3_5_text", dict(**DELTA, head_dim=8, rope_parameters=dict(
        ROPE, partial_rotary_factor=0.5, mrope_section=[1, 1, 0], mrope_interleaved=True), tie_word_embeddings=True)),
    "qwen3_5_moe_text__experts": ("qwen3_5_moe_text", dict(**DELTA, **MOE, head_dim=8, shared_expert_intermediate_size=16,
                                                           rope_parameters=dict(ROPE, partial_rotary_factor=0.5,
                                                                                mrope_section=[1, 1, 0],
                                                                                mrope_interleaved=True))),
    "qwen3_next__shapes": ("qwen3_next", dict(**DELTA, **MOE, head_dim=8, shared_expert_intermediate_size=16,
                                              partial_rotary_factor=0.5, mlp_only_layers=[0])),
    "olmo_hybrid__shapes": ("olmo_hybrid", dict(**DELTA, linear_allow_neg_eigval=True)),
    "granitemoehybrid__experts": ("granitemoehybrid", dict(
        MAMBA, layer_types=["mamba", "attention", "mamba"], num_hidden_layers=3, num_local_experts=5, num_experts_per_tok=2,
        shared_intermediate_size=20, position_embedding_type="rope", attention_bias=True, mamba_n_groups=2,
        embedding_multiplier=2.0, attention_multiplier=0.4, residual_multiplier=0.5, logits_scaling=3.0)),
    "falcon_h1__multipliers": ("falcon_h1", dict(
        MAMBA, mamba_d_ssm=48, head_dim=10, mamba_n_groups=2, mamba_rms_norm=True, mamba_norm_before_gate=False,
        attention_bias=True, projectors_bias=True, mlp_bias=True, mamba_proj_bias=True, attention_in_multiplier=0.7,
        attention_out_multiplier=0.9, key_multiplier=0.6, embedding_multiplier=2.0, lm_head_multiplier=0.5,
        mlp_multipliers=[0.8, 0.6], ssm_in_multiplier=1.2, ssm_out_multiplier=0.7,
        ssm_multipliers=[0.4, 0.5, 0.6, 0.7, 0.8])),
    "bamba__groups": ("bamba", dict(MAMBA, mamba_n_groups=2, attn_layer_indices=[1], partial_rotary_factor=0.5,
                                    hidden_size=24, num_key_value_heads=2, mlp_bias=True, mamba_proj_bias=True)),
    "mamba2__groups": ("mamba2", dict(num_heads=6, head_dim=8, state_size=8, n_groups=2, expand=2, conv_kernel=3,
                                      chunk_size=8, use_bias=True)),
    "jamba__experts": ("jamba", dict(num_hidden_layers=3, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
                                     expert_layer_offset=0, num_experts=4, num_experts_per_tok=2, mamba_d_state=6,
                                     mamba_dt_rank=5, mamba_expand=2, use_mamba_kernels=False, mamba_proj_bias=True)),
    "lfm2__bias": ("lfm2", dict(num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], conv_bias=True,
                                conv_L_cache=4, block_auto_adjust_ff_dim=True, block_multiple_of=8)),
    "minimax__factors": ("minimax", dict(layer_types=["linear_attention", "full_attention"], num_local_experts=3,
                                         num_experts_per_tok=2, head_dim=10, block_size=8, full_attn_alpha_factor=3.5,
                                         full_attn_beta_factor=0.9, linear_attn_alpha_factor=2.5,
                                         linear_attn_beta_factor=1.1, mlp_alpha_factor=3.0, mlp_beta_factor=0.8)),
    "kimi_linear__experts": ("kimi_linear", dict(
        num_hidden_layers=3, num_key_value_heads=4, layer_types=["linear_attention", "full_attention", "linear_attention"],
        mlp_layer_types=["dense", "sparse", "sparse"], num_experts=6, num_experts_per_token=2, moe_intermediate_size=12,
        num_shared_experts=1, num_expert_group=2, topk_group=1, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4,
        v_head_dim=10, linear_num_heads=3, linear_head_dim=10, linear_conv_kernel_dim=4)),
    "recurrent_gemma__blocks": ("recurrent_gemma", dict(num_hidden_layers=3, block_types=["recurrent", "attention", "recurrent"],
                                                        num_key_value_heads=1, attention_window_size=8, lru_width=32,
                                                        tie_word_embeddings=True, logits_soft_cap=20.0)),
}


def value_of(name, p, generator):
    """Weights of size fan_in^-1/2, norms around 1, biases of 0.2, decays and time steps of a usual size: every parameter
    matters for the logits."""
    noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
    if name.endswith(("A_log", "dt_bias", "recurrent_param")):
        return 0.5 * noise
    if name.endswith("e_score_correction_bias"):
        return 0.3 * noise
    if "bias" in name.rsplit(".", 1)[-1]:
        return 0.2 * noise
    if "experts" in name and p.dim() == 3 and name.endswith(("gate_up_proj", "down_proj")):
        return noise * (p.shape[1] if "gpt_oss" in FAMILY else p.shape[2]) ** -0.5
    if p.dim() >= 2:
        return noise * p.shape[-1] ** -0.5
    return 1 + 0.2 * noise


FAMILY = ""


def greedy(model, prompt):
    ids, margin = prompt.clone(), float("inf")
    for _ in range(GREEDY):
        logits = model(input_ids=ids, use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2).values
        margin = min(margin, float(best[0] - best[1]))
        ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
    return ids, margin


def make(name, family, settings, folder):
    global FAMILY
    FAMILY = family
    config = AutoConfig.for_model(family, **{**COMMON, **settings})
    config._attn_implementation = "eager"
    for seed in range(100):
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) % 100000 + seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        seen = set()
        named = list(model.named_parameters()) + [b for b in model.named_buffers() if b[0].endswith("e_score_correction_bias")]
        for key, p in named:
            if p.data_ptr() not in seen:
                seen.add(p.data_ptr())
                p.data.copy_(value_of(key, p, generator))
        ids = torch.randint(1, VOCAB, (ROWS, LENGTH), generator=generator)
        generated, margin = greedy(model, ids[:1, :PROMPT])
        if margin > SMALLEST_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a greedy margin above {SMALLEST_MARGIN}")
    out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    golden = {"input_ids": ids.to(torch.int32), "logits": out.logits, "generated_ids": generated.to(torch.int32)}
    for i, h in enumerate(out.hidden_states or ()):
        golden[f"hidden.{i}"] = h
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    extra = os.path.join(folder, "generation_config.json")
    if os.path.exists(extra):
        os.remove(extra)
    save_file({k: v.detach().contiguous().clone() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: margin {margin:.3g}, logits RMS {float(out.logits.pow(2).mean().sqrt()):.3f}, "
          f"{len(out.hidden_states or ())} hidden states, {size // 1024} KiB")


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    wanted = sys.argv[2:] or list(VARIANTS)
    with torch.no_grad():
        for name in wanted:
            family, settings = VARIANTS[name]
            try:
                make(name, family, settings, os.path.join(sys.argv[1], name))
            except Exception as e:  # one family's fault should not hide those of the others
                print(f"{name}: FAILED {type(e).__name__}: {str(e)[:300]}")


if __name__ == "__main__":
    main()
