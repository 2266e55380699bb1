"""What make_gguf_models.py needs for hybrids: the keys and the changes of tensors that llama.cpp's converter has for Qwen3.5 and
Granite 4 hybrids, but that rotary positions of a Granite hybrid are said as they are (the converter turns them off)."""
import re

import numpy as np

ARCHS = {"qwen3_5_text": "qwen35", "qwen3_5_moe_text": "qwen35moe", "granitemoehybrid": "granitehybrid"}
FLOAT = ("ssm_conv1d.weight", "ssm_a", "ssm_d", "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")


def stays_float(name):
    return name.endswith(FLOAT)


def recurrent(c):
    return [kind in ("mamba", "linear_attention") for kind in c["layer_types"]]


def qwen(w, c, dim):
    rope = c["rope_parameters"]
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_rope_dimension_count(int(dim * rope["partial_rotary_factor"]))
    w.add_rope_dimension_sections((rope.get("mrope_section", [1, 2, 1]) + [0])[:4])  # pairs 0 to 2 have a section
    w.add_ssm_conv_kernel(c["linear_conv_kernel_dim"])
    w.add_ssm_state_size(c["linear_key_head_dim"])
    w.add_ssm_group_count(c["linear_num_key_heads"])
    w.add_ssm_time_step_rank(c["linear_num_value_heads"])
    w.add_ssm_inner_size(c["linear_value_head_dim"] * c["linear_num_value_heads"])
    w.add_array("%s.attention.recurrent_layers" % w.arch, recurrent(c))
    w.add_full_attention_interval(c["layer_types"].index("full_attention") + 1)
    if "num_experts" in c:
        w.add_expert_count(c["num_experts"])
        w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])
        w.add_expert_shared_feed_forward_length(c["shared_expert_intermediate_size"])


def granite(w, c, dim, divisors):
    rope = c["rope_parameters"]
    w.add_head_count_kv([0 if r else c["num_key_value_heads"] for r in recurrent(c)])
    w.add_rope_dimension_count(dim)
    w.add_rope_scaling_finetuned(c["position_embedding_type"] == "rope")
    if rope["rope_type"] == "llama3":
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        w.add_tensor("rope_freqs.weight", divisors(rope, dim))
    w.add_attention_scale(c["attention_multiplier"])
    w.add_embedding_scale(c["embedding_multiplier"])
    w.add_residual_scale(c["residual_multiplier"])
    w.add_logit_scale(c["logits_scaling"])
    w.add_ssm_conv_kernel(c["mamba_d_conv"])
    w.add_ssm_state_size(c["mamba_d_state"])
    w.add_ssm_group_count(c["mamba_n_groups"])
    w.add_ssm_inner_size(c["mamba_expand"] * c["hidden_size"])
    w.add_ssm_time_step_rank(c["mamba_n_heads"])
    if c["num_local_experts"]:
        w.add_expert_count(c["num_local_experts"])
        w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_shared_feed_forward_length(c["shared_intermediate_size"])


def settings(w, c, divisors):
    heads = c["num_attention_heads"]
    dim = c.get("head_dim") or c["hidden_size"] // heads
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_parameters"]["rope_theta"])
    w.add_vocab_size(c["vocab_size"])
    w.add_bos_token_id(c["bos_token_id"])
    w.add_eos_token_id(c["eos_token_id"])
    if c["model_type"] == "granitemoehybrid":
        granite(w, c, dim, divisors)
    else:
        qwen(w, c, dim)
    return heads, c["num_key_value_heads"], dim


def tiled(x, keys, group, size, axis=0):
    """Value heads of one key head side by side -> the first of each key head, then the second of each"""
    shape = x.shape
    x = x.reshape(*shape[:axis], keys, group, size, *shape[axis + 1:])
    return x.swapaxes(axis, axis + 1).reshape(shape)


def deltanet(c, name, x):
    keys, group = c["linear_num_key_heads"], c["linear_num_value_heads"] // c["linear_num_key_heads"]
    size, before = c["linear_value_head_dim"], 2 * keys * c["linear_key_head_dim"]
    part = name.split("linear_attn.")[1]
    if part == "in_proj_qkv.weight":
        return name, np.concatenate([x[:before], tiled(x[before:], keys, group, size)])
    if part == "in_proj_z.weight":
        return name, tiled(x, keys, group, size)
    if part in ("in_proj_a.weight", "in_proj_b.weight"):
        return name, tiled(x, keys, group, 1)
    if part == "A_log":
        return name, -np.exp(tiled(x, keys, group, 1))
    if part == "dt_bias":
        return name.replace("dt_bias", "dt_proj.bias"), tiled(x, keys, group, 1)
    if part == "conv1d.weight":
        x = x[:, 0]
        return name, np.concatenate([x[:before], tiled(x[before:], keys, group, size)])
    if part == "out_proj.weight":
        return name, tiled(x, keys, group, size, axis=1)
    assert part == "norm.weight"
    return name, x


def mamba2(c, name, x):
    part = name.split("mamba.")[1]
    if part == "A_log":
        return name, -np.exp(x)[:, None]
    if part == "D":
        return name, x[:, None]
    if part == "dt_bias":
        return name.replace("dt_bias", "dt_proj.bias"), x
    if part == "conv1d.weight":
        return name, x[:, 0]
    if part == "norm.weight":
        return name, x.reshape(c["mamba_n_groups"], -1)
    return name, x


def stacked(source):
    """Experts with names of their own become one tensor"""
    experts = {}
    for name, x in source:
        found = re.fullmatch(r"(.*mlp\.experts)\.(\d+)(\..*)", name)
        if found:
            experts.setdefault(found[1] + found[3], {})[int(found[2])] = x
        else:
            yield name, x
    for name, parts in experts.items():
        yield name, np.stack([parts[i] for i in range(len(parts))])


def convert(c, arch, name, x, in_pairs):
    """Name and values for the gguf package's own table of names, one or more"""
    if name.endswith("block_sparse_moe.input_linear.weight"):
        at = name.replace("block_sparse_moe.input_linear", "mlp.experts.%s_proj")
        yield at % "gate", x[:, :x.shape[1] // 2]
        yield at % "up", x[:, x.shape[1] // 2:]
    elif "shared_mlp." in name:
        to = "mlp.shared_expert" if c["num_local_experts"] else "mlp"
        at = name[:name.index("shared_mlp.")] + to
        if "output_linear" in name:
            yield at + ".down_proj.weight", x
        else:
            yield at + ".gate_proj.weight", x[:x.shape[0] // 2]
            yield at + ".up_proj.weight", x[x.shape[0] // 2:]
    elif "linear_attn." in name:
        yield deltanet(c, name, x)
    elif ".mamba." in name:
        yield mamba2(c, name, x)
    elif arch == "granitehybrid" and ".q_proj." in name:
        yield name, in_pairs(x, c["num_attention_heads"])
    elif arch == "granitehybrid" and ".k_proj." in name:
        yield name, in_pairs(x, c["num_key_value_heads"])
    elif arch != "granitehybrid" and name.endswith("norm.weight"):
        yield name, x + 1
    else:
        yield name, x
