#!/usr/bin/env python3
"""Golden values of the recurrent layers of transformers, for tests/ops_recurrent.c.

    python3 tests/ref/make_mixers.py OUT

writes OUT/mixer_*.safetensors: the layer's input `in.x` [B,T,D], its parameters `in.*` under Tegu's canonical names, its
output `out`, a gradient `grad_out` and the gradients `grad.*`; float64, settings in the metadata. Needs torch, safetensors and transformers 5. Seeds are fixed. The modules compute in float32 where they cast.
"""
import os
import sys

import torch
from safetensors.torch import save_file

B, T, D = 2, 37, 20


def randomise(module, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
        last = name.split(".")[-1]
        if last == "A_log":
            p.data.copy_(0.5 * noise)
        elif last in ("dt_bias", "bias", "recurrent_gate_bias", "input_gate_bias", "recurrent_param"):
            p.data.copy_(0.3 * noise)
        elif "norm" in name or last == "D":
            p.data.copy_(1 + 0.2 * noise)
        elif "conv" in name:
            p.data.copy_(0.5 * noise)
        elif "gate_weight" in name:
            p.data.copy_(noise * p.shape[-1] ** -0.5)
        else:
            p.data.copy_(noise * p.shape[-1] ** -0.5)


def join(*names):
    """Rows of several tensors, one after another"""
    return lambda t: torch.cat([t[n] for n in names])


def same(name, *shape):
    return lambda t: t[name].reshape(shape) if shape else t[name]


def rows(name, index):
    return lambda t: t[name][index]


def conv(name):
    return lambda t: t[name].squeeze(1)


def write(out, name, module, run, params, settings, seed):
    module.double()
    randomise(module, seed)
    g = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(B, T, D, generator=g, dtype=torch.float64, requires_grad=True)
    y = run(x)
    dy = torch.randn(y.shape, generator=g, dtype=torch.float64)
    y.backward(dy)
    values = {n: p.detach().double() for n, p in module.named_parameters()}
    grads = {n: p.grad.double() if p.grad is not None else torch.zeros_like(p) for n, p in module.named_parameters()}
    tensors = {"in.x": x.detach(), "out": y.detach().double(), "grad_out": dy}
    for canonical, view in params.items():
        tensors["in." + canonical] = view(values)
        tensors["grad." + canonical] = view(grads)
    tensors["grad.x"] = x.grad
    tensors = {n: t.contiguous().clone() for n, t in tensors.items()}
    meta = {k: repr(float(v)) for k, v in settings.items() if k != "mixer"}
    meta["mixer"] = settings["mixer"]
    save_file(tensors, os.path.join(out, "mixer_%s.safetensors" % name), meta)


def deltanet(out):
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    G, H, K, V = 2, 6, 5, 4
    c = Qwen3NextConfig(hidden_size=D, linear_num_key_heads=G, linear_num_value_heads=H, linear_key_head_dim=K,
                        linear_value_head_dim=V, linear_conv_kernel_dim=4, rms_norm_eps=1e-3, hidden_act="silu",
                        layer_types=["linear_attention"], num_hidden_layers=1)
    m = Qwen3NextGatedDeltaNet(c, 0)
    per = H // G
    each = 2 * K + 2 * per * V
    part = lambda lo, hi: torch.cat([torch.arange(h * each + lo, h * each + hi) for h in range(G)])
    q, k = part(0, K), part(K, 2 * K)
    v, z = part(2 * K, 2 * K + per * V), part(2 * K + per * V, each)
    b = torch.cat([torch.arange(h * 2 * per, h * 2 * per + per) for h in range(G)])
    params = {
        "qkv.weight": rows("in_proj_qkvz.weight", torch.cat([q, k, v])), "z.weight": rows("in_proj_qkvz.weight", z),
        "a.weight": rows("in_proj_ba.weight", b + per), "b.weight": rows("in_proj_ba.weight", b),
        "conv.weight": conv("conv1d.weight"), "A_log": same("A_log"), "dt_bias": same("dt_bias"),
        "norm.weight": same("norm.weight"), "o.weight": same("out_proj.weight"),
    }
    write(out, "gated_deltanet", m, m, params,
          dict(mixer="gated_deltanet", k_heads=G, v_heads=H, k_dim=K, v_dim=V, conv=4, norm_eps=1e-3), 1)


def olmo(out):
    from transformers import OlmoHybridConfig
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet

    G, H, K, V = 1, 2, 4, 6
    c = OlmoHybridConfig(hidden_size=D, linear_num_key_heads=G, linear_num_value_heads=H, linear_key_head_dim=K,
                         linear_value_head_dim=V, linear_conv_kernel_dim=3, linear_allow_neg_eigval=True,
                         hidden_act="silu", layer_types=["linear_attention", "full_attention"], num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2)
    m = OlmoHybridGatedDeltaNet(c, 0)
    params = {
        "qkv.weight": join("q_proj.weight", "k_proj.weight", "v_proj.weight"), "z.weight": same("g_proj.weight"),
        "a.weight": same("a_proj.weight"), "b.weight": same("b_proj.weight"), "conv.weight": conv("conv1d.weight"),
        "A_log": same("A_log"), "dt_bias": same("dt_bias"), "norm.weight": same("o_norm.weight"),
        "o.weight": same("o_proj.weight"),
    }
    write(out, "gated_deltanet_negative", m, m, params,
          dict(mixer="gated_deltanet", k_heads=G, v_heads=H, k_dim=K, v_dim=V, conv=3, norm_eps=1e-5, negative=1), 2)


def kda(out):
    from transformers import KimiLinearConfig
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

    H, K = 3, 6
    c = KimiLinearConfig(hidden_size=D, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=2,
                         rms_norm_eps=1e-3, hidden_act="silu",
                         linear_attn_config=dict(head_dim=K, num_heads=H, short_conv_kernel_size=4, kda_layers=[1],
                                                 full_attn_layers=[2]))
    m = KimiLinearDeltaAttention(c, 0)
    params = {
        "qkv.weight": join("q_proj.weight", "k_proj.weight", "v_proj.weight"),
        "f_a.weight": same("forget_gate.f_a_proj.weight"), "f_b.weight": same("forget_gate.f_b_proj.weight"),
        "g_a.weight": same("g_a_proj.weight"), "g_b.weight": same("g_b_proj.weight"), "b.weight": same("b_proj.weight"),
        "conv.weight": conv("conv1d.weight"), "A_log": same("forget_gate.A_log", -1),
        "dt_bias": same("forget_gate.dt_bias"), "norm.weight": same("o_norm.weight"), "o.weight": same("o_proj.weight"),
    }
    write(out, "kda", m, m, params,
          dict(mixer="kda", k_heads=H, v_heads=H, k_dim=K, v_dim=K, rank=K, conv=4, norm_eps=1e-3), 3)


def lightning(out):
    from transformers import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    H, K, layer, layers = 3, 6, 1, 4
    c = MiniMaxConfig(hidden_size=D, num_attention_heads=H, num_key_value_heads=1, head_dim=K, block_size=8,
                      num_hidden_layers=layers, layer_types=["linear_attention"] * layers, hidden_act="silu")
    m = MiniMaxLightningAttention(c, layer)
    part = lambda n: torch.cat([torch.arange(K) + (3 * h + n) * K for h in range(H)])
    params = {
        "qkv.weight": rows("qkv_proj.weight", torch.cat([part(0), part(1), part(2)])),
        "gate.weight": same("output_gate.weight"), "norm.weight": same("norm.weight"),
        "o.weight": same("out_proj.weight"),
    }
    factor = 1 - layer / (layers - 1 + 1e-5) + 1e-5
    write(out, "lightning", m, lambda x: m(x, None, None)[0], params,
          dict(mixer="lightning", k_heads=H, v_heads=H, k_dim=K, v_dim=K, norm_eps=1e-6, scale_0=factor), 4)


MAMBA2 = {
    "in.weight": same("in_proj.weight"), "conv.weight": conv("conv1d.weight"), "dt_bias": same("dt_bias"),
    "A_log": same("A_log"), "skip": same("D"), "out.weight": same("out_proj.weight"),
}


def mamba2(out):
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    H, V, N, G = 8, 5, 7, 2
    c = Mamba2Config(hidden_size=D, num_heads=H, head_dim=V, state_size=N, n_groups=G, expand=2, conv_kernel=4,
                     chunk_size=16, use_bias=True, use_conv_bias=True, layer_norm_epsilon=1e-3, num_hidden_layers=1,
                     time_step_limit=(0.3, 1.2))
    m = Mamba2Mixer(c, 0)
    params = dict(MAMBA2, **{"in.bias": same("in_proj.bias"), "conv.bias": same("conv1d.bias"),
                             "out.bias": same("out_proj.bias"), "norm.weight": same("norm.weight")})
    write(out, "mamba2", m, m, params,
          dict(mixer="mamba2", v_heads=H, v_dim=V, inner=H * V, state=N, groups=G, conv=4, conv_bias=1, proj_bias=1,
               out_bias=1, norm=1, norm_eps=1e-3, dt_min=0.3, dt_max=1.2), 5)


def falcon(out, name, norm, before, seed):
    """Mamba-2 and attention beside each other, every multiplier other than 1"""
    from transformers import FalconH1Config
    from transformers.models.falcon_h1 import modeling_falcon_h1 as f

    H, V, N, G, QH, KH, K = 4, 6, 5, 2, 4, 2, 6
    scales = [0.7, 1.3, 0.9, 1.1, 1.5]
    c = FalconH1Config(hidden_size=D, mamba_n_heads=H, mamba_d_head=V, mamba_d_ssm=H * V, mamba_d_state=N,
                       mamba_n_groups=G, mamba_d_conv=4, mamba_conv_bias=True, mamba_proj_bias=True,
                       projectors_bias=True, mamba_rms_norm=norm, mamba_norm_before_gate=before, mamba_chunk_size=16,
                       num_attention_heads=QH, num_key_value_heads=KH, head_dim=K, num_hidden_layers=1,
                       ssm_multipliers=scales, ssm_in_multiplier=0.8, ssm_out_multiplier=1.2, key_multiplier=0.6,
                       attention_in_multiplier=0.9, attention_out_multiplier=0.7, rms_norm_eps=1e-3,
                       rope_parameters={"rope_type": "default", "rope_theta": 100.0}, attn_implementation="eager")
    layer = f.FalconH1DecoderLayer(c, 0)
    layer.mamba.mup_vector = f.compute_mup_vector(c).double()
    parts = torch.nn.ModuleDict({"mamba": layer.mamba, "attention": layer.self_attn})
    angle = torch.arange(T)[:, None] * 100.0 ** (-torch.arange(0, K, 2).double() / K)
    angle = torch.cat([angle, angle], -1)[None]
    mask = torch.full((T, T), -float("inf"), dtype=torch.float64).triu(1)[None, None].expand(B, 1, T, T)

    def run(x):
        attention, _ = layer.self_attn(hidden_states=x * c.attention_in_multiplier, attention_mask=mask,
                                       position_embeddings=(angle.cos(), angle.sin()))
        return layer.mamba(x) * c.ssm_out_multiplier + attention * c.attention_out_multiplier

    under = lambda prefix, view: lambda t: view({n[len(prefix):]: p for n, p in t.items() if n.startswith(prefix)})
    params = {n: under("mamba.", view) for n, view in MAMBA2.items()}
    params.update({n: under("mamba.", same(t)) for n, t in (("in.bias", "in_proj.bias"), ("out.bias", "out_proj.bias"),
                                                            ("conv.bias", "conv1d.bias"))})
    if norm:
        params["norm.weight"] = under("mamba.", same("norm.weight"))
    params.update({"%s.weight" % n: under("attention.", same("%s_proj.weight" % n)) for n in "qkvo"})
    a = c.attention_in_multiplier
    settings = dict(mixer="mamba2_attention", heads=QH, kv_heads=KH, head_dim=K, rotary_dim=K, theta=100,
                    attn_scale=a * a * c.key_multiplier * K ** -0.5, beside_scale=a * c.attention_out_multiplier,
                    v_heads=H, v_dim=V, inner=H * V, state=N, groups=G, conv=4, conv_bias=1, proj_bias=1, out_bias=1,
                    norm=norm, norm_before_gate=before, norm_groups=G, norm_eps=1e-3, in_scale=0.8, out_scale=1.2)
    settings.update({"scale_%d" % i: s for i, s in enumerate(scales)})
    write(out, name, parts, run, params, settings, seed)


def mamba1(out):
    from transformers import JambaConfig
    from transformers.models.jamba.modeling_jamba import JambaMambaMixer

    N, R = 5, 3
    c = JambaConfig(hidden_size=D, mamba_d_state=N, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=R,
                    mamba_conv_bias=True, mamba_proj_bias=True, use_mamba_kernels=False, rms_norm_eps=1e-3,
                    hidden_act="silu")
    m = JambaMambaMixer(c, 0)
    params = {
        "in.weight": same("in_proj.weight"), "in.bias": same("in_proj.bias"), "conv.weight": conv("conv1d.weight"),
        "conv.bias": same("conv1d.bias"), "x.weight": same("x_proj.weight"), "dt_norm.weight": same("dt_layernorm.weight"),
        "b_norm.weight": same("b_layernorm.weight"), "c_norm.weight": same("c_layernorm.weight"),
        "dt.weight": same("dt_proj.weight"), "dt.bias": same("dt_proj.bias"), "A_log": same("A_log"), "skip": same("D"),
        "out.weight": same("out_proj.weight"), "out.bias": same("out_proj.bias"),
    }
    write(out, "mamba1", m, m, params,
          dict(mixer="mamba1", inner=2 * D, state=N, rank=R, conv=4, conv_bias=1, proj_bias=1, out_bias=1, norm=1,
               norm_eps=1e-3), 8)


def short_conv(out):
    from transformers import Lfm2Config
    from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

    c = Lfm2Config(hidden_size=D, conv_L_cache=3, conv_bias=True, num_hidden_layers=1, num_attention_heads=2,
                   num_key_value_heads=2, layer_types=["conv"])
    m = Lfm2ShortConv(c, 0)
    params = {
        "in.weight": same("in_proj.weight"), "in.bias": same("in_proj.bias"), "conv.weight": conv("conv.weight"),
        "conv.bias": same("conv.bias"), "out.weight": same("out_proj.weight"), "out.bias": same("out_proj.bias"),
    }
    write(out, "short_conv", m, m, params,
          dict(mixer="short_conv", inner=D, conv=3, conv_bias=1, proj_bias=1, out_bias=1), 9)


def rglru(out):
    from transformers import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    G, I = 3, 24
    c = RecurrentGemmaConfig(hidden_size=D, lru_width=I, num_attention_heads=G, conv1d_width=4, num_hidden_layers=1,
                             hidden_activation="gelu_pytorch_tanh", head_dim=4)
    m = RecurrentGemmaRecurrentBlock(c, 0)
    positions = torch.arange(T)[None].expand(B, T)
    gate = "rg_lru.%s_gate_%s"
    params = {
        "x.weight": same("linear_x.weight"), "x.bias": same("linear_x.bias"), "y.weight": same("linear_y.weight"),
        "y.bias": same("linear_y.bias"), "conv.weight": conv("conv_1d.weight"), "conv.bias": same("conv_1d.bias"),
        "input_gate.weight": same(gate % ("input", "weight")), "input_gate.bias": same(gate % ("input", "bias"), -1),
        "decay_gate.weight": same(gate % ("recurrent", "weight")),
        "decay_gate.bias": same(gate % ("recurrent", "bias"), -1), "decay": same("rg_lru.recurrent_param"),
        "out.weight": same("linear_out.weight"), "out.bias": same("linear_out.bias"),
    }
    write(out, "rglru", m, lambda x: m(x, positions, None, use_cache=False)[0], params,
          dict(mixer="rglru", inner=I, groups=G, conv=4), 10)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    deltanet(out)
    olmo(out)
    kda(out)
    lightning(out)
    mamba2(out)
    falcon(out, "mamba2_attention", False, True, 6)
    falcon(out, "mamba2_attention_normed", True, True, 7)
    falcon(out, "mamba2_attention_gated", True, False, 11)
    mamba1(out)
    short_conv(out)
    rglru(out)


if __name__ == "__main__":
    main()
