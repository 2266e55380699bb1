"""Configuration of Tegu hybrids: config.json as `tegu` writes it, every layer in full (docs/formats/native.md)."""

from types import SimpleNamespace

from transformers import PretrainedConfig

# A layer's keys that may be absent, with what then holds. None: another field's value, or no limit.
LAYER_DEFAULTS = {
    "value_dim": None, "value_heads": None, "window_form": "parallel", "linear_plain": False, "plain_values": False,
    "rope": 0, "qk_norm_bias": False, "attn_softcap": 0.0, "qkv_clip": 0.0, "output_gate": False,
    "q_rank": 0, "kv_rank": 0, "latent_eps": 0.0,
    "recurrent_v_heads": 0, "recurrent_v_dim": 0, "recurrent_conv": 0, "recurrent_inner_conv": 0, "recurrent_state": 0,
    "recurrent_groups": 0, "recurrent_inner": 0, "recurrent_rank": 0, "recurrent_partitions": 0, "recurrent_active": 0,
    "recurrent_chunk": 0, "recurrent_norm_groups": 0, "recurrent_no_shared": False, "recurrent_no_bound": False,
    "recurrent_conv_bias": False,
    "recurrent_proj_bias": False, "recurrent_out_bias": False, "recurrent_norm": False,
    "recurrent_norm_before_gate": False, "recurrent_negative_eigenvalues": False, "recurrent_dt_min": 0.0,
    "recurrent_dt_max": 0.0, "recurrent_norm_eps": 0.0, "recurrent_scales": [0.0] * 8, "recurrent_in_scale": 0.0,
    "recurrent_out_scale": 0.0, "recurrent_beside_scale": 0.0,
    "residual": "pre", "mixer_scale": 0.0, "mlp_scale": 0.0, "mixer_skip": 0.0, "mlp_skip": 0.0,
    "mlp_kind": "gated", "gate_scale": 0.0, "down_scale": 0.0,
    "experts": 0, "experts_per_token": 0, "expert_mlp_dim": 0, "router": "softmax_top", "router_renormalise": False,
    "router_bias": False, "router_correction": False, "expert_bias": False, "expert_scale": 0.0, "expert_groups": 0,
    "expert_groups_kept": 0, "shared_expert_mlp_dim": 0, "shared_expert_gate": False,
}
LAYER_KEYS = (
    "mixer", "heads", "kv_heads", "head_dim", "rotary_dim", "window", "sinks", "feature_map", "feature_dim", "gated",
    "qkv_bias", "o_bias", "qk_norm", "attn_scale", "mlp_dim", "hidden_act", "mlp_bias",
)
# A factor of zero stands for one.
FACTORS = ("mixer_scale", "mlp_scale", "mixer_skip", "mlp_skip", "gate_scale", "down_scale", "expert_scale",
           "recurrent_in_scale", "recurrent_out_scale", "recurrent_beside_scale")
FORMAT = 2


def read_layer(index, layer):
    """An entry of `layers` as attributes, everything filled in."""
    unknown = set(layer) - set(LAYER_KEYS) - set(LAYER_DEFAULTS)
    missing = set(LAYER_KEYS) - set(layer)
    if unknown or missing:
        which, keys = ("unknown", unknown) if unknown else ("missing", missing)
        raise ValueError(f"config.json: layers[{index}]: {which} keys: {', '.join(sorted(keys))}")
    l = SimpleNamespace(**{**LAYER_DEFAULTS, **layer})
    for name in FACTORS:
        setattr(l, name, getattr(l, name) or 1.0)
    l.recurrent_scales = [x or 1.0 for x in l.recurrent_scales]
    if isinstance(l.qk_norm, bool):  # format 1
        l.qk_norm = "head" if l.qk_norm else "none"
    l.value_dim = l.value_dim or l.head_dim
    l.value_heads = l.value_heads or l.kv_heads
    l.out_heads = max(l.heads, l.value_heads)
    return l


class TeguConfig(PretrainedConfig):
    model_type = "tegu"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=256,
        hidden_size=64,
        num_hidden_layers=0,
        layers=(),
        base_family="llama",
        max_position_embeddings=None,
        rms_norm_eps=1e-6,
        norm_kind="rms",
        norm_plus_one=False,
        norm_bare=False,
        norm_bias=False,
        no_norm_out=False,
        head_bias=False,
        embed_scale=0.0,
        logit_scale=0.0,
        logit_softcap=0.0,
        embed_dim=0,
        learned_positions=0,
        position_offset=0,
        rope_parameters=None,
        rope_parameters_1=None,
        tegu=None,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        if len(layers) != num_hidden_layers:
            raise ValueError(f"config.json: layers: {len(layers)} entries, but num_hidden_layers is {num_hidden_layers}")
        self.tegu = dict(tegu or {"format": FORMAT})
        if self.tegu.get("format", FORMAT) > FORMAT:
            raise ValueError(f"config.json: tegu.format: {self.tegu['format']} was written by a newer version; "
                             f"this code reads up to {FORMAT}")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.layers = [dict(layer) for layer in layers]
        self.base_family = base_family
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.norm_kind = norm_kind
        self.norm_plus_one = norm_plus_one
        self.norm_bare = norm_bare
        self.norm_bias = norm_bias
        self.no_norm_out = no_norm_out
        self.head_bias = head_bias
        self.embed_scale = embed_scale
        self.logit_scale = logit_scale
        self.logit_softcap = logit_softcap
        self.embed_dim = embed_dim
        self.learned_positions = learned_positions
        self.position_offset = position_offset
        # Not as rope_parameters: transformers would put its own defaults in.
        self.ropes = [rope_parameters, rope_parameters_1]
        self.use_cache = use_cache
        super().__init__(bos_token_id=bos_token_id, eos_token_id=eos_token_id or None,
                         tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.tie_word_embeddings = tie_word_embeddings

    def layer_specs(self):
        return [read_layer(i, layer) for i, layer in enumerate(self.layers)]

    def to_dict(self):
        d = super().to_dict()
        d.pop("ropes", None)
        d["rope_parameters"] = self.ropes[0]
        if self.ropes[1]:
            d["rope_parameters_1"] = self.ropes[1]
        return d

    def to_diff_dict(self):
        """What save_pretrained writes: `tegu` wants these keys even where they have their default."""
        d, full = super().to_diff_dict(), self.to_dict()
        d.pop("ropes", None)
        for key in ("rope_parameters", "rope_parameters_1", "rms_norm_eps", "tie_word_embeddings", "tegu", "base_family",
                    "max_position_embeddings", "vocab_size", "hidden_size", "num_hidden_layers", "layers"):
            if key in full:
                d[key] = full[key]
        if d.get("torch_dtype"):  # version 4's name for what the weights are now
            d["dtype"] = d["torch_dtype"]
        d["bos_token_id"] = self.bos_token_id
        d["eos_token_id"] = self.eos_token_id if self.eos_token_id is not None else []
        return d
