#!/usr/bin/env python3
"""Models of flash-linear-attention (fla), read and written by tegu.

    check_fla.py make DIR [OUT]       random models and exports of hybrids into DIR, each with the logits that tegu computes
    check_fla.py naive DIR            held against fla's published equations, written out here in float64
    check_fla.py names DIR            against the parameters of fla's own classes (CPU is enough)
    check_fla.py fla DIR [DEVICE]     against fla itself: one pass, and decoding through its cache; float32, DEVICE is cuda
    check_fla.py [OUT]                make, naive, and names if fla is installed, in a scratch folder

OUT is the build folder. make needs numpy and safetensors, naive torch besides, names and fla also transformers, fla-core, flash-linear-attention,
einops and triton. fla asks for flash-attn, which has no float32: a stand-in of plain softmax takes its place. Run make from the root of the
repository."""
import importlib.machinery
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import types

import numpy as np
from safetensors.numpy import load_file, save_file

LENGTHS = {"short": 41, "long": 150}  # fla has kernels of their own up to 64 tokens
passed = failed = 0


def check(what, good, seen=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print("ok    " if good else "FAILED", what, seen, flush=True)


def distance(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return math.sqrt(np.mean((got - want) ** 2) / np.mean(want**2))


FRAME = dict(vocab_size=97, hidden_size=64, intermediate_size=80, num_hidden_layers=3, norm_eps=1e-5, hidden_act="swish",
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, dtype="float32")
ATTN = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "qkv_bias": True, "window_size": None, "rope_theta": 500000.0}
ARCHITECTURES = dict(gla="GLA", delta_net="DeltaNet", gated_deltanet="GatedDeltaNet", kda="KDA", hgrn2="HGRN2", retnet="RetNet",
                     linear_attn="LinearAttention")
# fla's own models
MODELS = {
    "gla": dict(model_type="gla", num_heads=4, num_kv_heads=2, expand_k=1.0),
    "gla_attn": dict(model_type="gla", num_heads=2, expand_k=0.5, tie_word_embeddings=True,
                     attn=[ATTN, dict(ATTN, layers=[2], window_size=9, qkv_bias=False, rope_theta=10000.0)]),
    "delta_net": dict(model_type="delta_net", num_heads=4, attn=ATTN),
    "delta_net_neg": dict(model_type="delta_net", num_heads=2, expand_k=0.5, conv_size=3, allow_neg_eigval=True),
    "gated_deltanet": dict(model_type="gated_deltanet", head_dim=16, num_heads=3, expand_v=2.0, attn=ATTN),
    "gated_deltanet_gva": dict(model_type="gated_deltanet", head_dim=16, num_heads=2, num_v_heads=4, expand_v=1.0, conv_size=2,
                               allow_neg_eigval=True),
    "kda": dict(model_type="kda", head_dim=16, num_heads=4, attn=ATTN),
    "kda_gva": dict(model_type="kda", head_dim=16, num_heads=2, num_v_heads=4, expand_v=2.0),
    "hgrn2": dict(model_type="hgrn2", expand_ratio=16, num_heads=4, use_lower_bound=False, attn=ATTN),
    "retnet": dict(model_type="retnet", num_heads=4, expand_v=2.0, attn=ATTN),
    "linear_elu": dict(model_type="linear_attn", num_heads=4, num_kv_heads=2, feature_map="elu", attn=ATTN),
    "linear_relu": dict(model_type="linear_attn", num_heads=4, feature_map="relu", expand_v=2.0),
    "linear_identity": dict(model_type="linear_attn", num_heads=4, feature_map="identity"),
}
# hybrids of a teacher, exported; every second layer keeps its softmax
LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=97, hidden_size=64, intermediate_size=80, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=512, bos_token_id=1,
             eos_token_id=2, tie_word_embeddings=False, hidden_act="silu", dtype="float32")
HYBRIDS = ["gated_deltanet,rotary=false", "kda,rotary=false", "deltanet,rotary=false", "gla,rotary=false", "gla,rotary=false,kv=shared",
           "hgrn2,rotary=false,lower_bound=false", "retnet", "linear,rotary=false,normalise=false,feature_map=elu1"]


