"""Tegu hybrids in plain PyTorch, for AutoModelForCausalLM.from_pretrained(..., trust_remote_code=True). Parameters have the names of the
checkpoint (docs/formats/native.md). Mixers are in attention_tegu.py and recurrent_tegu.py."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .attention_tegu import MLA, SMA, Bias, Joint, Latent, Lizard, Softmax, Step, Weight, linear, rms
from .configuration_tegu import TeguConfig
from .recurrent_tegu import (
    HGRN, RECIPES, RGLRU, RWKV7, Hyena, Linear, Mamba1, Mamba2, Mamba2Attention, ShortConv,
)

MIXERS = {
    "softmax": Softmax, "window": Softmax, "latent": Latent, "mla": MLA, "sma": SMA,
    "gated_window": Joint, "block_causal": Joint, "lolcats": Joint, "lizard": Lizard,
    "rwkv7": RWKV7, "hgrn": HGRN, "hyena_x": Hyena, "hyena_y": Hyena, "hyena_se": Hyena,
    "mamba2": Mamba2, "mamba2_attention": Mamba2Attention, "mamba1": Mamba1, "short_conv": ShortConv, "rglru": RGLRU,
    **{name: Linear for name in RECIPES},
}


def mixer_of(c, l, index):
    if l.mixer in ("linear", "based") and l.window and l.window_form == "joint":
        return Joint(c, l)
    if l.mixer not in MIXERS:
        raise ValueError(f"config.json: layers[{index}]: mixer \"{l.mixer}\" is not known to this code; known: {', '.join(sorted(MIXERS))}")
    return MIXERS[l.mixer](c, l)


class Norm(nn.Module):
    """rms: x r w,  r = (mean(x^2) + eps)^-1/2;  layer: of x - mean(x), plus b. The factor is 1 + w with plus_one."""

    def __init__(self, c):
        super().__init__()
        self.layer, self.plus_one, self.eps = c.norm_kind == "layer", c.norm_plus_one, c.rms_norm_eps
        self.weight = self.bias = None
        if not c.norm_bare:
            self.weight = nn.Parameter(torch.full((c.hidden_size,), 0.0 if c.norm_plus_one else 1.0))
            if c.norm_bias:
                self.bias = nn.Parameter(torch.zeros(c.hidden_size))

    def forward(self, x):
        y = x.float()
        if self.layer:
            y = y - y.mean(-1, keepdim=True)
        y = rms(y, self.weight.float() + 1 if self.plus_one and self.weight is not None else self.weight, self.eps)
        return (y if self.bias is None else y + self.bias.float()).to(x.dtype)


# Rotary frequencies


def frequencies(rope, n, length):
    """Of the n / 2 pairs, float32 [n/2], and the factor of cosines and sines; length: tokens of the longest text, where the kind asks.

    default  f_i = theta^(-2i/n);   linear  f_i / factor;   dynamic  theta grows with the text
    llama3   wavelengths above original / low are divided by factor, those below original / high kept, between them a mixture
    yarn     f_i / factor below, f_i above a ramp between the pairs that turn beta_fast and beta_slow times over the original length
    longrope f_i / short_i, or f_i / long_i for texts above the original length"""
    kind, theta = rope["rope_type"], rope["rope_theta"]
    factor, original = rope.get("factor", 1.0), rope.get("original_max_position_embeddings")
    exponent = (torch.arange(0, n, 2, dtype=torch.float32) / n).double()
    scale = 1.0
    if kind == "none":
        return torch.zeros(n // 2), scale
    if kind == "dynamic":
        theta *= (factor * max(length, original) / original - (factor - 1)) ** (n / (n - 2))
    period = (torch.tensor(theta).double() ** exponent).float()
    f = 1 / period
    if kind == "linear":
        f = f / factor
    elif kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        wavelength = 2 * math.pi / f
        smooth = (original / wavelength - low) / (high - low)
        mixed = (1 - smooth) * f / factor + smooth * f
        f = torch.where(wavelength > original / low, f / factor, torch.where(wavelength < original / high, f, mixed))
    elif kind == "yarn":
        pair = lambda turns: n * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
        first, last = pair(rope["beta_fast"]), pair(rope["beta_slow"])
        if rope["truncate"]:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, n - 1)
        last += 0.001 if first == last else 0
        kept = 1 - ((torch.arange(n // 2, dtype=torch.float32) - first) / (last - first)).clamp(0, 1)
        f = 1 / (factor * period) * (1 - kept) + f * kept
        scale = rope["attention_factor"]
    elif kind == "longrope":
        f = 1 / (torch.tensor(rope["long_factor" if length > original else "short_factor"]) * period)
        scale = rope["attention_factor"]
    elif kind not in ("default", "dynamic"):
        raise ValueError(f"config.json: rope_type \"{kind}\" is not known to this code")
    return f, scale


class Ropes:
    """Cosines and sines [B,T,n/2] of positions, made where they are asked for; padding is as position 0."""

    def __init__(self, c, length):
        self.ropes, self.length, self.known = c.ropes, length, {}

    def __call__(self, which, n, position):
        if (which, n) not in self.known:
            f, scale = frequencies(self.ropes[which], n, self.length)
            self.known[which, n] = f, scale
        f, scale = self.known[which, n]
        angle = position.clamp(min=0)[..., None].float() * f.to(position.device)
        return angle.cos() * scale, angle.sin() * scale


# Mlps


def act(kind, a, b=None):
    """act(a) . b"""
    if kind == "clamped_glu":
        a, b = a.clamp(max=7), b.clamp(-7, 7)
        return a * torch.sigmoid(1.702 * a) * (b + 1)
    if kind == "relu2":
        a = F.relu(a).square()
    elif kind == "gelu_tanh":
        a = F.gelu(a, approximate="tanh")
    elif kind in ("silu", "gelu", "relu"):
        a = getattr(F, kind)(a)
    else:
        raise ValueError(f"config.json: hidden_act \"{kind}\" is not known to this code")
    return a if b is None else a * b


class MLP(nn.Module):
    """gated: down(act(gate_scale gate x) . up x);   plain: down(act(up x))"""

    def __init__(self, l, D, M, bias):
        super().__init__()
        self.kind, self.gate_scale, self.gated = l.hidden_act, l.gate_scale, l.mlp_kind == "gated"
        if self.gated:
            self.gate = linear(D, M, bias)
        self.up, self.down = linear(D, M, bias), linear(M, D, bias)

    def forward(self, x):
        if self.gated:
            return self.down(act(self.kind, self.gate_scale * self.gate(x), self.up(x)))
        return self.down(act(self.kind, self.up(x)))


class MoE(nn.Module):
    """y = sum of weight . expert(x) over the experts_per_token of best score s = W x (+ b), + the shared expert

    softmax_top  p = softmax(s), the best of p, over their sum with renormalise;   top_softmax  the best of s, softmax over those
    sigmoid      p = sigmoid(s), chosen by p + correction within the best groups, a group's score the sum of its two best"""

    def __init__(self, l, D):
        super().__init__()
        self.l, E, M = l, l.experts, l.expert_mlp_dim
        stack = lambda rows, columns: Weight(E, rows, columns, bias=(E, rows) if l.expert_bias else None)
        self.router = linear(D, E, l.router_bias)
        if l.router_correction:
            self.register_buffer("correction", torch.zeros(E))  # it chooses; no gradient reaches it
        if l.mlp_kind == "gated":
            self.gate = stack(M, D)
        self.up, self.down = stack(M, D), stack(D, M)
        if l.shared_expert_mlp_dim:
            self.shared = MLP(l, D, l.shared_expert_mlp_dim, False)
        if l.shared_expert_gate:
            self.shared_gate = linear(D, 1)

    def route(self, x):
        """weights and experts [rows,k] of x [rows,D]"""
        l, k = self.l, self.l.experts_per_token
        s = F.linear(x.float(), self.router.weight.float(), None if self.router.bias is None else self.router.bias.float())
        if l.router == "top_softmax":
            best, chosen = s.topk(k, -1)
            return l.expert_scale * best.softmax(-1), chosen
        p = s.softmax(-1) if l.router == "softmax_top" else torch.sigmoid(s)
        v = p + self.correction.float() if l.router_correction else p
        if l.router == "sigmoid" and l.expert_groups > 1 and l.expert_groups_kept < l.expert_groups:
            grouped = v.unflatten(-1, (l.expert_groups, -1))
            score = grouped.topk(min(2, grouped.shape[-1]), -1).values.sum(-1)
            kept = torch.zeros_like(score).scatter(-1, score.topk(l.expert_groups_kept, -1).indices, 1.0)
            v = grouped.masked_fill(kept[..., None] == 0, -math.inf).flatten(-2)
        chosen = v.topk(k, -1).indices
        w = p.gather(-1, chosen)
        if l.router_renormalise:
            w = w / (w.sum(-1, keepdim=True) + (1e-20 if l.router == "sigmoid" else 0))
        return l.expert_scale * w, chosen

    def expert(self, e, x):
        part = lambda stack, y: F.linear(y, stack.weight[e], stack.bias[e] if self.l.expert_bias else None)
        if self.l.mlp_kind == "gated":
            return part(self.down, act(self.l.hidden_act, self.l.gate_scale * part(self.gate, x), part(self.up, x)))
        return part(self.down, act(self.l.hidden_act, part(self.up, x)))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        w, chosen = self.route(rows)
        y = torch.zeros_like(rows, dtype=torch.float32)
        for e in chosen.unique().tolist():
            row, place = (chosen == e).nonzero(as_tuple=True)
            y = y.index_add(0, row, self.expert(e, rows[row]).float() * w[row, place, None])
        y = y.to(x.dtype)
        if self.l.shared_expert_mlp_dim:
            shared = self.shared(rows)
            y = y + (shared * torch.sigmoid(self.shared_gate(rows).float()).to(x.dtype) if self.l.shared_expert_gate else shared)
        return y.view_as(x)


