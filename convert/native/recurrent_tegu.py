"""Linear and recurrent layers of Tegu hybrids in plain PyTorch, one class for each way of mixing, its equation on top. Letters and parts
are those of attention_tegu.py."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from .attention_tegu import (
    Attention, Maps, Slots, Softmax, Weight, attend, convolve, divide, expand, join_heads, linear, log_sigmoid, new, recurrence, rms, scan,
    split_heads, unit, with_ones,
)


def recipe(**kwargs):
    """What a row of linear mixers does where they differ; see Linear. scale 0: K^-1/2."""
    return SimpleNamespace(**{"gate": None, "channel": False, "delta": False, "map": False, "norm": None, "z": None, "silu": "", "scale": 0,
                              "sparse": False, **kwargs})


RECIPES = {
    "linear": recipe(map=True, scale=1),
    "based": recipe(map=True, scale=1),
    "retnet": recipe(gate="retention", norm="head", z="silu"),
    "lightning": recipe(gate="slopes", norm="wide", z="sigmoid", silu="qkv", scale=1),
    "gla": recipe(gate="sigmoid", channel=True, norm="head", z="silu"),
    "hgrn2": recipe(gate="forget", channel=True, norm="wide", silu="q"),
    "deltanet": recipe(delta=True, norm="head"),
    "gated_deltanet": recipe(delta=True, gate="decay", norm="head", z="silu"),
    "kda": recipe(delta=True, gate="decay", channel=True, norm="head", z="sigmoid"),
    "sse": recipe(gate="sigmoid", channel=True, norm="head", z="silu", sparse=True),
    "sse_deltanet": recipe(delta=True, gate="decay", norm="head", z="silu", sparse=True),
}


class Linear(Attention, Maps):
    """The form of linear mixers; RECIPES says which has what.

    w       = window softmax(rot q, rot k, v)    with a window
    v       = w                                  window in series
    q, k, v = silu(conv(.))                      with a short convolution; or silu of some
    q, k    = rot(.)                             unless the linear branch is plain
    q, k    = x / sqrt(|x|^2 + 1e-6)             delta; or phi(.), map
    S_t     = diag(e^{g_t}) S_{t-1} + k_t v_t^T,                            o_t = scale S_t^T q_t
    S_t     = S' + beta k_t (v_t - S'^T k_t)^T,  S' = diag(e^{g_t}) S_{t-1}   delta
    l       = o / (the same sum over ones in place of v)    map, unless plain_values
            = norm(o) . f(z)                                else;  z = x Wz^T or (x Wga^T) Wgb^T + b
    y       = (l + alpha w) Wo^T                 alpha per head

    Log decays g per state head h, beta = c sigmoid(x Wb^T), c = 2 with negative eigenvalues, else 1:
    retention  log(1 - 2^{-5-h})              slopes   -c 2^{-8 (h+1) / S}, c = scales[0]
    decay      -e^{A_log} softplus(a + dt_bias)        a = x Wa^T, or (x Wfa^T) Wfb^T for each channel
    sigmoid    log sigmoid((x Wfa^T) Wfb^T + b) / 16
    forget     e^g = lb + (1 - lb) sigmoid(-k), then k = 1 - e^g;  lb = sigmoid(lower_bound), or 0

    sparse: N states, of which a token t reads and writes the `active` of largest e_t = softmax(x We^T) and leaves the others as they are;
    with q and k multiplied by e_t^i. Beside them, unless no_shared, a state that all tokens use, with gates of its own; the sparse states
    then have q, k + rot((x A^T) B^T)."""

    def __init__(self, c, l):
        super().__init__(c, l)
        D, V, S, K = c.hidden_size, l.value_dim, l.value_heads, l.head_dim
        self.r = r = RECIPES[l.mixer]
        self.eps = l.recurrent_norm_eps or c.rms_norm_eps
        self.HV = HV = l.out_heads * V
        gates = S * K if r.channel else S
        self.wide = r.norm == "wide"
        if r.map:
            self.add_maps(l)
        if r.norm or l.plain_values:
            self.norm = Weight(HV if self.wide else V, ones=True)
        if l.mixer == "kda":
            self.g_a, self.g_b = linear(D, l.recurrent_rank), linear(l.recurrent_rank, HV, l.recurrent_proj_bias)
        elif r.z:
            self.z = linear(D, HV)
        self.shared = r.sparse and not l.recurrent_no_shared
        for prefix in ["", "shared_"] if self.shared else [""]:
            if r.gate in ("decay", "sigmoid") and r.channel:
                setattr(self, prefix + "f_a", linear(D, l.recurrent_rank))
                setattr(self, prefix + "f_b", linear(l.recurrent_rank, gates, r.gate == "sigmoid"))
            elif r.gate == "decay":
                setattr(self, prefix + "a", linear(D, S))
            if r.gate == "decay":
                setattr(self, prefix + "A_log", new(S))
                setattr(self, prefix + "dt_bias", new(gates))
        if r.gate == "forget" and not l.recurrent_no_bound:
            self.lower_bound = new(gates)
        if r.delta:
            self.b = linear(D, S)
            if l.recurrent_conv:
                self.conv = Weight(l.heads * K + l.kv_heads * K + S * V, l.recurrent_conv)
        if r.sparse:
            self.partition = linear(D, l.recurrent_partitions)
        if self.shared:
            self.q2_a, self.q2_b = linear(D, V), linear(V, l.heads * K)
            self.k2_a, self.k2_b = linear(D, V), linear(V, l.kv_heads * K)
        if l.window:
            self.alpha = new(l.heads)
            if l.sinks:
                self.sink = new(l.heads, l.sinks)

    def forward(self, x, step, state):
        l, r = self.l, self.r
        q, k, v = self.project(x)
        w = None
        if l.window:
            s = Slots(state, step, l.window - 1, k=step.turn(l, k), v=v)
            w, _, _ = attend(step.turn(l, q), l, s.k, s.v, step.position, s.at, s.kept, l.window, sink=self.sink_of())
            if l.window_form == "series":
                v = w
        raw = k
        q, k, v = self.activate(q, k, v, step, state)
        g = self.decay(x, raw, step)
        if r.gate == "forget":
            k = -torch.expm1(self.log_forget(raw))
        if not l.linear_plain:
            q, k = step.turn(l, q), step.turn(l, k)
        if r.sparse:
            o = self.partitions(x, q, k, v, g, step, state)
        else:
            o = self.recur(x, q, k, v, g, step, state, "S")
        if r.map and not l.plain_values:
            o = join_heads(divide(o))
        else:
            o = self.normed_out(x, o)
        if w is not None:
            o = o + join_heads(self.alpha.float()[:, None, None] * w)
        return self.leave(x, o)

    def activate(self, q, k, v, step, state):
        l = self.l
        if l.recurrent_conv:
            sizes = [x.shape[1] * x.shape[3] for x in (q, k, v)]
            y = F.silu(convolve(torch.cat([join_heads(x) for x in (q, k, v)], -1), self.conv.weight, step, state, "conv"))
            return [split_heads(x, heads) for x, heads in zip(y.split(sizes, -1), (l.heads, l.kv_heads, l.value_heads))]
        return [F.silu(x) if name in self.r.silu else x for name, x in zip("qkv", (q, k, v))]

    def log_forget(self, raw):
        if self.l.recurrent_no_bound:
            return log_sigmoid(-raw)
        lb = torch.sigmoid(self.lower_bound.float()).unflatten(0, (self.l.value_heads, 1, -1))
        return (lb + (1 - lb) * torch.sigmoid(-raw)).log()

    def decay(self, x, raw, step, prefix=""):
        """[B,S,T,1 or K], 0 where there is padding"""
        l, r, S = self.l, self.r, self.l.value_heads
        if r.gate is None:
            return None
        if r.gate in ("retention", "slopes"):
            if r.gate == "retention":
                g = [math.log1p(-(2.0 ** (-5 - h))) for h in range(S)]
            else:
                g = [-l.recurrent_scales[0] * 2.0 ** (-8 * (h + 1) / S) for h in range(S)]
            return step.keep(torch.tensor(g, device=x.device)[None, :, None, None].expand(x.shape[0], S, x.shape[1], 1))
        if r.gate == "forget":
            return step.keep(self.log_forget(raw))
        if r.channel:
            a = getattr(self, prefix + "f_b")(getattr(self, prefix + "f_a")(x))
        else:
            a = getattr(self, prefix + "a")(x)
        if r.gate == "sigmoid":
            return step.keep(split_heads(log_sigmoid(a) / 16, S))
        a = split_heads(F.softplus(a.float() + getattr(self, prefix + "dt_bias").float(), threshold=80), S)
        return step.keep(-getattr(self, prefix + "A_log").float().exp()[:, None, None] * a)

    def recur(self, x, q, k, v, g, step, state, name, use=None):
        """o [B,out heads,T,V]; use [B,1,T,1]: factors of q and k, 0 where the state is left as it is"""
        l, r = self.l, self.r
        if r.delta:
            q, k = unit(q), unit(k)
        if r.map:
            q, k = self.phi_q(q), self.phi_k(k)
            v = v if l.plain_values else with_ones(v)
        k = step.keep(k)
        if use is not None:
            q, k = q * use, k * use
            g = None if g is None else g * (use > 0)
        heads = l.out_heads
        q, k, v = expand(q, heads), expand(expand(k, l.heads), heads), expand(v, heads)
        q = q * (r.scale or 1 / math.sqrt(l.head_dim))
        g = None if g is None else expand(g, heads)
        read = write = None
        if r.delta:
            beta = (2 if l.recurrent_negative_eigenvalues else 1) * torch.sigmoid(self.b(x).float())
            read = -k if g is None else -k * g.exp()
            write = k * expand(beta.mT[..., None], heads)
            k = write
        S = state.get(name) if state is not None else None
        o, S = recurrence(q, k, v, S, g, read, write)
        if state is not None:
            state[name] = S
        return o

    def partitions(self, x, q, k, v, g, step, state):
        l, o = self.l, 0
        e = self.partition(x).float().softmax(-1)
        chosen = torch.zeros_like(e).scatter(-1, e.topk(l.recurrent_active, -1).indices, 1.0)
        use = step.keep(e * chosen)
        if self.shared:
            o = self.recur(x, q, k, v, self.decay(x, None, step, "shared_"), step, state, "S")
            q2, k2 = split_heads(self.q2_b(self.q2_a(x)), l.heads), split_heads(self.k2_b(self.k2_a(x)), l.kv_heads)
            if not l.linear_plain:
                q2, k2 = step.turn(l, q2), step.turn(l, k2)
            q, k = q + q2, k + k2
        for i in range(l.recurrent_partitions):
            o = o + self.recur(x, q, k, v, g, step, state, f"S{i}", use[:, None, :, i, None])
        return o

    def normed_out(self, x, o):
        r = self.r
        o = rms(join_heads(o), self.norm.weight, self.eps) if self.wide else join_heads(rms(o, self.norm.weight, self.eps))
        if not r.z:
            return o
        z = (self.g_b(self.g_a(x)) if hasattr(self, "g_a") else self.z(x)).float()
        return o * (F.silu(z) if r.z == "silu" else torch.sigmoid(z))


class RWKV7(Attention):
    """g  = -e^{-1/2} sigmoid(w0 + tanh(x W1^T) W2^T),   a = sigmoid(a0 + (x A1^T) A2^T)
    kk = u / sqrt(|u|^2 + 1e-24),  u = k0 . k_k,         k = k0 . (1 + (a - 1) . k_a)
    S_t = diag(e^g) S_{t-1} - (kk . a) (S_{t-1}^T kk)^T + k v^T,  o = S_t^T q
    y  = ((LayerNorm(o) + (q . k . r_k summed) v) . gate) Wo^T,   gate = sigmoid(x G1^T) G2^T"""

    def __init__(self, c, l):
        super().__init__(c, l)
        D, H, K, R, HV = c.hidden_size, l.heads, l.head_dim, l.recurrent_rank, l.heads * l.value_dim
        self.w0, self.w1, self.w2 = new(H * K), linear(D, R), linear(R, H * K)
        self.a0, self.a1, self.a2 = new(H * K), linear(D, R), linear(R, H * K)
        self.k_k, self.k_a, self.r_k = new(H * K, value=1.0), new(H * K, value=1.0), new(H, K)
        self.norm = Weight(HV, bias=HV, ones=True)
        self.g1, self.g2 = linear(D, R), linear(R, HV)

    def forward(self, x, step, state):
        l, H = self.l, self.l.heads
        q, k0, v = self.project(x)
        if not l.linear_plain:
            q, k0 = step.turn(l, q), step.turn(l, k0)
        each = lambda p: p.float().view(H, 1, -1)
        g = -math.exp(-0.5) * torch.sigmoid(split_heads(self.w2(torch.tanh(self.w1(x))) + self.w0, H))
        a = torch.sigmoid(split_heads(self.a2(self.a1(x)) + self.a0, H))
        kk = unit(k0 * each(self.k_k), 1e-24)
        k = k0 * (1 + (a - 1) * each(self.k_a))
        S = state.get("S") if state is not None else None
        o, S = recurrence(q, step.keep(k), v, S, step.keep(g), kk, step.keep(-kk * a))
        if state is not None:
            state["S"] = S
        o = rms(o - o.mean(-1, keepdim=True), None, l.recurrent_norm_eps) * each(self.norm.weight) + each(self.norm.bias)
        o = o + (q * k * each(self.r_k)).sum(-1, keepdim=True) * v
        return self.leave(x, join_heads(o) * self.g2(torch.sigmoid(self.g1(x))).float())


class HGRN(Attention):
    """f = lb + (1 - lb) sigmoid(x Wf^T + bf),  lb = sigmoid(lower_bound)
    h_t = f_t h_{t-1} + (1 - f_t) silu(x Wi^T + bi),   y = (w RMSnorm(h) silu(x Wg^T + bg)) Wo^T"""

    has_qkv = False

    def __init__(self, c, l):
        super().__init__(c, l)
        D, n = c.hidden_size, l.out_heads * l.value_dim
        self.i, self.f, self.g = linear(D, n, l.qkv_bias), linear(D, n, True), linear(D, n, True)
        self.lower_bound, self.norm = new(n), Weight(n, ones=True)

    def forward(self, x, step, state):
        lb = torch.sigmoid(self.lower_bound.float())
        f, i = self.f(x).float(), self.i(x).float()
        u = step.keep((1 - lb) * torch.sigmoid(-f) * F.silu(i))
        f = lb + (1 - lb) * torch.sigmoid(f)
        if step.valid is not None:
            f = torch.where(step.valid[..., None], f, torch.ones_like(f))
        h, last = scan(f, u, state.get("h") if state is not None else None)
        if state is not None:
            state["h"] = last
        return self.leave(x, rms(h, self.norm.weight, self.l.recurrent_norm_eps) * F.silu(self.g(x).float()))


class Hyena(Attention):
    """hyena_x, hyena_se: q, k, v <- conv(q), conv(k), conv(v)
    hyena_x:  y = (q . (k . v)) Wo^T;   hyena_y, hyena_se:  y = (q . inner_conv(k . v)) Wo^T"""

    def __init__(self, c, l):
        super().__init__(c, l)
        n = l.heads * l.head_dim
        if l.mixer != "hyena_y":
            self.conv = Weight(3 * n, l.recurrent_conv)
        if l.mixer != "hyena_x":
            self.inner_conv = Weight(n, l.recurrent_inner_conv)

    def forward(self, x, step, state):
        q, k, v = [join_heads(h) for h in self.project(x)]
        if hasattr(self, "conv"):
            q, k, v = convolve(torch.cat([q, k, v], -1), self.conv.weight, step, state, "conv").chunk(3, -1)
        u = k * v
        if hasattr(self, "inner_conv"):
            u = convolve(u, self.inner_conv.weight, step, state, "inner_conv")
        return self.leave(x, q * u)


class Mamba2Parts:
    """[z | x | B | C | dt] = W u + b, part by part scaled;   x, B, C = silu(conv(.))
    dt = softplus(dt + dt_bias) within its limits,   S_t = e^{-e^{A_log} dt} S_{t-1} + B (dt x)^T
    y = out(norm((S_t^T C + skip x) silu(z))), or with the norm before the gate"""

    def mamba2(self, c, l):
        D, I, H = c.hidden_size, l.recurrent_inner, l.recurrent_v_heads
        self.sizes = [I, I, l.recurrent_groups * l.recurrent_state, l.recurrent_groups * l.recurrent_state, H]
        mixed = sum(self.sizes[1:4])
        setattr(self, "in", linear(D, sum(self.sizes), l.recurrent_proj_bias))
        self.conv = Weight(mixed, l.recurrent_conv, bias=mixed if l.recurrent_conv_bias else None)
        self.dt_bias, self.A_log, self.skip = new(H), new(H), new(H, value=1.0)
        self.eps = l.recurrent_norm_eps or c.rms_norm_eps
        if l.recurrent_norm:
            self.norm = Weight(I, ones=True)
        self.out = linear(I, D, l.recurrent_out_bias)

    def gate_norm(self, o, z):
        l = self.l
        last = l.recurrent_norm and l.recurrent_norm_before_gate
        o = o if last else o * F.silu(z)
        if l.recurrent_norm:
            groups = l.recurrent_norm_groups or 1
            o = rms(o.unflatten(-1, (groups, -1)), self.norm.weight.view(groups, -1), self.eps).flatten(-2)
        return o * F.silu(z) if last else o

    def mamba2_forward(self, x, step, state):
        l, H, project = self.l, self.l.recurrent_v_heads, getattr(self, "in")
        pre = l.recurrent_in_scale * F.linear(x, project.weight).float()
        if project.bias is not None:
            pre = pre + project.bias.float()
        parts = [s * p for s, p in zip(l.recurrent_scales, pre.split(self.sizes, -1))]
        bias = self.conv.bias if l.recurrent_conv_bias else None
        mixed = F.silu(convolve(torch.cat(parts[1:4], -1), self.conv.weight, step, state, "conv", bias))
        v, B, C = mixed.split(self.sizes[1:4], -1)
        dt = F.softplus(parts[4] + self.dt_bias.float(), threshold=80)
        dt = dt.clamp(l.recurrent_dt_min, l.recurrent_dt_max or None).mT[..., None]
        v = split_heads(v, H)
        k, q = (expand(split_heads(p, l.recurrent_groups), H) for p in (B, C))
        g = step.keep(-self.A_log.float().exp()[:, None, None] * dt)
        S = state.get("S") if state is not None else None
        o, S = recurrence(q, step.keep(k), dt * v, S, g)
        if state is not None:
            state["S"] = S
        o = join_heads(o + self.skip.float()[:, None, None] * v)
        return l.recurrent_out_scale * self.out(self.gate_norm(o, parts[0]).to(x.dtype))


class Mamba2(nn.Module, Mamba2Parts):
    __doc__ = Mamba2Parts.__doc__

    def __init__(self, c, l):
        super().__init__()
        self.l = l
        self.mamba2(c, l)

    def forward(self, x, step, state):
        return self.mamba2_forward(x, step, state)


class Mamba2Attention(Softmax, Mamba2Parts):
    """Mamba-2 and softmax attention side by side: y = mamba2(x) + beside_scale attention(x)"""

    has_sinks = False

    def __init__(self, c, l):
        super().__init__(c, l)
        self.mamba2(c, l)

    def forward(self, x, step, state):
        return self.mamba2_forward(x, step, state) + self.l.recurrent_beside_scale * self.attention(x, step, state)


class Mamba1(nn.Module):
    """[x | z] = W u,  x = silu(conv(x));   [dt | B | C] = Wx x, each normed if the layer has it;   dt = softplus(Wdt dt + b)
    h_t = e^{-e^{A_log} dt} h_{t-1} + dt x_t B_t,   y = out((h_t . C_t + skip x_t) silu(z))"""

    def __init__(self, c, l):
        super().__init__()
        self.l, D, I, N, R = l, c.hidden_size, l.recurrent_inner, l.recurrent_state, l.recurrent_rank
        setattr(self, "in", linear(D, 2 * I, l.recurrent_proj_bias))
        self.conv = Weight(I, l.recurrent_conv, bias=I if l.recurrent_conv_bias else None)
        self.x, self.dt = linear(I, R + 2 * N), linear(R, I, True)
        if l.recurrent_norm:
            self.dt_norm, self.b_norm, self.c_norm = Weight(R, ones=True), Weight(N, ones=True), Weight(N, ones=True)
        self.A_log, self.skip = new(I, N), new(I, value=1.0)
        self.out = linear(I, D, l.recurrent_out_bias)

    def forward(self, x, step, state):
        l, N = self.l, self.l.recurrent_state
        u, z = getattr(self, "in")(x).float().chunk(2, -1)
        u = F.silu(convolve(u, self.conv.weight, step, state, "conv", self.conv.bias if l.recurrent_conv_bias else None))
        dt, B, C = self.x(u.to(x.dtype)).float().split([l.recurrent_rank, N, N], -1)
        if l.recurrent_norm:
            dt, B, C = (rms(p, n.weight, l.recurrent_norm_eps) for p, n in ((dt, self.dt_norm), (B, self.b_norm), (C, self.c_norm)))
        dt = step.keep(F.softplus(self.dt(dt.to(x.dtype)).float(), threshold=80))
        h = state.get("h") if state is not None else None
        out, A = [], -self.A_log.float().exp()
        for i in range(0, x.shape[1], 64):  # few tokens at a time: N numbers for each channel
            t = slice(i, i + 64)
            a, v = (A * dt[:, t, :, None]).exp(), (dt * u)[:, t, :, None] * B[:, t, None]
            s, h = scan(a, v, h)
            out.append((s * C[:, t, None]).sum(-1))
        if state is not None:
            state["h"] = h
        o = torch.cat(out, 1) + self.skip.float() * u
        return self.out((o * F.silu(z)).to(x.dtype))


class ShortConv(nn.Module):
    """[B | C | x] = W u,   y = out(C . conv(B . x))"""

    def __init__(self, c, l):
        super().__init__()
        self.l, I = l, l.recurrent_inner
        setattr(self, "in", linear(c.hidden_size, 3 * I, l.recurrent_proj_bias))
        self.conv = Weight(I, l.recurrent_conv, bias=I if l.recurrent_conv_bias else None)
        self.out = linear(I, c.hidden_size, l.recurrent_out_bias)

    def forward(self, x, step, state):
        B, C, u = getattr(self, "in")(x).float().chunk(3, -1)
        y = convolve(B * u, self.conv.weight, step, state, "conv", self.conv.bias if self.l.recurrent_conv_bias else None)
        return self.out((C * y).to(x.dtype))


class RGLRU(nn.Module):
    """u = conv(x Wx^T + bx),  r = sigmoid(u Wr + br),  i = sigmoid(u Wi + bi)   block by block
    log a = -8 r softplus(decay),  h_t = a h_{t-1} + sqrt(1 - a^2) i u,   y = out(h . gelu(x Wy^T + by))

    At a text's first token a = 0 and the root is 1."""

    def __init__(self, c, l):
        super().__init__()
        self.l, D, I, G = l, c.hidden_size, l.recurrent_inner, l.recurrent_groups
        self.x, self.y, self.conv = linear(D, I, True), linear(D, I, True), Weight(I, l.recurrent_conv, bias=I)
        self.input_gate, self.decay_gate = Weight(G, I // G, I // G, bias=I), Weight(G, I // G, I // G, bias=I)
        self.decay, self.out = new(I), linear(I, D, True)

    def blocks(self, u, p):
        u = u.unflatten(-1, (self.l.recurrent_groups, -1))
        return torch.sigmoid(torch.einsum("btgi,gij->btgj", u, p.weight.float()).flatten(2) + p.bias.float())

    def forward(self, x, step, state):
        u = convolve(self.x(x), self.conv.weight, step, state, "conv", self.conv.bias)
        log_a = -8 * self.blocks(u, self.decay_gate) * F.softplus(self.decay.float(), threshold=80)
        first = (step.position == 0)[..., None]
        a = torch.where(first, torch.zeros_like(log_a), log_a.exp())
        root = torch.where(first, torch.ones_like(a), (-torch.expm1(2 * log_a)).clamp(min=1e-12).sqrt())
        v = step.keep(root * self.blocks(u, self.input_gate) * u)
        if step.valid is not None:
            a = torch.where(step.valid[..., None], a, torch.ones_like(a))
        h, last = scan(a, v, state.get("h") if state is not None else None)
        if state is not None:
            state["h"] = last
        return self.out((h * F.gelu(self.y(x).float(), approximate="tanh")).to(x.dtype))