def rng_of(name):
    return np.random.default_rng(list(name.encode()))


def noise(rng, name, shape):
    x = rng.standard_normal(shape)
    last = name.split(".")[-1]
    if last == "A_log":
        x *= 0.5
    elif last in ("dt_bias", "bias"):
        x *= 0.3
    elif "norm" in name:
        x = 1 + 0.2 * x
    elif "conv1d" in name or "embed" in name:
        x *= 0.5
    else:
        x *= shape[-1] ** -0.5
    return x.astype(np.float32)


def attention_of(config):
    """Layer -> its entry of attn"""
    attn = config.get("attn") or []
    return {i: spec for spec in ([attn] if isinstance(attn, dict) else attn) for i in spec["layers"]}


def sizes(c):
    """heads, kv heads, value heads, key size, value size of the linear layers"""
    D, kind = c["hidden_size"], c["model_type"]
    if kind in ("gated_deltanet", "kda"):
        H = c["num_heads"]
        return H, H, c.get("num_v_heads") or H, c["head_dim"], int(c["head_dim"] * c.get("expand_v", 2.0 if kind == "gated_deltanet" else 1.0))
    if kind == "hgrn2":
        H = D // c["expand_ratio"]
        return H, H, H, c["expand_ratio"], D // H
    H = c["num_heads"]
    G = c.get("num_kv_heads") or H
    K = round(D * c.get("expand_k", 0.5 if kind == "gla" else 1.0)) // H
    return H, G, G, K, round(D * c.get("expand_v", 2.0 if kind == "retnet" else 1.0)) // H


def shapes_linear(c):
    D, kind = c["hidden_size"], c["model_type"]
    H, G, S, K, V = sizes(c)
    out = max(H, S) * V
    s = {"q_proj.weight": (H * K, D), "o_proj.weight": (D, out)}
    if kind == "hgrn2":
        return s | {"f_proj.weight": (H * K, D), "i_proj.weight": (H * V, D), "g_norm.weight": (D,)}
    s |= {"k_proj.weight": (G * K, D), "v_proj.weight": (S * V, D)}
    if kind in ("gla", "retnet"):
        s |= {"g_proj.weight": (out, D), "g_norm_swish_gate.weight": (V,)}
    if kind == "gla":
        s |= {"gk_proj.0.weight": (16, D), "gk_proj.1.weight": (G * K, 16), "gk_proj.1.bias": (G * K,)}
    if kind == "linear_attn":
        s |= {"norm.weight": (V,)}
    if kind in ("delta_net", "gated_deltanet", "kda"):
        taps = c.get("conv_size", 4)
        s |= {"b_proj.weight": (S, D), "o_norm.weight": (V,), "q_conv1d.weight": (H * K, 1, taps), "k_conv1d.weight": (G * K, 1, taps),
              "v_conv1d.weight": (S * V, 1, taps)}
    if kind == "gated_deltanet":
        s |= {"a_proj.weight": (S, D), "A_log": (S,), "dt_bias": (S,), "g_proj.weight": (out, D)}
    if kind == "kda":
        s |= {"f_proj.0.weight": (V, D), "f_proj.1.weight": (S * K, V), "A_log": (S,), "dt_bias": (S * K,), "g_proj.0.weight": (V, D),
              "g_proj.1.weight": (out, V), "g_proj.1.bias": (out,)}
    return s


