"""Attention layers of Tegu hybrids in plain PyTorch, one class for each way of mixing, its equation on top, and the parts that all mixers
share.

Letters: B sequences, T new tokens, S slots (earlier tokens that a layer kept, then the new ones), H query heads, G key heads, K and V the
sizes of a key and a value, D the width. Vectors of heads are [B,H,T,K], rows of the model [B,T,D]. Everything between the projections is
float32. Tokens that are padding have position -1; they enter no state, no convolution and no sum.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

NEVER = -1e30  # a score that weighs nothing; finite, so that a row of padding is no NaN
ROWS = 256  # query rows of a block of scores
CHUNK, CHUNK_CHANNEL = 64, 16  # tokens of a chunk of a recurrence; with a decay for each channel
SCAN = 256  # tokens of a piece of an elementwise recurrence


def exact(f):
    """Runs a method or function in float32 whatever autocast says."""

    @functools.wraps(f)
    def run(*args, **kwargs):
        device = next(a.device.type for a in args if isinstance(a, torch.Tensor))
        with torch.autocast(device_type=device, enabled=False):
            return f(*args, **kwargs)

    return run


# Parameters that are no nn.Linear, under the names that the checkpoint has


class Weight(nn.Module):
    """A weight, and a bias of its own shape if asked; ones or zeros at first, of two axes and more normal."""

    def __init__(self, *shape, bias=None, ones=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape) if ones else torch.zeros(shape))
        if len(shape) > 1:
            nn.init.normal_(self.weight, std=0.02)
        if bias is not None:
            self.bias = nn.Parameter(torch.zeros(bias))


class Bias(nn.Module):
    """A bias whose weight is elsewhere."""

    def __init__(self, n):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n))


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, bias=bias)


def new(*shape, value=0.0):
    return nn.Parameter(torch.full(shape, value))


# What the layers of one pass share


class Step:
    """position, valid [B,T]; padding has position -1 and stands before a sequence's tokens. valid None: no padding. ropes: a function of
    (which, size, position [B,T]) that gives cosines and sines [B,T,size/2]."""

    def __init__(self, position, valid, ropes):
        self.position, self.valid, self.ropes = position, valid, ropes
        self.tables, self.elsewhere = {}, {}

    def on(self, device):
        """The same on another device, where a model is spread over several"""
        if device == self.position.device:
            return self
        if device not in self.elsewhere:
            valid = None if self.valid is None else self.valid.to(device)
            self.elsewhere[device] = Step(self.position.to(device), valid, self.ropes)
        return self.elsewhere[device]

    def keep(self, x):
        """Zeros in the rows of padding; x [B,T,C] or [B,H,T,K]."""
        if self.valid is None:
            return x
        valid = self.valid[:, :, None] if x.dim() == 3 else self.valid[:, None, :, None]
        return x * valid.to(x.dtype)

    def turn(self, l, x, position=None):
        """Rotary: pairs (i, i + n/2) of the first n = rotary_dim of x [B,H,T,.]; position: other than the new tokens'."""
        n = l.rotary_dim
        if not n:
            return x
        if position is not None:
            c, s = self.ropes(l.rope, n, position)
        else:
            if (l.rope, n) not in self.tables:
                self.tables[l.rope, n] = self.ropes(l.rope, n, self.position)
            c, s = self.tables[l.rope, n]
        c, s = c[:, None], s[:, None]
        a, b, rest = x[..., : n // 2], x[..., n // 2 : n], x[..., n:]
        return torch.cat([a * c - b * s, b * c + a * s, rest], -1)


class Slots:
    """What a layer remembers of single tokens, [B,.,S,.] each: `kept` earlier slots, then the new tokens; at [B,S]: their positions, -1
    where a slot is empty. Empty slots come first."""

    def __init__(self, state, step, limit, **items):
        items["at"] = step.position[:, None, :, None]
        earlier = state.get("slots") if state is not None else None
        self.kept = 0
        if earlier is not None:
            self.kept = earlier["at"].shape[2]
            items = {name: torch.cat([earlier[name], x], 2) for name, x in items.items()}
        if step.valid is not None:
            order = (items["at"] >= 0).int().argsort(dim=2, stable=True)
            items = {name: x.gather(2, order.expand(-1, x.shape[1], -1, x.shape[3])) for name, x in items.items()}
        if state is not None:
            first = 0 if limit is None else max(0, items["at"].shape[2] - limit)
            # copies: a view would hold the whole text
            state["slots"] = {name: x[:, :, first:].clone() if first else x for name, x in items.items()}
        self.count = items["at"].shape[2]
        self.at = items.pop("at")[:, 0, :, 0]
        self.__dict__.update(items)


def split_heads(x, heads):
    """[B,T,heads n] -> [B,heads,T,n] in float32"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).float()


def join_heads(x):
    return x.transpose(1, 2).flatten(2)


def expand(x, heads):
    """Head h of the result is head h / (heads / G) of x."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def rms(x, weight, eps):
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight.float()


def unit(x, eps=1e-6):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def log_sigmoid(x):
    return F.logsigmoid(x.float())


# Recurrences


def running_sum(g):
    """Of log decays; in double, since weights are exponentials of its differences and one strong gate makes all that follow large"""
    return (g if g.device.type == "mps" else g.double()).cumsum(2)


def decay(b):
    return b.float().exp()


def pairs(x, y, bx, by, lag):
    """[.., t, j] = sum_c x_tc y_jc e^{bx_tc - by_jc} for j <= t - lag, else 0. bx, by: None, one for each row, or for each channel."""
    n = x.shape[2]
    seen = torch.ones(n, n, dtype=torch.bool, device=x.device).tril(-lag)
    if bx is None:
        return (x @ y.mT).masked_fill(~seen, 0)
    if bx.shape[-1] == 1:
        return (x @ y.mT) * decay((bx - by.mT).masked_fill(~seen, -math.inf))
    d = decay((bx.unsqueeze(3) - by.unsqueeze(2)).masked_fill(~seen[:, :, None], -math.inf))
    return (x.unsqueeze(3) * y.unsqueeze(2) * d).sum(-1)


def chunk_forward(q, k, v, S, g, read, write):
    if g is None:
        b = before = None
        enter, last, inner = q, 1.0, k
    else:
        b = running_sum(g)
        before = b - g
        enter, last = q * decay(b), decay(b[:, :, -1:]).mT
        inner = k * decay(b[:, :, -1:] - b)
    o = enter @ S + pairs(q, k, b, b, 0) @ v
    end = last * S + inner.mT @ v
    if read is None:
        return o, end
    # u_t = S_{t-1}^T read_t, from u_t = what the chunk began with + what its tokens before t wrote
    first = read @ S if g is None else (read * decay(before)) @ S
    eye = torch.eye(q.shape[2], device=q.device)
    u = torch.linalg.solve_triangular(
        eye - pairs(read, write, before, b, 1), first + pairs(read, k, before, b, 1) @ v, upper=False, unitriangular=True
    )
    inner = write if g is None else write * decay(b[:, :, -1:] - b)
    return o + pairs(q, write, b, b, 0) @ u, end + inner.mT @ u


@exact
def recurrence(q, k, v, S=None, g=None, read=None, write=None):
    """S_t = diag(e^{g_t}) S_{t-1} + write_t (S_{t-1}^T read_t)^T + k_t v_t^T,   o_t = S_t^T q_t

    q, k, read, write [B,H,T,K], v [B,H,T,V], S [B,H,K,V]; log decays g <= 0 [B,H,T,1] or [B,H,T,K]. In chunks of tokens: no exponent is
    positive. Returns o [B,H,T,V] and the last S."""
    if S is None:
        S = q.new_zeros(q.shape[0], q.shape[1], q.shape[3], v.shape[3])
    size = CHUNK_CHANNEL if g is not None and g.shape[-1] > 1 else CHUNK
    out = []
    for i in range(0, q.shape[2], size):
        part = [None if x is None else x[:, :, i : i + size] for x in (q, k, v, g, read, write)]
        o, S = chunk_forward(*part[:3], S, *part[3:])
        out.append(o)
    return torch.cat(out, 2), S


@exact
def scan(a, u, h=None):
    """h_t = a_t h_{t-1} + u_t, element by element; a, u [B,T,..], h [B,..]. Returns h of every t and the last."""
    out = []
    for i in range(0, u.shape[1], SCAN):
        x, d = u[:, i : i + SCAN], a[:, i : i + SCAN]
        if h is not None:
            x = torch.cat([x[:, :1] + d[:, :1] * h[:, None], x[:, 1:]], 1)
        span = 1
        while span < x.shape[1]:  # x_t holds the last `span` inputs, d_t their decay
            x = torch.cat([x[:, :span], x[:, span:] + d[:, span:] * x[:, :-span]], 1)
            d = torch.cat([d[:, :span], d[:, span:] * d[:, :-span]], 1)
            span *= 2
        out.append(x)
        h = x[:, -1]
    return torch.cat(out, 1), h.clone()


@exact
def convolve(x, weight, step, state, name, bias=None):
    """Causal depthwise convolution of x [B,T,C], weight [C,taps]; state: the last taps - 1 inputs."""
    taps = weight.shape[1]
    x = x.float()
    earlier = state.get(name) if state is not None else None
    if earlier is None:
        earlier = x.new_zeros(x.shape[0], taps - 1, x.shape[2])
    full = torch.cat([earlier, x], 1)
    if step.valid is not None:
        filled = torch.cat([torch.ones_like(earlier[..., 0], dtype=torch.bool), step.valid], 1)
        full = full.gather(1, filled.int().argsort(dim=1, stable=True)[..., None].expand_as(full))
    if state is not None:
        state[name] = full[:, x.shape[1] :].clone()
    y = F.conv1d(full.mT, weight.float()[:, None], None if bias is None else bias.float(), groups=x.shape[2])
    return y.mT


# Softmax over slots


@exact
def attend(q, l, k, v, at_q, at_k, kept=0, window=0, slide=True, chunk=0, sink=None):
    """o_t = sum_j e^{s_tj - total_t} v_j,  s = cap(scale q.k),  over the j seen from t:  0 <= at_t - at_j < window, of the same chunk.

    sink [H,M]: logits more in the denominator. slide: row i is slot kept + i, so that slots out of reach need no scores. Returns o, total
    and the largest score [B,H,T,1]."""
    k, v = expand(k, q.shape[1]), expand(v, q.shape[1])
    reach = chunk or window
    out = []
    for i in range(0, q.shape[2], ROWS):
        to = min(i + ROWS, q.shape[2])
        slots = slice(max(0, kept + i - reach + 1) if reach and slide else 0, kept + to if slide else None)
        s = l.attn_scale * (q[:, :, i:to] @ k[:, :, slots].mT)
        if l.attn_softcap:
            s = l.attn_softcap * torch.tanh(s / l.attn_softcap)
        t, j = at_q[:, None, i:to, None], at_k[:, None, None, slots]
        seen = (j >= 0) & (j <= t)
        if window:
            seen &= t - j < window
        if chunk:
            seen &= t // chunk == j // chunk
        s = s.masked_fill(~seen, NEVER)
        top = s.amax(-1, keepdim=True)
        total = s.logsumexp(-1, keepdim=True)
        if sink is not None:
            logits = sink.float()[None, :, None].expand(*s.shape[:3], -1)
            total = torch.cat([total, logits], -1).logsumexp(-1, keepdim=True)
        out.append(((s - total).exp() @ v[:, :, slots], total, top))
    return [torch.cat(parts, 2) for parts in zip(*out)]


class QKNorm(Weight):
    """The model's norm over a head (a weight for all, or for each) or over all heads."""

    def __init__(self, c, l, heads):
        shape = {"head": (l.head_dim,), "each": (heads, l.head_dim), "wide": (heads * l.head_dim,)}[l.qk_norm]
        super().__init__(*shape, bias=shape if l.qk_norm_bias else None, ones=True)
        self.layer, self.plus_one, self.eps = c.norm_kind == "layer", c.norm_plus_one, c.rms_norm_eps

    def forward(self, x):
        """x [B,T,heads,K]"""
        shape = x.shape
        x = x.flatten(2) if self.weight.dim() == 1 and self.weight.shape[0] != shape[-1] else x
        if self.layer:
            x = x - x.mean(-1, keepdim=True)
        x = rms(x, self.weight.float() + 1 if self.plus_one else self.weight, self.eps)
        if hasattr(self, "bias"):
            x = x + self.bias.float()
        return x.view(shape)


class Attention(nn.Module):
    """What softmax layers and all that take over their projections have:

    q, k, v = limit(x W^T + b), q and k normed;   y = (o . sigmoid(x Wgate^T)) Wo^T"""

    has_qkv = True

    def __init__(self, c, l):
        super().__init__()
        self.l, D = l, c.hidden_size
        if self.has_qkv:
            self.q = linear(D, l.heads * l.head_dim, l.qkv_bias)
            self.k = linear(D, l.kv_heads * l.head_dim, l.qkv_bias)
            self.v = linear(D, l.value_heads * l.value_dim, l.qkv_bias)
            self.qk_norms(c, l)
        self.output(c, l)

    def qk_norms(self, c, l):
        if l.qk_norm != "none":
            self.q_norm, self.k_norm = QKNorm(c, l, l.heads), QKNorm(c, l, l.kv_heads)

    def output(self, c, l):
        n = l.out_heads * l.value_dim
        self.o = linear(n, c.hidden_size, l.o_bias)
        if l.output_gate:
            self.out_gate = linear(c.hidden_size, n, l.qkv_bias)

    def limit(self, x):
        return x.clamp(-self.l.qkv_clip, self.l.qkv_clip) if self.l.qkv_clip else x

    def normed(self, x, heads, norm):
        x = self.limit(x).float().unflatten(-1, (heads, -1))
        if self.l.qk_norm != "none":
            x = getattr(self, norm)(x)
        return x.transpose(1, 2)

    def project(self, x):
        l = self.l
        q = self.normed(self.q(x), l.heads, "q_norm")
        k = self.normed(self.k(x), l.kv_heads, "k_norm")
        return q, k, split_heads(self.limit(self.v(x)), l.value_heads)

    def leave(self, x, o):
        """o [B,T,HV]"""
        if self.l.output_gate:
            o = o * torch.sigmoid(self.out_gate(x).float())
        return self.o(o.to(x.dtype))

    def sink_of(self):
        return self.sink if self.l.sinks else None


class Softmax(Attention):
    """y_t = sum_j e^{s_tj} v_j / (sum_j e^{s_tj} + sum_m e^{sink_m}) over all j <= t, or the last `window`"""

    has_sinks = True

    def __init__(self, c, l):
        super().__init__(c, l)
        if l.sinks and self.has_sinks:
            self.sink = new(l.heads, l.sinks)

    def attention(self, x, step, state):
        l = self.l
        q, k, v = self.project(x)
        window = l.window
        s = Slots(state, step, window - 1 if window else None, k=step.turn(l, k), v=v)
        sink = self.sink_of() if self.has_sinks else None
        o, _, _ = attend(step.turn(l, q), l, s.k, s.v, step.position, s.at, s.kept, window, sink=sink)
        return self.leave(x, join_heads(o))

    def forward(self, x, step, state):
        return self.attention(x, step, state)


class Latent(Attention):
    """Softmax attention; c = A x,  k = rot(norm(Bk c + bk)),  v = Bv c + bv. A cache keeps c alone."""

    has_qkv = False

    def __init__(self, c, l):
        super().__init__(c, l)
        G, K, V, R = l.kv_heads, l.head_dim, l.value_dim, l.kv_rank
        self.q = linear(c.hidden_size, l.heads * K, l.qkv_bias)
        self.latent, self.k_up, self.v_up = linear(c.hidden_size, R), linear(R, G * K), linear(R, G * V)
        if l.qkv_bias:
            self.k, self.v = Bias(G * K), Bias(G * V)
        self.qk_norms(c, l)
        if l.sinks:
            self.sink = new(l.heads, l.sinks)

    def forward(self, x, step, state):
        l = self.l
        s = Slots(state, step, None, c=self.latent(x)[:, None])
        k, v = self.k_up(s.c[:, 0]), self.v_up(s.c[:, 0])
        if l.qkv_bias:
            k, v = k + self.k.bias, v + self.v.bias
        k = step.turn(l, self.normed(k, l.kv_heads, "k_norm"), s.at)
        q = step.turn(l, self.normed(self.q(x), l.heads, "q_norm"))
        v = split_heads(self.limit(v), l.kv_heads)
        o, _, _ = attend(q, l, k, v, step.position, s.at, s.kept, sink=self.sink_of())
        return self.leave(x, join_heads(o))


class MLA(nn.Module):
    """q = Wqb norm(Wqa x), or Wq x;  [c | r] = Wa x,  c' = norm(c),  [k_h | v_h] = Wb_h c'
    s_tj = scale (q_h^nope . k_hj + rot(q_h^rope) . rot(r_j)),  y_h = sum_j softmax(s_tj) v_hj.   A cache keeps c' and rot(r)."""

    def __init__(self, c, l):
        super().__init__()
        self.l, D, H = l, c.hidden_size, l.heads
        if l.q_rank:
            self.q_a, self.q_a_norm = linear(D, l.q_rank, l.qkv_bias), Weight(l.q_rank, ones=True)
            self.q_b = linear(l.q_rank, H * l.head_dim)
        else:
            self.q = linear(D, H * l.head_dim)
        self.kv_a, self.kv_a_norm = linear(D, l.kv_rank + l.rotary_dim, l.qkv_bias), Weight(l.kv_rank, ones=True)
        self.kv_b = linear(l.kv_rank, H * (l.head_dim - l.rotary_dim + l.value_dim))
        self.o = linear(H * l.value_dim, D, l.o_bias)

    def forward(self, x, step, state):
        l, P, eps = self.l, self.l.rotary_dim, self.l.latent_eps
        plain = l.head_dim - P
        if l.q_rank:
            q = self.q_b(rms(self.q_a(x).float(), self.q_a_norm.weight, eps).to(x.dtype))
        else:
            q = self.q(x)
        q = split_heads(q, l.heads)
        c, r = self.kv_a(x).float().split([l.kv_rank, P], -1)
        c = rms(c, self.kv_a_norm.weight, eps).to(x.dtype)
        s = Slots(state, step, None, c=c[:, None], r=step.turn(l, r[:, None]))
        k, v = split_heads(self.kv_b(s.c[:, 0]), l.heads).split([plain, l.value_dim], -1)
        k = torch.cat([k, s.r.expand(-1, l.heads, -1, -1)], -1)
        q = torch.cat([q[..., :plain], step.turn(l, q[..., plain:])], -1)
        o, _, _ = attend(q, l, k, v, step.position, s.at, s.kept)
        return self.o(join_heads(o).to(x.dtype))


# Windows and linear attention under one denominator


@exact
def features(x, kind, weight=None):
    """Feature map of x [B,H,T,K]; weight [H,K,F]"""
    if kind == "relu":
        return F.relu(x)
    if kind == "elu1":
        return F.elu(x) + 1
    if kind == "identity":
        return x
    u = x @ weight.float()
    n = u.shape[-1]
    if kind == "hedgehog_softmax":
        return torch.cat([u.softmax(-1), (-u).softmax(-1)], -1).clamp(min=1e-12)
    if kind == "hedgehog_exp":
        top = u.detach().abs().amax(-1, keepdim=True)
        return torch.cat([(u - top).exp(), (-u - top).exp()], -1)
    if kind != "taylor":
        raise ValueError(f"config.json: feature_map \"{kind}\" is not known to this code")
    i, j = torch.triu_indices(n, n, 1, device=u.device)
    u = u / n**0.25
    return torch.cat([torch.ones_like(u[..., :1]), u, u[..., i] * u[..., j], u.square() / math.sqrt(2)], -1)


class Maps(nn.Module):
    """The feature maps of queries and keys, with weights for every query head or without"""

    def add_maps(self, l):
        self.mapped = l.feature_map in ("hedgehog_softmax", "hedgehog_exp", "taylor")
        if self.mapped:
            self.map_q = Weight(l.heads, l.head_dim, l.feature_dim)
            self.map_k = Weight(l.heads, l.head_dim, l.feature_dim)

    def phi_q(self, q):
        return features(q, self.l.feature_map, self.map_q.weight if self.mapped else None)

    def phi_k(self, k):
        return features(expand(k, self.l.heads), self.l.feature_map, self.map_k.weight if self.mapped else None)


def with_ones(v):
    return torch.cat([v, torch.ones_like(v[..., :1])], -1)


class Joint(Attention, Maps):
    """Softmax over the last `window` keys, linear attention over all before them, sinks: one denominator.

    Z_t = sum_near e^{s_tj} + e^{c_t} sum_far D_tj phi(q_t).phi(k_j) + sum_m e^{sink_m + off_t}
    y_t = (sum_near e^{s_tj} v_j + e^{c_t} sum_far D_tj phi(q_t).phi(k_j) v_j) / Z_t,   D_tj = prod_{l=j+1..t} sigmoid(gate_l)

    gated_window, block_causal:  off = 0, c = far_logit;  linear, based with a joint window: the same without gate
    lolcats:  off = c = max_t - log sigmoid(window_logit), max_t the largest near score, a constant for the gradient
    block_causal:  near are the keys of t's own chunk, far those of the chunks before"""

    def __init__(self, c, l):
        super().__init__(c, l)
        self.add_maps(l)
        self.chunk = l.recurrent_chunk if l.mixer == "block_causal" else 0
        self.lag = self.chunk or l.window
        self.gated = l.mixer in ("gated_window", "block_causal") or (l.mixer == "lolcats" and l.gated)
        if self.gated:
            self.gate = linear(c.hidden_size, l.heads, True)
        if l.mixer == "lolcats":
            self.window_logit = new(l.heads, value=-2.1972246)
        else:
            self.far_logit = new(l.heads)
        self.sinks = l.sinks > 0 and (l.mixer != "lolcats" or l.gated)
        if self.sinks:
            self.sink = new(l.heads, l.sinks)

    def forward(self, x, step, state):
        l = self.l
        q, k, v = self.project(x)
        q, k = step.turn(l, q), step.turn(l, k)
        g = log_sigmoid(self.gate(x)).mT[..., None] if self.gated else q.new_zeros(*q.shape[:3], 1)
        g = step.keep(g)
        s = Slots(state, step, self.lag, k=k, v=v, g=g)
        window = 0 if self.chunk else l.window
        o, lse, top = attend(q, l, s.k, s.v, step.position, s.at, s.kept, window, chunk=self.chunk)
        num, den = self.far(q, g, step, state, s)
        if l.mixer == "lolcats":
            off = top.detach() - log_sigmoid(self.window_logit)[:, None, None]
        else:
            off = self.far_logit.float()[:, None, None].expand_as(lse)
        some = den > 0
        den = torch.where(some, den, torch.ones_like(den))
        log_far = torch.where(some, off + den.log(), torch.full_like(den, NEVER))
        terms = [lse, log_far]
        if self.sinks:
            sink = self.sink.float()[None, :, None].expand(*lse.shape[:3], -1)
            terms.append(sink + off if l.mixer == "lolcats" else sink)
        total = torch.cat(terms, -1).logsumexp(-1, keepdim=True)
        y = (lse - total).exp() * o + (log_far - total).exp() * num / den
        return self.leave(x, join_heads(y))

    def far(self, q, g, step, state, s):
        """Row t takes in the key `lag` tokens back, decayed by all tokens since; in chunks, the keys of earlier chunks that are nearer
        are read one by one. num [B,H,T,V], den [B,H,T,1]"""
        T, lag = q.shape[2], self.lag
        phi_q, filled = self.phi_q(q), (s.at >= 0)[:, None, :, None]
        b = running_sum(s.g)
        v = with_ones(expand(s.v, q.shape[1]))
        entering = max(0, s.count - lag)
        phi_k = self.phi_k(s.k if self.chunk else s.k[:, :, :entering])
        phi_k = phi_k * filled[:, :, : phi_k.shape[2]]
        inner = phi_k[:, :, :entering] * decay(b[:, :, lag:] - b[:, :, :entering])
        early = (0, 0, T - entering, 0)
        S = state.get("far") if state is not None else None
        o, S = recurrence(phi_q, F.pad(inner, early), F.pad(v[:, :, :entering], early), S, g if self.gated else None)
        if state is not None:
            state["far"] = S
        if self.chunk:
            o = o + self.nearer(phi_q, phi_k, v, b, step, s)
        return o[..., :-1], o[..., -1:]

    def nearer(self, phi_q, phi_k, v, b, step, s):
        out, C = [], self.chunk
        for i in range(0, phi_q.shape[2], ROWS):
            to = min(i + ROWS, phi_q.shape[2])
            slots = slice(max(0, s.kept + i - C + 1), s.kept + to)
            t, j = step.position[:, None, i:to, None], s.at[:, None, None, slots]
            seen = (j >= 0) & (j < t) & (t - j < C) & (j // C < t // C)
            d = decay((b[:, :, s.kept + i : s.kept + to] - b[:, :, slots].mT).masked_fill(~seen, -math.inf))
            out.append((phi_q[:, :, i:to] @ phi_k[:, :, slots].mT * d) @ v[:, :, slots])
        return torch.cat(out, 2)


def divide(o):
    """o [..,V+1]: the last is what the others are divided by; not positive: nothing is there"""
    den = o[..., -1:]
    some = den > 1e-30
    return o[..., :-1] * some / torch.where(some, den, torch.ones_like(den))


class Lizard(Attention, Maps):
    """y_t = sum_{j <= t} D_tj phi(q_t).phi(k_j) v_j / sum_{j <= t} D_tj phi(q_t).phi(k_j) + alpha (window softmax with sinks)

    D_tj the product of sigmoid(gate_l), l = j+1..t; rotary in the window alone."""

    def __init__(self, c, l):
        super().__init__(c, l)
        self.add_maps(l)
        self.gate, self.alpha = linear(c.hidden_size, l.heads, True), new(l.heads, value=1.0)
        if l.sinks:
            self.sink = new(l.heads, l.sinks)

    def forward(self, x, step, state):
        l = self.l
        q, k, v = self.project(x)
        s = Slots(state, step, l.window - 1, k=step.turn(l, k), v=v)
        w, _, _ = attend(step.turn(l, q), l, s.k, s.v, step.position, s.at, s.kept, l.window, sink=self.sink_of())
        g = step.keep(log_sigmoid(self.gate(x)).mT[..., None])
        S = state.get("far") if state is not None else None
        o, S = recurrence(self.phi_q(q), step.keep(self.phi_k(k)), with_ones(expand(v, l.heads)), S, g)
        if state is not None:
            state["far"] = S
        return self.leave(x, join_heads(divide(o) + self.alpha.float()[:, None, None] * w))


class SMA(Attention):
    """Sparse modular activation: r_t = w . x_t + b picks t if positive, p_t = sigmoid(r_t e^{-temperature})

    y_t = p_t o_t [picked] + skip e_t,  o_t softmax over the last `window` picked tokens,
    e_t = a e_{t-1} + (1 - a) v_t,  a = sigmoid(decay)"""

    def __init__(self, c, l):
        super().__init__(c, l)
        n = l.heads * l.value_dim
        self.router = Weight(c.hidden_size, bias=1)
        self.temperature, self.decay, self.skip = new(1), new(n), new(n)
        if l.sinks:
            self.sink = new(l.heads, l.sinks)

    def forward(self, x, step, state):
        l = self.l
        q, k, v = self.project(x)
        r = x.float() @ self.router.weight.float() + self.router.bias.float()
        picked = r > 0 if step.valid is None else (r > 0) & step.valid
        past = state.get("picked") if state is not None else None
        count = picked.long().cumsum(1) + (0 if past is None else past)
        number = torch.where(picked, count - 1, -1)
        # the picked tokens are a text of their own: a token's number among them, -1 of the others
        among = Step(number, picked, step.ropes)
        s = Slots(state, among, l.window - 1, k=step.turn(l, k), v=v)
        o, _, _ = attend(step.turn(l, q), l, s.k, s.v, number, s.at, window=l.window, kept=s.kept, slide=False, sink=self.sink_of())
        p = torch.sigmoid(r * torch.exp(-self.temperature.float())) * picked
        a = torch.sigmoid(self.decay.float())
        mean = join_heads(expand(v, l.heads))
        a = a.expand_as(mean)
        u = step.keep((1 - a) * mean)
        if step.valid is not None:
            a = torch.where(step.valid[..., None], a, torch.ones_like(a))
        e, last = scan(a, u, state.get("mean") if state is not None else None)
        if state is not None:
            state["mean"], state["picked"] = last, count[:, -1:]
        return self.leave(x, join_heads(o) * p[..., None] + self.skip.float() * e)