# Blocks

# The norms that there are
RESIDUALS = {
    "pre": ("norm_in", "norm_mlp"),
    "post": ("norm_mixer_out", "norm_mlp_out"),
    "sandwich": ("norm_in", "norm_mixer_out", "norm_mlp", "norm_mlp_out"),
    "parallel": ("norm_in", "norm_mlp"),
    "shared": ("norm_in",),
    "after": ("norm_mixer_out", "norm_mlp_out"),
    "normed": ("norm_in", "norm_mlp"),
}


class Layer(nn.Module):
    """A residual block; f a branch, s its scale:

    pre       h = h + s f(norm h)                post   h = h + s norm_out(f(h))      sandwich  h = h + s norm_out(f(norm h))
    parallel  h = h + s f(norm h) + s' f'(norm' h)      shared   the same with one norm for both
    after     h = norm_out(h + s f(h))           normed  x = norm h;  h = skip x + s f(x)"""

    def __init__(self, c, l, index):
        super().__init__()
        if l.residual not in RESIDUALS:
            raise ValueError(f"config.json: layers[{index}]: residual \"{l.residual}\" is not known to this code")
        self.l, self.mixer = l, mixer_of(c, l, index)
        has_mlp = l.mlp_kind != "none"
        for name in ("norm_in", "norm_mixer_out", "norm_mlp", "norm_mlp_out"):
            there = name in RESIDUALS[l.residual] and (has_mlp or not name.startswith("norm_mlp"))
            setattr(self, name, Norm(c) if there else None)
        self.mlp = self.moe = None
        if has_mlp and l.experts:
            self.moe = MoE(l, c.hidden_size)
        elif has_mlp:
            self.mlp = MLP(l, c.hidden_size, l.mlp_dim, l.mlp_bias)

    def add(self, h, x, y, scale, skip, norm):
        kind = self.l.residual
        if kind == "after":
            return norm(h + scale * y)
        if kind == "normed":
            h = skip * x
        return h + scale * (y if norm is None else norm(y))

    def forward(self, h, step, state):
        l, entered, step = self.l, h, step.on(h.device)
        x = h if self.norm_in is None else self.norm_in(h)
        h = self.add(h, x, self.mixer(x, step, state), l.mixer_scale, l.mixer_skip, self.norm_mixer_out)
        mlp = self.mlp if self.mlp is not None else self.moe
        if mlp is None:
            return h
        if l.residual != "shared":
            of = entered if l.residual == "parallel" else h
            x = of if self.norm_mlp is None else self.norm_mlp(of)
        return self.add(h, x, l.down_scale * mlp(x), l.mlp_scale, l.mlp_skip, self.norm_mlp_out)


