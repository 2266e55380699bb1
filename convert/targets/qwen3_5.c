/* Qwen3.5's dense text models (qwen3_5_text), of Qwen3-like teachers: files and config.json. */
#include "convert/targets/qwen3_5.h"

#include <math.h>

#include "convert/config.h"

static bool of_softmax(const struct tg_layout_ask *ask)
{
    return tg_qwen3_5_is_softmax(ask->layer);
}

/* q, k, v and o are stored under other names in softmax and in linear layers. */
static void softmax_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (of_softmax(ask))
        tg_layout_gated_q(ask, out);
}

static void softmax_same(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (of_softmax(ask))
        tg_layout_same(ask, out);
}

static void linear_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!of_softmax(ask))
        tg_layout_qkv_q(ask, out);
}

static void linear_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!of_softmax(ask))
        tg_layout_qkv_k(ask, out);
}

static void linear_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!of_softmax(ask))
        tg_layout_qkv_v(ask, out);
}

static void linear_same(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!of_softmax(ask))
        tg_layout_same(ask, out);
}

#define IN "model.layers.{i}."
#define OF "layers.{i}."
const struct tg_name_rule tg_qwen3_5_names[] = {
    {"model.embed_tokens.weight", "embed.weight", NULL},
    {"model.norm.weight", "norm_out.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {IN "input_layernorm.weight", OF "norm_in.weight", NULL},
    {IN "post_attention_layernorm.weight", OF "norm_mlp.weight", NULL},
    {IN "self_attn.q_proj.weight", OF "mixer.q.weight", softmax_q},
    {IN "self_attn.q_proj.weight", OF "mixer.out_gate.weight", tg_layout_gated_gate},
    {IN "self_attn.k_proj.weight", OF "mixer.k.weight", softmax_same},
    {IN "self_attn.v_proj.weight", OF "mixer.v.weight", softmax_same},
    {IN "self_attn.o_proj.weight", OF "mixer.o.weight", softmax_same},
    {IN "self_attn.q_norm.weight", OF "mixer.q_norm.weight", NULL},
    {IN "self_attn.k_norm.weight", OF "mixer.k_norm.weight", NULL},
    {IN "linear_attn.in_proj_qkv.weight", OF "mixer.q.weight", linear_q},
    {IN "linear_attn.in_proj_qkv.weight", OF "mixer.k.weight", linear_k},
    {IN "linear_attn.in_proj_qkv.weight", OF "mixer.v.weight", linear_v},
    {IN "linear_attn.in_proj_z.weight", OF "mixer.z.weight", NULL},
    {IN "linear_attn.in_proj_b.weight", OF "mixer.b.weight", NULL},
    {IN "linear_attn.in_proj_a.weight", OF "mixer.a.weight", NULL},
    {IN "linear_attn.conv1d.weight", OF "mixer.conv.weight", tg_layout_conv1d},
    {IN "linear_attn.A_log", OF "mixer.A_log", NULL},
    {IN "linear_attn.dt_bias", OF "mixer.dt_bias", NULL},
    {IN "linear_attn.norm.weight", OF "mixer.norm.weight", NULL},
    {IN "linear_attn.out_proj.weight", OF "mixer.o.weight", linear_same},
    {IN "mlp.gate_proj.weight", OF "mlp.gate.weight", NULL},
    {IN "mlp.up_proj.weight", OF "mlp.up.weight", NULL},
    {IN "mlp.down_proj.weight", OF "mlp.down.weight", NULL},
    {IN "mlp.gate.weight", OF "moe.router.weight", NULL},
    {IN "mlp.experts.gate_up_proj", OF "moe.gate.weight", tg_layout_experts_first},
    {IN "mlp.experts.gate_up_proj", OF "moe.up.weight", tg_layout_experts_second},
    {IN "mlp.experts.down_proj", OF "moe.down.weight", NULL},
    {IN "mlp.shared_expert.gate_proj.weight", OF "moe.shared.gate.weight", NULL},
    {IN "mlp.shared_expert.up_proj.weight", OF "moe.shared.up.weight", NULL},
    {IN "mlp.shared_expert.down_proj.weight", OF "moe.shared.down.weight", NULL},
    {IN "mlp.shared_expert_gate.weight", OF "moe.shared_gate.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN
#undef OF

void tg_qwen3_5_sections(size_t pairs, int64_t sections[3])
{
    for (size_t i = 0; i < 3; i++)
        sections[i] = (int64_t)((pairs + 2 - i) / 3);
}

double tg_qwen3_5_rotary_share(const struct tg_layer_spec *l)
{
    const double K = (double)l->head_dim, share = (double)l->rotary_dim / K;

    return (size_t)(K * share) < l->rotary_dim ? nextafter(share, 1) : share;
}

/* Engines look for theta and share beside the object or inside it. */
static void write_rope(const struct tg_export *x, const struct tg_layer_spec *l,
                       struct tg_json_out *out)
{
    const double share = tg_qwen3_5_rotary_share(l);
    int64_t sections[3];

    tg_jout_num(out, "rope_theta", x->spec.ropes[0].theta);
    tg_jout_num(out, "partial_rotary_factor", share);
    tg_jout_object(out, "rope_parameters");
    tg_config_rope_write(&x->spec.ropes[0], out);
    tg_jout_num(out, "partial_rotary_factor", share);
    tg_jout_array(out, "mrope_section");
    tg_qwen3_5_sections(l->rotary_dim / 2, sections);
    for (size_t i = 0; i < 3; i++)
        tg_jout_int(out, NULL, sections[i]);
    tg_jout_end_array(out);
    tg_jout_bool(out, "mrope_interleaved", true);
    tg_jout_end_object(out);
}

static void write_kinds(const struct tg_export *x, struct tg_json_out *out)
{
    const size_t interval = tg_qwen3_5_interval(&x->spec);

    if (interval)
        tg_jout_int(out, "full_attention_interval", (int64_t)interval);
    tg_jout_array(out, "layer_types");
    for (size_t i = 0; i < x->spec.layer_count; i++)
        tg_jout_str(out, NULL,
                    tg_qwen3_5_is_softmax(&x->spec.layers[i]) ? "full_attention"
                                                              : "linear_attention");
    tg_jout_end_array(out);
}

/* Of a model without linear layers: sizes that no one reads but that must be valid */
static void write_linear(const struct tg_export *x, struct tg_json_out *out)
{
    const struct tg_layer_spec *l = tg_qwen3_5_first(&x->spec, false);
    const struct tg_layer_spec *any = l ? l : tg_qwen3_5_first(&x->spec, true);

    tg_jout_int(out, "linear_conv_kernel_dim", l ? (int64_t)l->recurrent.conv : 4);
    tg_jout_int(out, "linear_key_head_dim", (int64_t)any->head_dim);
    tg_jout_int(out, "linear_value_head_dim", (int64_t)tg_value_dim(any));
    tg_jout_int(out, "linear_num_key_heads", (int64_t)any->kv_heads);
    tg_jout_int(out, "linear_num_value_heads", (int64_t)tg_value_heads(any));
    tg_jout_str(out, "mamba_ssm_dtype", "float32");
}

void tg_qwen3_5_config(const struct tg_export *x, const char *model_class, const char *type,
                       struct tg_json_out *out)
{
    const struct tg_layer_spec *l = tg_qwen3_5_first(&x->spec, true);

    tg_jout_array(out, "architectures");
    tg_jout_str(out, NULL, model_class);
    tg_jout_end_array(out);
    tg_jout_str(out, "model_type", type);
    tg_target_common(x, out);
    tg_jout_str(out, "hidden_act", "silu");
    tg_jout_num(out, "rms_norm_eps", x->spec.norm.eps);
    tg_jout_int(out, "num_attention_heads", (int64_t)l->heads);
    tg_jout_int(out, "num_key_value_heads", (int64_t)l->kv_heads);
    tg_jout_int(out, "head_dim", (int64_t)l->head_dim);
    tg_jout_bool(out, "attention_bias", false);
    tg_jout_num(out, "attention_dropout", 0);
    tg_jout_bool(out, "attn_output_gate", true);
    write_rope(x, l, out);
    write_kinds(x, out);
    write_linear(x, out);
}

static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    tg_qwen3_5_check(spec, false, why);
}

static void config(const struct tg_export *x, struct tg_json_out *out)
{
    tg_qwen3_5_config(x, "Qwen3_5ForCausalLM", "qwen3_5_text", out);
    tg_jout_int(out, "intermediate_size", (int64_t)x->spec.layers[0].mlp_dim);
}

static int plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err)
{
    return tg_qwen3_5_plan("qwen3_5", false, teacher, mixer, text, size, err);
}

const struct tg_target tg_target_qwen3_5 = {
    .name = "qwen3_5",
    .engines = "transformers, vLLM, SGLang",
    .check = check,
    .pitfalls = tg_qwen3_5_pitfalls,
    .adapt = tg_qwen3_5_adapt,
    .fill = tg_qwen3_5_fill_folded,
    .names = tg_qwen3_5_names,
    .config = config,
    .plan = plan,
    .keep = "every:4",
};
