/* Granite 4 hybrid with no experts (GraniteMoeHybridForCausalLM): softmax layers as in Llama, with
 * or without biases and rotary positions, and Mamba-2 layers. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/config.h"
#include "convert/config_recurrent.h"
#include "convert/names.h"
#include "convert/targets/granite.h"
#include "convert/targets/plain.h"

static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    const struct tg_layer_spec *m = tg_granite_recurrent(spec);

    tg_granite_check(spec, why);
    if (m && (m->recurrent.inner % spec->width || m->recurrent.inner / spec->width > 1024))
        tg_remark(why,
                  "mamba2 layers have %zu channels, must be a whole multiple of the width, %zu: "
                  "option expand of a plan",
                  m->recurrent.inner, spec->width);
}

/* Transformers takes the norm over all channels, vLLM, SGLang and llama.cpp over those of a group;
 * limits of the time step are kept by transformers alone, and not while it decodes. Its cache asks
 * a softmax layer how long the text is. */
static void pitfalls(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    const struct tg_layer_spec *m = tg_granite_recurrent(spec);

    if (!tg_granite_attention(spec))
        tg_remark(why, "no layer is softmax: transformers fails unless use_cache is false");
    if (m && m->recurrent.groups > 1)
        tg_remark(why,
                  "mamba2 layers have %zu groups: vLLM and SGLang take their norm for each group "
                  "by itself; plan with groups=1",
                  m->recurrent.groups);
    if (m && (m->recurrent.dt_min > 0 || m->recurrent.dt_max > 0))
        tg_remark(why, "the time steps of mamba2 layers have limits, which vLLM and SGLang do not "
                       "know, and transformers only while it reads a prompt");
}

static int adapt(struct tg_export *x, struct tg_err *err)
{
    const int rc = tg_granite_adapt(x, err);

    if (rc == TG_OK && tg_granite_rotary(&x->spec) && tg_granite_recurrent(&x->spec))
        tg_remark(&x->notes, "llama.cpp's own converter switches rotary positions off in models of "
                             "this architecture; for llama.cpp export as granitehybrid");
    return rc;
}

#define LAYER "[model.]layers.{i}."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {LAYER "mamba.in_proj.weight", "layers.{i}.mixer.in.weight", NULL},
    {LAYER "mamba.in_proj.bias", "layers.{i}.mixer.in.bias", NULL},
    {LAYER "mamba.conv1d.weight", "layers.{i}.mixer.conv.weight", tg_layout_conv1d},
    {LAYER "mamba.conv1d.bias", "layers.{i}.mixer.conv.bias", NULL},
    {LAYER "mamba.dt_bias", "layers.{i}.mixer.dt_bias", NULL},
    {LAYER "mamba.A_log", "layers.{i}.mixer.A_log", NULL},
    {LAYER "mamba.D", "layers.{i}.mixer.skip", NULL},
    {LAYER "mamba.norm.weight", "layers.{i}.mixer.norm.weight", NULL},
    {LAYER "mamba.out_proj.weight", "layers.{i}.mixer.out.weight", NULL},
    {LAYER "mamba.out_proj.bias", "layers.{i}.mixer.out.bias", NULL},
    {LAYER "shared_mlp.input_linear.weight", "layers.{i}.mlp.gate.weight", tg_layout_half_first},
    {LAYER "shared_mlp.input_linear.weight", "layers.{i}.mlp.up.weight", tg_layout_half_second},
    {LAYER "shared_mlp.output_linear.weight", "layers.{i}.mlp.down.weight", NULL},
    {NULL, NULL, NULL},
};
#undef LAYER

static void put_rope(struct tg_json_out *out, const char *key, const struct tg_rope *r)
{
    tg_jout_object(out, key);
    tg_config_rope_write(r, out);
    tg_jout_end_object(out);
}

/* Version 4 reads rope_theta and rope_scaling, version 5 rope_parameters. */
static void put_positions(struct tg_json_out *out, const struct tg_model_spec *s)
{
    const struct tg_rope unused = {.theta = 10000};
    const bool rotary = tg_granite_rotary(s);
    const struct tg_rope *r = rotary ? &s->ropes[0] : &unused;

    tg_jout_str(out, "position_embedding_type", rotary ? "rope" : "nope");
    tg_jout_num(out, "rope_theta", r->theta);
    put_rope(out, "rope_parameters", r);
    if (!tg_rope_plain(r))
        put_rope(out, "rope_scaling", r);
}