class TeguCache:
    """What the layers of a model remember of the texts so far: keys and values where a layer is softmax, else states of constant size. A
    list of dictionaries by layer, of tensors whose first axis is the batch."""

    is_compileable = False

    def __init__(self, layers):
        self.layers = [{} for _ in range(layers)]
        self.length = 0  # with padding
        self.seen = None  # [B] tokens without it

    def get_seq_length(self, layer_idx=0):
        return self.length

    def get_max_length(self):
        return None

    def get_max_cache_shape(self, layer_idx=0):
        return None

    def __len__(self):
        return len(self.layers)

    def map(self, f):
        def each(x):
            return {name: each(y) for name, y in x.items()} if isinstance(x, dict) else f(x)

        self.layers = [each(state) for state in self.layers]
        self.seen = None if self.seen is None else f(self.seen)

    def reorder_cache(self, beam_idx):
        self.map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats):
        self.map(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices):
        self.map(lambda x: x[indices, ...])

    def crop(self, max_length):
        raise ValueError("a TeguCache cannot be cut: recurrent states hold no single tokens")


class TeguPreTrainedModel(PreTrainedModel):
    config_class = TeguConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]
    _skip_keys_device_placement = ["past_key_values"]
    _is_stateful = True

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)


class TeguModel(TeguPreTrainedModel):
    """Embeddings to the last norm."""

    _auto_class = "AutoModel"  # so that every version's save_pretrained takes these files along

    def __init__(self, config):
        super().__init__(config)
        c, E = config, config.embed_dim or config.hidden_size
        self.embed = nn.Embedding(c.vocab_size, E)
        self.pos = nn.Embedding(c.learned_positions, c.hidden_size) if c.learned_positions else None
        self.embed_in = linear(E, c.hidden_size) if c.embed_dim else None
        self.layers = nn.ModuleList([Layer(c, l, i) for i, l in enumerate(c.layer_specs())])
        self.norm_out = None if c.no_norm_out else Norm(c)
        self.gradient_checkpointing = False
        self.add_head(config)
        self.post_init()

    def add_head(self, config):
        pass

    def get_input_embeddings(self):
        return self.embed

    def set_input_embeddings(self, value):
        self.embed = value

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def run(self, input_ids, attention_mask, inputs_embeds, cache, output_hidden_states):
        """h [B,T,D] after the last norm, and all h before layers"""
        c = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        h = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        B, T = h.shape[:2]
        valid, order = self.padding(attention_mask, B, T, h.device)
        if order is not None:
            h = h.gather(1, order[..., None].expand_as(h))
        seen = cache.seen if cache is not None and cache.seen is not None else torch.zeros(B, dtype=torch.long, device=h.device)
        if valid is None:
            position = seen[:, None] + torch.arange(T, device=h.device)
        else:
            position = torch.where(valid, seen[:, None] + valid.long().cumsum(1) - 1, -1)
        length = int(position.max()) + 1
        if c.embed_dim:
            h = self.embed_in(h)
        h = h * c.embed_scale if c.embed_scale else h
        if c.learned_positions:
            if length + c.position_offset > c.learned_positions:
                raise ValueError(f"a text of {length} tokens; the model has positions for {c.learned_positions - c.position_offset}")
            h = h + self.pos(position.clamp(min=0) + c.position_offset)
        step = Step(position, valid, Ropes(c, length))
        kept = []
        back = None if order is None else order.argsort(1)
        show = lambda x: x if back is None else x.gather(1, back[..., None].expand_as(x))
        for i, layer in enumerate(self.layers):
            if output_hidden_states:
                kept.append(show(h))
            state = cache.layers[i] if cache is not None else None
            if self.gradient_checkpointing and self.training:
                h = self._gradient_checkpointing_func(layer.__call__, h, step, state)
            else:
                h = layer(h, step, state)
        h = h if self.norm_out is None else self.norm_out(h)
        if cache is not None:
            cache.length, cache.seen = cache.length + T, position.amax(1).clamp(min=-1).add(1).maximum(seen)
        h = show(h)
        if output_hidden_states:
            kept.append(h)
        return h, tuple(kept) if output_hidden_states else None

    def padding(self, mask, B, T, device):
        """valid [B,T] of the new tokens, None if all are; order [B,T]: how to bring padding before the tokens, None if it is there"""
        if mask is None:
            return None, None
        if mask.dim() != 2 or mask.shape[0] != B or mask.shape[1] < T:
            raise ValueError(f"attention_mask must be [batch, tokens] for {B} texts and at least {T} tokens; it is {list(mask.shape)}")
        valid = mask[:, mask.shape[1] - T :].to(device).bool()
        if valid.all():
            return None, None
        if (valid[:, 1:] >= valid[:, :-1]).all():
            return valid, None
        order = valid.int().argsort(dim=1, stable=True)
        return valid.gather(1, order), order

    def start_cache(self, past_key_values, use_cache):
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if self.training and self.gradient_checkpointing:  # layers run twice
            return None
        if isinstance(past_key_values, TeguCache):
            return past_key_values
        if past_key_values is not None and past_key_values.get_seq_length():
            raise ValueError(f"past_key_values must be a TeguCache, not {type(past_key_values).__name__}")
        return TeguCache(len(self.layers)) if use_cache else None

    def forward(
        self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, use_cache=None, output_hidden_states=None,
        return_dict=None, **kwargs,
    ):
        cache = self.start_cache(past_key_values, use_cache)
        h, kept = self.run(input_ids, attention_mask, inputs_embeds, cache, output_hidden_states)
        out = BaseModelOutputWithPast(last_hidden_state=h, past_key_values=cache, hidden_states=kept)
        return out if return_dict is not False else out.to_tuple()


