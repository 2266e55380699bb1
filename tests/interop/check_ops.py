#!/usr/bin/env python3
"""Operations and recurrences at random shapes against their equations in float64, differentiated by `autograd`.

    python3 tests/interop/check_ops.py [BUILD] [--count N] [--seed S] [--keep DIR]

writes N folders (default 6) like tests/data/ops, each of other shapes, and runs BUILD/tests/test_ops on each: outputs, final
states and gradients below its 1e-5. Equations are written plainly, one token after another or as whole tables of scores.
Needs autograd, numpy and safetensors.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import autograd.numpy as np
from autograd import make_vjp
from autograd.tracer import getval
from safetensors.numpy import save_file


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softmax(x):
    e = np.exp(x - np.max(x, -1, keepdims=True))
    return e / np.sum(e, -1, keepdims=True)


def log_softmax(x):
    m = np.max(x, -1, keepdims=True)
    return x - m - np.log(np.sum(np.exp(x - m), -1, keepdims=True))


def unit(x):
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + 1e-6)


def rmsnorm(x, w, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * w


# Recurrences: rows [B,T,H,...], state S [B,H,K,V]; (out, final state)


def recurrence(T, S, step, read):
    o = []
    for t in range(T):
        S = step(S, t)
        o.append(read(S, t))
    return np.stack(o, 1), S


def key_rows(q, S):
    return np.einsum("bhk,bhkv->bhv", q, S)


def write(k, v):
    return k[..., :, None] * v[..., None, :]


def outer(decay, q, k, v, S, scale):
    """S_t = decay_t S_{t-1} + k_t v_t^T, o_t = scale q_t S_t; decay [B,T,H,1 or K]"""
    return recurrence(q.shape[1], S, lambda S, t: decay[:, t][..., None] * S + write(k[:, t], v[:, t]),
                      lambda S, t: scale * key_rows(q[:, t], S))


def delta(decay, q, k, v, beta, S, scale):
    q, k, beta = unit(q), unit(k), sigmoid(beta)

    def step(S, t):
        S = decay[:, t][..., None] * S
        return S + write(k[:, t], beta[:, t][..., None] * (v[:, t] - key_rows(k[:, t], S)))

    return recurrence(q.shape[1], S, step, lambda S, t: scale * key_rows(q[:, t], S))


def rwkv7(r, k, v, w, a, b, S):
    step = lambda S, t: (np.exp(w[:, t])[..., None] * S + write(b[:, t], key_rows(a[:, t], S)) + write(k[:, t], v[:, t]))
    return recurrence(r.shape[1], S, step, lambda S, t: key_rows(r[:, t], S))


def mamba2(x, dt, A_log, B, C, D, dt_bias):
    dt = np.log1p(np.exp(dt + dt_bias))
    S = np.zeros((x.shape[0], x.shape[2], B.shape[-1], x.shape[3]))
    step = lambda S, t: (np.exp(-dt[:, t] * np.exp(A_log))[..., None, None] * S +
                         write(B[:, t, None, :], dt[:, t][..., None] * x[:, t]))
    read = lambda S, t: np.einsum("bk,bhkv->bhv", C[:, t], S) + D[:, None] * x[:, t]
    return recurrence(x.shape[1], S, step, read)


def hgrn(i, f, h):
    f = sigmoid(f)
    return recurrence(i.shape[1], h, lambda h, t: f[:, t] * h + (1 - f[:, t]) * i[:, t], lambda h, t: h)


# Attention: q [B,T,H,K], k and v of G heads, query head h reads head h / (H / G); weights [B,H,T,T]


def spread(x, H):
    return np.repeat(x, H // x.shape[2], 2)


def scores(q, k):
    return np.einsum("bthk,bjhk->bhtj", q, spread(k, q.shape[2]))


def mix(weights, v):
    return np.einsum("bhtj,bjhv->bthv", weights, spread(v, weights.shape[1]))


def ages(T):
    return np.arange(T)[:, None] - np.arange(T)[None, :]


def near(T, window):
    return (ages(T) >= 0) & (ages(T) < window)


def row_sums(x):
    """[B,H,T,n] to [B,T,H,1]"""
    return np.swapaxes(np.sum(x, -1), 1, 2)[..., None]


def attend(q, k, v, scale, window=None, sink=None):
    T = q.shape[1]
    e = np.where(near(T, window or T), np.exp(np.where(ages(T) >= 0, scale * scores(q, k), 0)), 0)
    den = row_sums(e) + (0 if sink is None else np.sum(np.exp(sink), -1)[:, None])
    return mix(e, v) / den


def phi(x, w):
    """[B,T,H,K], [H,K,F]: softmax(x W) and softmax(-x W) beside each other, 2F features"""
    u = np.einsum("bthk,hkf->bthf", x, w)
    return np.maximum(np.concatenate([softmax(u), softmax(-u)], -1), 1e-12)


def far_weights(q, k, wq, wk, gate, keep):
    """D_tj phi(q_t).phi(k_j), D_tj the product of sigmoid(gate_l) over l = j+1 .. t"""
    H = q.shape[2]
    w = np.einsum("bthf,bjhf->bhtj", phi(q, wq), phi(spread(k, H), wk))
    if gate is not None:
        c = np.swapaxes(np.cumsum(-np.log1p(np.exp(-gate)), 1), 1, 2)
        w = w * np.exp(np.where(ages(q.shape[1]) >= 0, c[..., :, None] - c[..., None, :], 0))
    return np.where(keep, w, 0)


def gated_window(q, k, v, wq, wk, gate, sink, far_logit, scale, window):
    T = q.shape[1]
    e = np.where(near(T, window), np.exp(np.where(ages(T) >= 0, scale * scores(q, k), 0)), 0)
    far = np.exp(far_logit)[:, None, None] * far_weights(q, k, wq, wk, gate, ages(T) >= window)
    den = row_sums(e + far) + np.sum(np.exp(sink), -1)[:, None]
    return mix(e + far, v) / den


def lolcats(q, k, v, wq, wk, window_logit, scale, window, gate=None, sink=None):
    """The maximum of a row's window is a constant of the gradient"""
    T = q.shape[1]
    s = np.where(near(T, window), scale * scores(q, k), -1e30)
    e = sigmoid(window_logit)[:, None, None] * np.exp(s - np.max(getval(s), -1, keepdims=True))
    far = far_weights(q, k, wq, wk, gate, ages(T) >= window)
    den = row_sums(e + far) + (0 if sink is None else np.sum(np.exp(sink), -1)[:, None])
    return mix(e + far, v) / den