/* Heads of attention in a model without any: the size of one must be in range. */
static size_t some_heads(size_t width)
{
    size_t heads = 1;
    while (width % heads || width / heads > 256)
        heads++;
    return heads;
}

/* Sizes of Mamba-2 layers in a model without any must agree all the same. */
static void put_mamba(struct tg_json_out *out, const struct tg_model_spec *s, size_t heads)
{
    const struct tg_layer_spec *m = tg_granite_recurrent(s);
    const struct tg_recurrent_spec unused = {.v_heads = heads,
                                             .v_dim = 2 * s->width / heads,
                                             .inner = 2 * s->width,
                                             .state = 128,
                                             .groups = 1,
                                             .conv = 4};
    const struct tg_recurrent_spec *r = m ? &m->recurrent : &unused;

    tg_jout_int(out, "mamba_n_heads", (int64_t)r->v_heads);
    tg_jout_int(out, "mamba_d_head", (int64_t)r->v_dim);
    tg_jout_int(out, "mamba_expand", (int64_t)(r->inner / s->width));
    tg_jout_int(out, "mamba_n_groups", (int64_t)r->groups);
    tg_jout_int(out, "mamba_d_state", (int64_t)r->state);
    tg_jout_int(out, "mamba_d_conv", (int64_t)r->conv);
    tg_jout_int(out, "mamba_chunk_size", 256);
    tg_jout_bool(out, "mamba_conv_bias", true);
    tg_jout_bool(out, "mamba_proj_bias", r->proj_bias);
    if (r->dt_min > 0 || r->dt_max > 0) { /* without an upper limit one that no step reaches */
        tg_jout_array(out, "time_step_limit");
        tg_jout_num(out, NULL, r->dt_min);
        tg_jout_num(out, NULL, r->dt_max > 0 ? r->dt_max : 1e30);
        tg_jout_end_array(out);
    }
}

/* The names of layer types are those that version 4 knows and version 5 still takes. */
static void config(const struct tg_export *x, struct tg_json_out *out)
{
    const struct tg_model_spec *s = &x->spec;
    const struct tg_layer_spec *a = tg_granite_attention(s), *any = &s->layers[0];
    const size_t heads = a ? a->heads : some_heads(s->width);

    tg_jout_array(out, "architectures");
    tg_jout_str(out, NULL, "GraniteMoeHybridForCausalLM");
    tg_jout_end_array(out);
    tg_jout_str(out, "model_type", "granitemoehybrid");
    tg_target_common(x, out);
    tg_jout_int(out, "intermediate_size", (int64_t)any->mlp_dim);
    tg_jout_int(out, "shared_intermediate_size", (int64_t)any->mlp_dim);
    tg_jout_int(out, "num_local_experts", 0);
    tg_jout_int(out, "num_experts_per_tok", 0);
    tg_jout_int(out, "num_attention_heads", (int64_t)heads);
    tg_jout_int(out, "num_key_value_heads", (int64_t)(a ? a->kv_heads : heads));
    tg_jout_str(out, "hidden_act", "silu");
    tg_jout_real(out, "rms_norm_eps", s->norm.eps);
    tg_jout_bool(out, "attention_bias", a && a->qkv_bias);
    tg_jout_num(out, "attention_dropout", 0);
    tg_jout_num(out, "attention_multiplier",
                a ? a->attn_scale : 1 / sqrt((double)s->width / (double)heads));
    tg_jout_num(out, "embedding_multiplier", s->embed_scale);
    tg_jout_num(out, "residual_multiplier", any->mixer_scale);
    tg_jout_num(out, "logits_scaling", tg_granite_divisor(s));
    put_positions(out, s);
    put_mamba(out, s, heads);
    tg_jout_array(out, "layer_types");
    for (size_t i = 0; i < s->layer_count; i++)
        tg_jout_str(out, NULL,
                    strcmp(s->layers[i].mixer->name, "mamba2") == 0 ? "mamba" : "attention");
    tg_jout_end_array(out);
}

const struct tg_target tg_target_granitemoehybrid = {
    .name = "granitemoehybrid",
    .engines = "transformers, vLLM, SGLang",
    .check = check,
    .pitfalls = pitfalls,
    .adapt = adapt,
    .fill = tg_plain_fill,
    .names = names,
    .config = config,
    .plan = tg_granite_plan,
};