class TeguForCausalLM(TeguModel, GenerationMixin):
    """position_ids are not read: positions count the tokens that attention_mask leaves, wherever its zeros are."""

    _auto_class = "AutoModelForCausalLM"

    def add_head(self, config):
        self.embed_out = linear(config.hidden_size, config.embed_dim) if config.embed_dim else None
        self.tied = config.tie_word_embeddings
        if not self.tied:
            self.head = linear(config.embed_dim or config.hidden_size, config.vocab_size, config.head_bias)
        else:
            self.head = Bias(config.vocab_size) if config.head_bias else None

    def get_output_embeddings(self):
        return None if self.tied else self.head

    def set_output_embeddings(self, value):
        self.head = value

    def logits_of(self, h):
        c = self.config
        if self.embed_out is not None:
            h = self.embed_out(h)
        logits = F.linear(h, self.embed.weight if self.tied else self.head.weight, getattr(self.head, "bias", None)).float()
        logits = logits * c.logit_scale if c.logit_scale else logits
        return c.logit_softcap * torch.tanh(logits / c.logit_softcap) if c.logit_softcap else logits

    def forward(
        self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, labels=None, use_cache=None,
        output_hidden_states=None, return_dict=None, logits_to_keep=0, **kwargs,
    ):
        cache = self.start_cache(past_key_values, use_cache)
        h, kept = self.run(input_ids, attention_mask, inputs_embeds, cache, output_hidden_states)
        if isinstance(logits_to_keep, int):
            h = h[:, -logits_to_keep:] if logits_to_keep else h
        else:
            h = h[:, logits_to_keep]
        logits, loss = self.logits_of(h), None
        if labels is not None:
            count = kwargs.get("num_items_in_batch")  # of all batches that a trainer adds up
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten().to(logits.device),
                                   reduction="mean" if count is None else "sum")
            loss = loss if count is None else loss / count
        out = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache, hidden_states=kept)
        return out if return_dict is not False else out.to_tuple()

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, inputs_embeds=None, use_cache=True, **kwargs
    ):
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        inputs = {"past_key_values": past_key_values, "attention_mask": attention_mask, "use_cache": use_cache}
        if inputs_embeds is not None and not past:
            inputs["inputs_embeds"] = inputs_embeds
        else:
            # all tokens so far, or only those that follow the cache
            whole = attention_mask is None or input_ids.shape[1] == attention_mask.shape[1]
            inputs["input_ids"] = input_ids[:, past:] if past and whole and input_ids.shape[1] > past else input_ids
        inputs["logits_to_keep"] = 1
        return inputs