def lizard(q, k, v, wq, wk, gate, alpha, sink, scale, window):
    far = far_weights(q, k, wq, wk, gate, ages(q.shape[1]) >= 0)
    return mix(far, v) / row_sums(far) + alpha[:, None] * attend(q, k, v, scale, window, sink)


def based_taylor(q, k, v):
    s = scores(q, k) / np.sqrt(q.shape[-1])
    w = np.where(ages(q.shape[1]) >= 0, 1 + s + s * s / 2, 0)
    return mix(w, v) / (row_sums(w) + 1e-12)


# Other layers


def rope(x, theta):
    half = x.shape[-1] // 2
    angle = (np.arange(x.shape[1])[:, None] * theta ** (-np.arange(half) / half))[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def short_conv(x, w):
    taps = w.shape[1]
    past = np.concatenate([np.zeros((x.shape[0], taps - 1, x.shape[2])), x], 1)
    return silu(sum(w[:, j] * past[:, j:j + x.shape[1]] for j in range(taps)))


def kl_loss(teacher, student):
    p = log_softmax(teacher)
    return np.mean(np.sum(np.exp(p) * (p - log_softmax(student)), -1, keepdims=True), 0)


def ce_loss(logits, targets):
    return -np.mean(log_softmax(logits)[np.arange(len(targets)), targets])[None]


class Folder:
    """One folder of golden files, all of the same shapes"""

    def __init__(self, path, rng, B, T, H, G, K, V, F, window, sinks):
        self.path, self.rng = path, rng
        self.B, self.T, self.H, self.G, self.K, self.V, self.F, self.sinks = B, T, H, G, K, V, F, sinks
        self.window, self.scale = window, K ** -0.5

    def normal(self, *shape, by=1.0):
        return by * self.rng.standard_normal(shape)

    def rows(self, *shape, by=1.0):
        return self.normal(self.B, self.T, *shape, by=by)

    def decays(self, *shape):
        """Logs of decays between about 0.1 and 1"""
        return -np.exp(self.rows(*shape) - 1)

    def add(self, name, f, inputs, meta={}, more={}):
        """f(inputs in their order): the output, or (output, final state). more: tensors that f does not see"""
        values = tuple(np.array(v) for v in inputs.values())
        result = f(*values)
        y, final = result if isinstance(result, tuple) else (result, None)
        dy = np.ones(1) if y.shape == (1,) else self.normal(*y.shape)
        vjp, _ = make_vjp(lambda args: f(*args) if final is None else f(*args)[0])(values)
        tensors = {"out": y, "grad_out": dy, **more}
        tensors.update({"in." + n: v for n, v in zip(inputs, values)})
        tensors.update({"grad." + n: g for n, g in zip(inputs, vjp(dy))})
        if final is not None:
            tensors["final_state"] = final
        save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, os.path.join(self.path, name + ".safetensors"),
                  {k: repr(float(v)) for k, v in meta.items()})

    def write(self):
        B, T, H, G, K, V, F, scale = self.B, self.T, self.H, self.G, self.K, self.V, self.F, self.scale
        qk = lambda: {"q": self.rows(H, K), "k": self.rows(H, K)}
        qkv = lambda: dict(qk(), v=self.rows(H, V))
        grouped = lambda: {"q": self.rows(H, K), "k": self.rows(G, K), "v": self.rows(G, V)}
        state = lambda: {"initial_state": self.normal(B, H, K, V)}
        maps = lambda: {"wq": self.normal(H, K, F, by=0.5), "wk": self.normal(H, K, F, by=0.5)}
        gate, sink = self.rows(H) + 2, self.normal(H, self.sinks)
        s, sw = {"scale": scale}, {"scale": scale, "window": self.window}
        one = np.ones((B, T, H, 1))

        gamma = one * (1 - 2.0 ** (-5 - np.arange(H)))[:, None]
        self.add("linear_attention", lambda q, k, v, S: outer(one, q, k, v, S, scale), dict(qkv(), **state()), s)
        self.add("retention", lambda q, k, v, S: outer(gamma, q, k, v, S, scale), dict(qkv(), **state()), s)
        self.add("simple_gla", lambda q, k, v, g, S: outer(np.exp(g)[..., None], q, k, v, S, scale),
                 dict(qkv(), g=self.decays(H), **state()), s)
        self.add("gla", lambda q, k, v, g, S: outer(np.exp(g), q, k, v, S, scale),
                 dict(qkv(), g=self.decays(H, K), **state()), s)
        self.add("hgrn2", lambda q, f, v, S: outer(sigmoid(f), q, 1 - sigmoid(f), v, S, scale),
                 dict(q=self.rows(H, K), f=self.rows(H, K), v=self.rows(H, V), **state()), s)
        self.add("delta_rule", lambda q, k, v, b, S: delta(one, q, k, v, b, S, scale),
                 dict(qkv(), beta=self.rows(H), **state()), s)
        self.add("gated_delta_rule", lambda q, k, v, b, g, S: delta(np.exp(g)[..., None], q, k, v, b, S, scale),
                 dict(qkv(), beta=self.rows(H), g=self.decays(H), **state()), s)
        self.add("kda", lambda q, k, v, b, g, S: delta(np.exp(g), q, k, v, b, S, scale),
                 dict(qkv(), beta=self.rows(H), g=self.decays(H, K), **state()), s)
        a = unit(self.rows(H, K))
        self.add("rwkv7", rwkv7, dict(r=self.rows(H, K), k=self.rows(H, K), v=self.rows(H, V), w=self.decays(H, K), a=a,
                                      b=-a * sigmoid(self.rows(H, K)), **state()))
        self.add("mamba2", mamba2, dict(x=self.rows(H, V), dt=self.rows(H), A_log=self.normal(H, by=0.5),
                                        B=self.rows(K), C=self.rows(K), D=self.normal(H), dt_bias=self.normal(H)))
        self.add("hgrn", hgrn, dict(i=self.rows(H * V), f=self.rows(H * V), initial_state=self.normal(B, H * V)))

        self.add("softmax", lambda q, k, v: attend(q, k, v, scale), grouped(), s)
        self.add("swa", lambda q, k, v: attend(q, k, v, scale, self.window), grouped(), sw)
        self.add("swa_sink", lambda q, k, v, sink: attend(q, k, v, scale, self.window, sink), dict(grouped(), sink=sink), sw)
        self.add("gated_window", lambda q, k, v, wq, wk, g, m, l: gated_window(q, k, v, wq, wk, g, m, l, scale, self.window),
                 dict(grouped(), **maps(), gate=gate, sink=sink, far_logit=self.normal(H)), sw)
        self.add("lolcats", lambda q, k, v, wq, wk, l: lolcats(q, k, v, wq, wk, l, scale, self.window),
                 dict(grouped(), **maps(), window_logit=self.normal(H)), sw)
        self.add("gated_lolcats",
                 lambda q, k, v, wq, wk, l, g, m: lolcats(q, k, v, wq, wk, l, scale, self.window, g, m),
                 dict(grouped(), **maps(), window_logit=self.normal(H), gate=gate, sink=sink), sw)
        self.add("lizard", lambda q, k, v, wq, wk, g, a, m: lizard(q, k, v, wq, wk, g, a, m, scale, self.window),
                 dict(grouped(), **maps(), gate=gate, alpha=self.normal(H), sink=sink), sw)
        self.add("based_taylor", based_taylor, qkv())

        width, vocab = H * K, 3 * K + 1
        self.add("rope", lambda x: rope(x, 10000.0), {"x": self.rows(H, 2 * K)}, {"theta": 10000.0})
        self.add("rmsnorm", lambda x, w: rmsnorm(x, w, 1e-5), {"x": self.rows(width), "w": self.normal(width)}, {"eps": 1e-5})
        self.add("gated_rmsnorm", lambda x, z, w: rmsnorm(x, w, 1e-6) * silu(z),
                 {"x": self.rows(H, V), "z": self.rows(H, V), "w": self.normal(V)}, {"eps": 1e-6})
        self.add("short_conv_silu", short_conv, {"x": self.rows(width), "w": self.normal(width, 4)})
        self.add("swiglu", lambda x, g, u, d: (silu(x @ g.T) * (x @ u.T)) @ d.T,
                 {"x": self.rows(width), "w_gate": self.normal(3 * V, width), "w_up": self.normal(3 * V, width),
                  "w_down": self.normal(width, 3 * V)})
        teacher, targets = self.normal(B * T, vocab), self.rng.integers(vocab, size=B * T)
        self.add("kl_loss", lambda x: kl_loss(teacher, x), {"student_logits": self.normal(B * T, vocab)},
                 more={"teacher_logits": teacher})
        self.add("ce_loss", lambda x: ce_loss(x, targets), {"logits": self.normal(B * T, vocab)},
                 more={"targets": targets.astype(np.int32)})