def shapes_attention(c, spec):
    D, H = c["hidden_size"], spec["num_heads"]
    kv = (spec.get("num_kv_heads") or H) * (D // H)
    s = {"q_proj.weight": (D, D), "k_proj.weight": (kv, D), "v_proj.weight": (kv, D), "o_proj.weight": (D, D)}
    if spec.get("qkv_bias"):
        s |= {"q_proj.bias": (D,), "k_proj.bias": (kv,), "v_proj.bias": (kv,)}
    return s


def shapes(c):
    D, I, N = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kept = attention_of(c)
    s = {"model.embeddings.weight": (N, D), "model.norm.weight": (D,)}
    if not c["tie_word_embeddings"]:
        s["lm_head.weight"] = (N, D)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        s |= {at + "attn_norm.weight": (D,), at + "mlp_norm.weight": (D,), at + "mlp.gate_proj.weight": (I, D), at + "mlp.up_proj.weight": (I, D),
              at + "mlp.down_proj.weight": (D, I)}
        part = shapes_attention(c, kept[i]) if i in kept else shapes_linear(c)
        s |= {at + "attn." + name: shape for name, shape in part.items()}
    return s


def shapes_llama(c):
    D, I, N, kv = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["hidden_size"] // c["num_attention_heads"] * c["num_key_value_heads"]
    s = {"model.embed_tokens.weight": (N, D), "model.norm.weight": (D,), "lm_head.weight": (N, D)}
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        s |= {at + "input_layernorm.weight": (D,), at + "post_attention_layernorm.weight": (D,), at + "mlp.gate_proj.weight": (I, D),
              at + "mlp.up_proj.weight": (I, D), at + "mlp.down_proj.weight": (D, I), at + "self_attn.q_proj.weight": (D, D),
              at + "self_attn.k_proj.weight": (kv, D), at + "self_attn.v_proj.weight": (kv, D), at + "self_attn.o_proj.weight": (D, D)}
    return s


def write_model(folder, config, tensors):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def make_golden(tegu, folder):
    """short.safetensors, long.safetensors: ids and what tegu computes of them, in one pass and token by token"""
    with open(os.path.join(folder, "config.json")) as f:
        vocab = json.load(f)["vocab_size"]
    for name, length in LENGTHS.items():
        path = os.path.join(folder, "tegu_" + name + ".safetensors")
        ids = np.random.default_rng(length).integers(0, vocab, (2, length), dtype=np.int32)
        save_file({"input_ids": ids}, path)
        subprocess.run([*tegu, "logits", folder, "--ids", path, "-o", path + ".all", "-q"], check=True)
        subprocess.run([*tegu, "logits", folder, "--ids", path, "-o", path + ".steps", "--mode", "recurrent", "-q"], check=True)
        logits, steps = load_file(path + ".all")["logits"], load_file(path + ".steps")["logits"]
        check(os.path.basename(folder) + " " + name + ": one pass and steps of tegu", distance(steps, logits) < 1e-5, distance(steps, logits))
        save_file({"input_ids": ids.astype(np.int64), "logits": logits}, path)
        os.remove(path + ".all")
        os.remove(path + ".steps")


def stir(folder, seed):
    """Noise on every parameter of a native hybrid: nothing stays at a start that would hide it"""
    path = os.path.join(folder, "model.safetensors")
    rng = np.random.default_rng(seed)
    tensors = {name: (t + 0.1 * rng.standard_normal(t.shape)).astype(np.float32) for name, t in sorted(load_file(path).items())}
    save_file(tensors, path, metadata={"format": "pt"})


def make(folder, out):
    tegu = [os.path.join(out, "tegu")]
    os.makedirs(folder, exist_ok=True)
    for name, own in MODELS.items():
        config = FRAME | own | {"architectures": [ARCHITECTURES[own["model_type"]] + "ForCausalLM"]}
        rng = rng_of(name)
        at = os.path.join(folder, name)
        write_model(at, config, {n: noise(rng, n, s) for n, s in shapes(config).items()})
        make_golden(tegu, at)
    with tempfile.TemporaryDirectory() as scratch:
        teacher, hybrid = os.path.join(scratch, "teacher"), os.path.join(scratch, "hybrid")
        rng = rng_of("teacher")
        write_model(teacher, LLAMA, {n: noise(rng, n, s) for n, s in shapes_llama(LLAMA).items()})
        for i, plan in enumerate(HYBRIDS):
            at = os.path.join(folder, "export_" + plan.replace(",", "_").replace("=", "_"))
            shutil.rmtree(at, ignore_errors=True)
            mixer, *options = plan.split(",")
            flags = [part for o in options for part in ("--" + o.split("=")[0].replace("_", "-"), o.split("=")[1])]
            subprocess.run([*tegu, "linearize", teacher, hybrid, "--mixer", mixer, *flags, "--keep", "every:2", "--dtype", "f32", "-q", "--force"],
                           check=True)
            stir(hybrid, i)
            subprocess.run([*tegu, "convert", hybrid, at, "--arch", "fla", "-q"], check=True)
            make_golden(tegu, at)
            # the native hybrid itself, on the same ids
            path = os.path.join(at, "tegu_short.safetensors")
            golden = load_file(path)
            save_file({"input_ids": golden["input_ids"].astype(np.int32)}, os.path.join(scratch, "ids.safetensors"))
            subprocess.run([*tegu, "logits", hybrid, "--ids", os.path.join(scratch, "ids.safetensors"), "-o", os.path.join(scratch, "l.safetensors"),
                            "-q", "--force"], check=True)
            seen = distance(golden["logits"], load_file(os.path.join(scratch, "l.safetensors"))["logits"])
            check(os.path.basename(at) + ": the hybrid's logits", seen < 1e-5, seen)


def models(folder):
    for name in sorted(os.listdir(folder)):
        at = os.path.join(folder, name)
        if os.path.exists(os.path.join(at, "config.json")):
            with open(os.path.join(at, "config.json")) as f:
                yield name, at, json.load(f)


# ---- the equations ----


def rms(x, w, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * w


def rotate(x, theta):
    """x [B,T,H,K], halves apart"""
    import torch
    T, K = x.shape[1], x.shape[3]
    angle = torch.arange(T, dtype=x.dtype)[:, None] * theta ** (-torch.arange(0, K, 2, dtype=x.dtype) / K)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., : K // 2], x[..., K // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def naive_attention(x, p, spec):
    import torch
    B, T, D = x.shape
    H = spec["num_heads"]
    G, K = spec.get("num_kv_heads") or H, D // H
    project = lambda n: x @ p[n + "_proj.weight"].T + (p[n + "_proj.bias"] if n + "_proj.bias" in p else 0)
    q = rotate(project("q").view(B, T, H, K), spec.get("rope_theta", 10000.0))
    k = rotate(project("k").view(B, T, G, K), spec.get("rope_theta", 10000.0)).repeat_interleave(H // G, 2)
    v = project("v").view(B, T, G, K).repeat_interleave(H // G, 2)
    ages = torch.arange(T)[:, None] - torch.arange(T)
    seen = (ages >= 0) & (ages < (spec.get("window_size") or T))
    weights = (torch.einsum("bihk,bjhk->bhij", q, k) * K**-0.5).masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("bhij,bjhv->bihv", weights, v).reshape(B, T, D) @ p["o_proj.weight"].T


def naive_linear(x, p, c):
    """State S [K,V] of a head: decayed, for the delta rule what the key finds taken out, the new value in, read by the query"""
    import torch
    from torch.nn import functional as F
    kind, eps = c["model_type"], c["norm_eps"]
    B, T, D = x.shape
    H, G, S, K, V = sizes(c)
    n = max(H, S)
    linear = lambda name: x @ p[name].T
    names = dict(q="q", k="f", v="i") if kind == "hgrn2" else dict(q="q", k="k", v="v")
    q, k, v = (linear(names[i] + "_proj.weight") for i in "qkv")
    delta = kind in ("delta_net", "gated_deltanet", "kda")
    if delta:
        def conv(y, w):
            taps = w.shape[-1]
            return F.silu(F.conv1d(F.pad(y.transpose(1, 2), (taps - 1, 0)), w, groups=w.shape[0]).transpose(1, 2))
        q, k, v = conv(q, p["q_conv1d.weight"]), conv(k, p["k_conv1d.weight"]), conv(v, p["v_conv1d.weight"])
    decay = torch.ones(B, T, n, K, dtype=x.dtype)
    if kind == "hgrn2":
        keep = torch.sigmoid(k)
        q, k, decay = F.silu(q), 1 - keep, keep.view(B, T, n, K)
    q, k, v = q.view(B, T, H, K), k.view(B, T, G, K), v.view(B, T, S, V)
    if kind == "retnet":
        q, k = rotate(q, 10000.0), rotate(k, 10000.0)
    if delta:
        q, k = (y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q, k))
    if kind == "linear_attn":
        phi = dict(elu=lambda y: F.elu(y) + 1, relu=F.relu, identity=lambda y: y)[c["feature_map"]]
        q, k = phi(q), phi(k)
    q, k, v = q.repeat_interleave(n // H, 2), k.repeat_interleave(n // G, 2), v.repeat_interleave(n // S, 2)
    if kind == "gla":
        gk = linear("gk_proj.0.weight") @ p["gk_proj.1.weight"].T + p["gk_proj.1.bias"]
        decay = torch.exp(F.logsigmoid(gk) / 16).view(B, T, G, K).repeat_interleave(n // G, 2)
    if kind == "retnet":
        decay = decay * (1 - 2.0 ** (-5 - torch.arange(n, dtype=x.dtype)))[:, None]
    if kind == "gated_deltanet":
        decay = decay * torch.exp(-p["A_log"].exp() * F.softplus(linear("a_proj.weight") + p["dt_bias"]))[..., None]
    if kind == "kda":
        f = (linear("f_proj.0.weight") @ p["f_proj.1.weight"].T + p["dt_bias"]).view(B, T, n, K)
        decay = torch.exp(-p["A_log"].exp()[:, None] * F.softplus(f))
    beta = torch.sigmoid(linear("b_proj.weight")) * (2 if c.get("allow_neg_eigval") else 1) if delta else None
    state, o = torch.zeros(B, n, K, V, dtype=x.dtype), []
    for t in range(T):
        state = state * decay[:, t, :, :, None]
        new = v[:, t]
        if delta:
            new = beta[:, t, :, None] * (new - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, :, :, None] * new[:, :, None]
        o.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]) * K**-0.5)
    o = torch.stack(o, 1)
    if kind == "hgrn2":
        return rms(o.reshape(B, T, -1), p["g_norm.weight"], 1e-5) @ p["o_proj.weight"].T
    norm = dict(gla="g_norm_swish_gate", retnet="g_norm_swish_gate", linear_attn="norm").get(kind, "o_norm")
    o = rms(o, p[norm + ".weight"], eps)
    if kind in ("gla", "retnet", "gated_deltanet"):
        o = o * F.silu(linear("g_proj.weight")).view(B, T, n, V)
    if kind == "kda":
        o = o * torch.sigmoid(linear("g_proj.0.weight") @ p["g_proj.1.weight"].T + p["g_proj.1.bias"]).view(B, T, n, V)
    return o.reshape(B, T, -1) @ p["o_proj.weight"].T


def naive_run(c, w, ids):
    """Hidden states before each layer and after the last norm, and logits"""
    from torch.nn import functional as F
    kept, eps = attention_of(c), c["norm_eps"]
    h = w["model.embeddings.weight"][ids]
    hidden = []
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        hidden.append(h)
        p = {n[len(at) + 5:]: t for n, t in w.items() if n.startswith(at + "attn.")}
        x = rms(h, w[at + "attn_norm.weight"], eps)
        h = h + (naive_attention(x, p, kept[i]) if i in kept else naive_linear(x, p, c))
        x = rms(h, w[at + "mlp_norm.weight"], eps)
        h = h + (F.silu(x @ w[at + "mlp.gate_proj.weight"].T) * (x @ w[at + "mlp.up_proj.weight"].T)) @ w[at + "mlp.down_proj.weight"].T
    hidden.append(rms(h, w["model.norm.weight"], eps))
    return hidden, hidden[-1] @ w["model.embeddings.weight" if c["tie_word_embeddings"] else "lm_head.weight"].T


def naive(folder):
    import torch
    for name, at, config in models(folder):
        weights = {n: torch.from_numpy(t).double() for n, t in load_file(os.path.join(at, "model.safetensors")).items()}
        check(name + ": names and shapes", {n: tuple(t.shape) for n, t in weights.items()} == shapes(config))
        for length in LENGTHS:
            golden = load_file(os.path.join(at, "tegu_" + length + ".safetensors"))
            seen = distance(naive_run(config, weights, torch.from_numpy(golden["input_ids"]))[1], golden["logits"])
            check(f"{name} {length}: tegu and the equations", seen < 1e-5, seen)


# ---- fla itself ----


def stand_in():
    """flash_attn_func by plain softmax: a module of the name that fla imports"""
    import torch

    def attend(q, k, v, causal=True, window_size=(-1, -1), **_):
        H, G, T, U = q.shape[2], k.shape[2], q.shape[1], k.shape[1]
        k, v = k.repeat_interleave(H // G, 2), v.repeat_interleave(H // G, 2)
        ages = torch.arange(U - T, U, device=q.device)[:, None] - torch.arange(U, device=q.device)
        seen = ages >= 0
        if window_size[0] >= 0:
            seen &= ages <= window_size[0]
        scores = torch.einsum("bihk,bjhk->bhij", q, k) * q.shape[3] ** -0.5
        return torch.einsum("bhij,bjhv->bihv", scores.masked_fill(~seen, -math.inf).softmax(-1), v)

    module = types.ModuleType("flash_attn")
    module.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
    module.flash_attn_func, module.flash_attn_varlen_func = attend, None
    sys.modules["flash_attn"] = module


def load_fla(at):
    import torch
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(at, dtype=torch.float32, output_loading_info=True)
    wrong = {what: sorted(info[what]) for what in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(what)}
    return model.eval(), wrong


def names(folder):
    stand_in()
    import fla  # registers its classes  # noqa: F401
    for name, at, config in models(folder):
        model, wrong = load_fla(at)
        check(name + ": the parameters of " + type(model).__name__, not wrong, wrong or "")
        own = {n: tuple(t.shape) for n, t in model.state_dict().items()}
        if config["tie_word_embeddings"]:
            own.pop("lm_head.weight", None)
        check(name + ": names and shapes of fla", own == shapes(config))


def run_fla(folder, device):
    import torch
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    stand_in()
    import fla
    print("fla", fla.__version__, "torch", torch.__version__, device, flush=True)
    for name, at, config in models(folder):
        model, wrong = load_fla(at)
        check(name + ": its parameters", not wrong, wrong or "")
        model = model.to(device)
        for length, limit in (("short", 1e-5), ("long", 2e-3)):  # the kernels of longer texts may multiply in TF32
            golden = load_file(os.path.join(at, "tegu_" + length + ".safetensors"))
            ids = torch.from_numpy(golden["input_ids"]).to(device)
            try:
                with torch.no_grad():
                    seen = distance(model(ids, use_cache=False).logits.float().cpu(), golden["logits"])
                    check(f"{name} {length}: one pass", seen < limit, seen)
                    if length == "long":
                        continue
                    out = model(ids[:, :7], use_cache=True)
                    steps = [out.logits]
                    for t in range(7, ids.shape[1]):
                        out = model(ids[:, t:t + 1], past_key_values=out.past_key_values, use_cache=True)
                        steps.append(out.logits)
                seen = distance(torch.cat(steps, 1).float().cpu(), golden["logits"])
                check(f"{name}: through fla's cache", seen < limit, seen)
            except Exception as e:
                if "does not support float32" in str(e):  # DeltaNet's kernel for more than 64 tokens
                    print("none  ", name, f"{length}: fla has no float32 there", flush=True)
                    continue
                check(f"{name} {length}: runs", False, f"{type(e).__name__}: {str(e)[:300]}")


def main(args):
    if args and args[0] == "make":
        make(args[1], args[2] if len(args) > 2 else "build")
    elif args and args[0] == "naive":
        naive(args[1])
    elif args and args[0] == "names":
        names(args[1])
    elif args and args[0] == "fla":
        run_fla(args[1], args[2] if len(args) > 2 else "cuda")
    else:
        with tempfile.TemporaryDirectory() as folder:
            make(folder, args[0] if args else "build")
            naive(folder)
            if importlib.util.find_spec("fla"):
                names(folder)
    print(passed, "passed,", failed, "failed")
    return failed > 0


if __name__ == "__main__":
    import importlib.util
    sys.exit(main(sys.argv[1:]))
