#!/usr/bin/env python3
"""An HF checkpoint as GGUF, with the names, keys and quantisers of the `gguf` package (0.19) and the order of rows that llama.cpp's
converter gives to q and k of "llama"; hybrids with that converter's values, too (make_gguf_hybrids.py).
   make_gguf_models.py                      the test files tests/data/gguf/models/<family>.gguf; run from the root of the repository
   make_gguf_models.py SOURCE OUT [TYPE]    any directory of FAMILIES' kinds; TYPE: F32 (default), F16, Q8_0, ..."""
import json
import math
import os
import sys
from glob import glob

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map, quants
from safetensors import safe_open

import make_gguf_hybrids as hybrids

FAMILIES = ["llama__rope3_untied_bias", "qwen2__headdim", "qwen3", "gpt2", "qwen3_5_text", "qwen3_5_moe_text__experts",
            "granitemoehybrid", "granitemoehybrid__rope"]


def tensors(folder):
    import torch
    for path in sorted(glob(os.path.join(folder, "model*.safetensors"))):
        with safe_open(path, "pt") as f:
            for name in f.keys():
                yield name, f.get_tensor(name).to(torch.float32).numpy()


def in_pairs(x, heads):
    """Rows of halves (j, j + d/2) of each head to neighbours (2j, 2j + 1)"""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def llama3_divisors(rope, dim):
    out = []
    for i in range(dim // 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (2 * i / dim)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        ratio = rope["original_max_position_embeddings"] / wave
        if ratio > high:
            out.append(1)
        elif ratio < low:
            out.append(rope["factor"])
        else:
            smooth = (ratio - low) / (high - low)
            out.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def settings(w, c):
    gpt2 = c["model_type"] == "gpt2"
    width, heads = c["n_embd" if gpt2 else "hidden_size"], c["n_head" if gpt2 else "num_attention_heads"]
    w.add_block_count(c["n_layer" if gpt2 else "num_hidden_layers"])
    w.add_context_length(c["n_positions" if gpt2 else "max_position_embeddings"])
    w.add_embedding_length(width)
    w.add_feed_forward_length((c["n_inner"] or 4 * width) if gpt2 else c["intermediate_size"])
    w.add_head_count(heads)
    w.add_vocab_size(c["vocab_size"])
    if c.get("bos_token_id") is not None:
        w.add_bos_token_id(c["bos_token_id"])
    if c.get("eos_token_id") is not None:
        w.add_eos_token_id(c["eos_token_id"])
    if gpt2:
        w.add_layer_norm_eps(c["layer_norm_epsilon"])
        return heads, heads, width // heads
    dim = c.get("head_dim") or width // heads
    rope = c.get("rope_parameters") or {"rope_theta": c.get("rope_theta", 10000.0)}
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_dimension_count(dim)
    w.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "llama3":
        if rope["original_max_position_embeddings"] != 8192:
            w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        w.add_tensor("rope_freqs.weight", llama3_divisors(rope, dim))
    return heads, c["num_key_value_heads"], dim


def vocabulary(w, folder, pre):
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        return
    t = json.load(open(path, encoding="utf-8"))
    assert t["model"]["type"] == "BPE"
    added = {a["id"]: a for a in t["added_tokens"]}
    words = {i: text for text, i in t["model"]["vocab"].items()} | {i: a["content"] for i, a in added.items()}
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([words[i] for i in range(len(words))])
    w.add_token_types([(3 if added[i]["special"] else 4) if i in added else 1 for i in range(len(words))])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]])
    w.add_add_bos_token(False)


def letters(w, count):
    """The visible ASCII characters, a blank and a line feed, as byte-level tokens without a merge"""
    words = [chr(33 + i) for i in range(94)] + ["\u0120", "\u010a"]
    assert len(words) == count
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(words)
    w.add_token_types([1] * count)


def convert(folder, out, kind="F32", pre="qwen2", with_letters=False, bare=False):
    """`bare`: says that there is no vocabulary, without which llama.cpp takes no file"""
    c = json.load(open(os.path.join(folder, "config.json")))
    kind, arch = GGMLQuantizationType[kind], hybrids.ARCHS.get(c["model_type"], c["model_type"])
    names = get_tensor_name_map({v: k for k, v in MODEL_ARCH_NAMES.items()}[arch], 100)
    w = GGUFWriter(out, arch)
    hybrid = arch in hybrids.ARCHS.values()
    heads, kv_heads, dim = hybrids.settings(w, c, llama3_divisors) if hybrid else settings(w, c)
    vocabulary(w, folder, pre)
    if with_letters:
        letters(w, c["vocab_size"])
    if bare:
        w.add_tokenizer_model("none")
    source = tensors(folder)
    if hybrid:
        source = (made for name, x in hybrids.stacked(source) for made in hybrids.convert(c, arch, name, x, in_pairs))
    for name, x in source:
        if name == "lm_head.weight" and c.get("tie_word_embeddings"):
            continue
        if arch == "llama" and ".q_proj." in name:
            x = in_pairs(x, heads)
        if arch == "llama" and ".k_proj." in name:
            x = in_pairs(x, kv_heads)
        if arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            x = np.ascontiguousarray(x.T)
        if arch == "gpt2" and name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        t = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert t, f"{arch} has no tensor for {name}"
        this = kind if x.ndim > 1 and not hybrids.stays_float(t) else GGMLQuantizationType.F32
        w.add_tensor(t, quants.quantize(x, this), raw_dtype=this)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        convert(*sys.argv[1:4])
    else:
        for family in FAMILIES:
            if os.path.isdir("tests/data/families/" + family):
                convert("tests/data/families/" + family, f"tests/data/gguf/models/{family}.gguf", with_letters=family == "qwen3")