def shapes(rng):
    """2 <= window < T: where one token alone is seen, or no far one, a gradient is 0 and has no relative error"""
    G, T = int(rng.integers(1, 4)), int(rng.integers(3, 150))
    return dict(B=int(rng.integers(1, 4)), T=T, H=G * int(rng.integers(1, 4)), G=G, K=int(rng.integers(2, 40)),
                V=int(rng.integers(1, 40)), F=int(rng.integers(1, 20)), window=int(rng.integers(2, min(40, T))),
                sinks=int(rng.integers(1, 6)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", nargs="?", default="build")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="leave the folders there")
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for n in range(args.seed, args.seed + args.count):
            rng = np.random.default_rng(n)
            size, path = shapes(rng), os.path.join(args.keep or temporary, "seed%d" % n)
            os.makedirs(path, exist_ok=True)
            Folder(path, rng, **size).write()
            r = subprocess.run([os.path.join(args.build, "tests/test_ops"), path], capture_output=True, text=True)
            lines = r.stdout.splitlines()
            known = all("not known" not in line for line in lines)
            failed += r.returncode != 0 or not known
            print("seed %d: %s: %s" % (n, " ".join("%s=%d" % x for x in size.items()), lines[-1] if lines else "no output"))
            if r.returncode or not known:
                print("\n".join(line for line in lines if not line.endswith(" ok")))
    print("%d folders, %d failed" % (args.count, failed))
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
