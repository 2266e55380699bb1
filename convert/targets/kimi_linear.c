/* Kimi Linear (KimiLinearForCausalLM): Kimi Delta Attention, and latent attention without
 * positions, which no softmax layer of another model is: a latent is normalised, and rotary
 * positions have no place. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/config.h"
#include "convert/config_recurrent.h"
#include "convert/names.h"
#include "convert/targets/plain.h"

/* The first layer whose mlp is dense, or of experts */
static const struct tg_layer_spec *first_mlp(const struct tg_model_spec *spec, bool experts)
{
    for (size_t i = 0; i < spec->layer_count; i++)
        if ((spec->layers[i].moe.experts > 0) == experts)
            return &spec->layers[i];
    return NULL;
}

static void check_kda(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i], *a = tg_plain_first(spec, "kda");
    const double eps = l->recurrent.norm_eps;
    const struct tg_reason reasons[] = {
        {l->rotary_dim && !l->linear_plain,
         "it has rotary positions; plan its layers with rotary=false"},
        {l->qkv_bias || l->o_bias, "its projections have biases"},
        {l->kv_heads != l->heads,
         "it has fewer keys than queries; plan its layers with kv=expanded"},
        {l->recurrent.conv == 0, "it has no short convolution; plan its layers with conv=4"},
        {l->recurrent.rank != l->head_dim, "the rank of its gates is not the size of a head"},
        {l->recurrent.negative_eigenvalues, "its states have negative eigenvalues"},
        {eps > 0 && eps != spec->norm.eps, "its norm has an epsilon of its own"},
        {l->heads != a->heads || l->head_dim != a->head_dim ||
             l->recurrent.conv != a->recurrent.conv,
         "its sizes are not those of the first kda layer"},
    };

    tg_plain_attention(spec, i, why);
    tg_remark_layer(why, i, reasons, sizeof reasons / sizeof *reasons);
}

static bool same_latents(const struct tg_layer_spec *l, const struct tg_layer_spec *a)
{
    return l->heads == a->heads && l->head_dim == a->head_dim && l->rotary_dim == a->rotary_dim &&
           tg_value_dim(l) == tg_value_dim(a) && l->q_rank == a->q_rank && l->kv_rank == a->kv_rank;
}

static void check_mla(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];
    const struct tg_reason reasons[] = {
        {spec->ropes[l->rope].kind != TG_ROPE_NONE, "it has rotary positions"},
        {l->window != 0, "it sees a window"},
        {l->attn_softcap != 0, "its scores are capped"},
        {l->attn_scale != 1 / sqrt((double)l->head_dim), "its scores have a scale of their own"},
        {l->latent_eps != 1e-6, "the epsilon of its latents' norms is not 1e-6"},
        {!same_latents(l, tg_plain_first(spec, "mla")),
         "its sizes are not those of the first mla layer"},
    };
    tg_remark_layer(why, i, reasons, sizeof reasons / sizeof *reasons);
}

static void check_experts(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_moe_spec *m = &spec->layers[i].moe, *a = &first_mlp(spec, true)->moe;
    const struct tg_reason reasons[] = {
        {m->router != TG_ROUTER_SIGMOID || !m->correction || m->router_bias,
         "its router is not one of sigmoids with a correction"},
        {m->expert_bias, "its experts have biases"},
        {m->shared_gate, "its shared expert has a gate"},
        {!m->shared_dim || m->shared_dim % m->mlp_dim,
         "its shared expert is no whole number of experts"},
        {m->experts != a->experts || m->per_token != a->per_token || m->mlp_dim != a->mlp_dim ||
             m->renormalise != a->renormalise || m->scale != a->scale || m->groups != a->groups ||
             m->groups_kept != a->groups_kept || m->shared_dim != a->shared_dim,
         "its experts are not those of the first such layer"},
    };
    tg_remark_layer(why, i, reasons, sizeof reasons / sizeof *reasons);
}

static void check_block(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];

    tg_plain_block(spec, i, why);
    if (tg_factor(l->mixer_scale) != 1 || tg_factor(l->mlp_scale) != 1)
        tg_remark(why, "layer %zu: its branches have factors", i);
    if (l->moe.experts)
        check_experts(spec, i, why);
    else if (l->mlp_dim != first_mlp(spec, false)->mlp_dim)
        tg_remark(why, "layer %zu: its mlp has size %zu, another one %zu", i, l->mlp_dim,
                  first_mlp(spec, false)->mlp_dim);
}

/* Layers are alike, so the first one that does not fit says what there is to say. */
static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    tg_plain_frame(spec, why);
    if (tg_factor(spec->embed_scale) != 1 || tg_factor(spec->logit_scale) != 1)
        tg_remark(why, "embeddings or logits have a factor");
    const size_t before = why->count;
    for (size_t i = 0; i < spec->layer_count && why->count == before; i++) {
        const struct tg_layer_spec *l = &spec->layers[i];
        check_block(spec, i, why);
        if (tg_plain_is(l, "kda"))
            check_kda(spec, i, why);
        else if (tg_plain_is(l, "mla"))
            check_mla(spec, i, why);
        else
            tg_remark(
                why,
                "layer %zu: its mixer is %s; layers are kda, or latent attention (mla) without "
                "positions, which softmax cannot become",
                i, l->mixer->name);
    }
}

/* Layers from here on have experts in engines that know the first such layer alone. */
static size_t first_sparse(const struct tg_model_spec *spec)
{
    const struct tg_layer_spec *l = first_mlp(spec, true);
    return l ? (size_t)(l - spec->layers) : spec->layer_count;
}

static void pitfalls(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    if (!tg_plain_first(spec, "mla"))
        tg_remark(why, "no layer is mla: transformers fails unless use_cache is false");
    for (size_t i = first_sparse(spec); i < spec->layer_count; i++)
        if (!spec->layers[i].moe.experts) {
            tg_remark(why, "layer %zu: its mlp is dense after one of experts: vLLM expects experts",
                      i);
            break;
        }
}

static void adapt_layer(struct tg_model_spec *s, struct tg_layer_spec *l, bool bias)
{
    l->mixer_scale = l->mlp_scale = l->mixer_skip = l->mlp_skip = 0;
    l->gate_scale = l->down_scale = 0;
    l->feature_dim = l->rope = 0;
    l->feature_map = (enum tg_feature_map)0;
    if (tg_plain_is(l, "mla")) {
        l->qkv_bias = l->o_bias = bias;
        l->value_dim = tg_value_dim(l);
        l->value_heads = 0;
        return;
    }
    const struct tg_layer_spec from = {.kv_heads = l->heads,
                                       .head_dim = l->head_dim,
                                       .attn_scale = 1 / sqrt((double)l->head_dim),
                                       .recurrent = {.conv = l->recurrent.conv,
                                                     .rank = l->recurrent.rank,
                                                     .norm_eps = s->norm.eps}};
    l->linear_plain = l->plain_values = l->gated = false;
    l->window_form = (enum tg_window_form)0;
    tg_layer_linear(l, "kda", &from);
}

static int adapt(struct tg_export *x, struct tg_err *err)
{
    struct tg_model_spec *s = &x->spec;
    bool bias = false;
    (void)err;

    for (size_t i = 0; i < s->layer_count; i++)
        bias |= tg_plain_is(&s->layers[i], "mla") && (s->layers[i].qkv_bias || s->layers[i].o_bias);
    for (size_t i = 0; i < s->layer_count; i++)
        adapt_layer(s, &s->layers[i], bias);
    snprintf(s->family, sizeof s->family, "kimi_linear");
    snprintf(s->base_family, sizeof s->base_family, "kimi_linear");
    memset(s->ropes, 0, sizeof s->ropes);
    s->ropes[0] = (struct tg_rope){.kind = TG_ROPE_NONE, .theta = 10000};
    s->pairs_apart = s->tied_head = false;
    s->embed_scale = s->logit_scale = 0;
    s->max_positions = s->max_positions ? s->max_positions : 1048576; /* of the class */
    return TG_OK;
}

/* Transformers does not tie the head of this class, whatever the config says: it is written. */
static int fill(const struct tg_export *x, const struct tg_param *p, float *dst, struct tg_err *err)
{
    if (!tg_export_has(x, p->name) && strcmp(p->name, "head.weight") == 0)
        return tg_export_read(x, "embed.weight", dst, p->count, err);
    return tg_plain_fill(x, p, dst, err);
}

/* [1,1,H,1] */
static void layout_heads(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    tg_layout_same(ask, out);
    out->rank = 4;
    out->shape[2] = out->shape[0];
    out->shape[0] = out->shape[1] = out->shape[3] = 1;
}

/* Rows of q, k or v of the joint convolution: each [rows,1,taps] */
static void conv_rows(const struct tg_layout_ask *ask, struct tg_layout *out, int which)
{
    const size_t rows = (size_t)ask->param->shape[0] / 3, taps = (size_t)ask->param->shape[1];
    struct tg_piece *p = &out->piece[out->pieces++];

    out->rank = 3;
    out->shape[0] = (int64_t)rows;
    out->shape[1] = 1;
    out->shape[2] = (int64_t)taps;
    *p = (struct tg_piece){.to = (size_t)which * rows * taps, .loops = 1};
    p->loop[0].count = rows * taps;
    p->loop[0].from = p->loop[0].to = 1;
}
static void conv_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    conv_rows(ask, out, 0);
}
static void conv_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    conv_rows(ask, out, 1);
}
static void conv_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    conv_rows(ask, out, 2);
}

#define ATT "[model.]layers.{i}.self_attn."
#define SPARSE "[model.]layers.{i}.block_sparse_moe."
#define OWN(name, canonical)                                                                       \
    {                                                                                              \
        ATT name, "layers.{i}.mixer." canonical, NULL                                              \
    }
#define SHARED(name)                                                                               \
    {                                                                                              \
        SPARSE "shared_experts." name "_proj.weight", "layers.{i}.moe.shared." name ".weight",     \
            NULL                                                                                   \
    }
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_MLP,
    OWN("q_proj.weight", "q.weight"),
    OWN("k_proj.weight", "k.weight"),
    OWN("v_proj.weight", "v.weight"),
    OWN("o_proj.weight", "o.weight"),
    OWN("o_proj.bias", "o.bias"),
    {ATT "q_conv1d.weight", "layers.{i}.mixer.conv.weight", conv_q},
    {ATT "k_conv1d.weight", "layers.{i}.mixer.conv.weight", conv_k},
    {ATT "v_conv1d.weight", "layers.{i}.mixer.conv.weight", conv_v},
    {ATT "A_log", "layers.{i}.mixer.A_log", layout_heads},
    OWN("dt_bias", "dt_bias"),
    OWN("f_a_proj.weight", "f_a.weight"),
    OWN("f_b_proj.weight", "f_b.weight"),
    OWN("g_a_proj.weight", "g_a.weight"),
    OWN("g_b_proj.weight", "g_b.weight"),
    OWN("b_proj.weight", "b.weight"),
    OWN("o_norm.weight", "norm.weight"),
    OWN("q_a_proj.weight", "q_a.weight"),
    OWN("q_a_proj.bias", "q_a.bias"),
    OWN("q_a_layernorm.weight", "q_a_norm.weight"),
    OWN("q_b_proj.weight", "q_b.weight"),
    OWN("kv_a_proj_with_mqa.weight", "kv_a.weight"),
    OWN("kv_a_proj_with_mqa.bias", "kv_a.bias"),
    OWN("kv_a_layernorm.weight", "kv_a_norm.weight"),
    OWN("kv_b_proj.weight", "kv_b.weight"),
    {SPARSE "gate.weight", "layers.{i}.moe.router.weight", NULL},
    {SPARSE "gate.e_score_correction_bias", "layers.{i}.moe.correction", NULL},
    {SPARSE "experts.{e}.w1.weight", "layers.{i}.moe.gate.weight", tg_layout_expert},
    {SPARSE "experts.{e}.w3.weight", "layers.{i}.moe.up.weight", tg_layout_expert},
    {SPARSE "experts.{e}.w2.weight", "layers.{i}.moe.down.weight", tg_layout_expert},
    SHARED("gate"),
    SHARED("up"),
    SHARED("down"),
    {NULL, NULL, NULL},
};
#undef SHARED
#undef OWN
#undef SPARSE
#undef ATT

static void put_listed(struct tg_json_out *out, const char *key, const struct tg_model_spec *s,
                       const char *mixer)
{
    tg_jout_array(out, key);
    for (size_t i = 0; i < s->layer_count; i++)
        if (tg_plain_is(&s->layers[i], mixer))
            tg_jout_int(out, NULL, (int64_t)i + 1);
    tg_jout_end_array(out);
}

static void put_layers(struct tg_json_out *out, const struct tg_model_spec *s)
{
    tg_jout_array(out, "layer_types");
    for (size_t i = 0; i < s->layer_count; i++)
        tg_jout_str(out, NULL,
                    tg_plain_is(&s->layers[i], "kda") ? "linear_attention" : "full_attention");
    tg_jout_end_array(out);
    tg_jout_array(out, "mlp_layer_types");
    for (size_t i = 0; i < s->layer_count; i++)
        tg_jout_str(out, NULL, s->layers[i].moe.experts ? "sparse" : "dense");
    tg_jout_end_array(out);
    tg_jout_int(out, "first_k_dense_replace", (int64_t)first_sparse(s));
    tg_jout_int(out, "moe_layer_freq", 1);
}

/* Sizes of a kind of layer that the model has not must be there all the same. */
static void put_kda(struct tg_json_out *out, const struct tg_model_spec *s)
{
    const struct tg_layer_spec unused = {.heads = 1, .head_dim = 128, .recurrent.conv = 4};
    const struct tg_layer_spec *l = tg_plain_first(s, "kda");

    l = l ? l : &unused;
    tg_jout_int(out, "linear_num_heads", (int64_t)l->heads);
    tg_jout_int(out, "linear_head_dim", (int64_t)l->head_dim);
    tg_jout_int(out, "linear_conv_kernel_dim", (int64_t)l->recurrent.conv);
    tg_jout_object(out, "linear_attn_config");
    tg_jout_int(out, "num_heads", (int64_t)l->heads);
    tg_jout_int(out, "head_dim", (int64_t)l->head_dim);
    tg_jout_int(out, "short_conv_kernel_size", (int64_t)l->recurrent.conv);
    put_listed(out, "kda_layers", s, "kda");
    put_listed(out, "full_attn_layers", s, "mla");
    tg_jout_end_object(out);
}

static void put_mla(struct tg_json_out *out, const struct tg_model_spec *s)
{
    const struct tg_layer_spec unused = {
        .heads = 1, .head_dim = 192, .rotary_dim = 64, .value_dim = 128, .kv_rank = 512};
    const struct tg_layer_spec *l = tg_plain_first(s, "mla");

    l = l ? l : &unused;
    tg_jout_int(out, "num_attention_heads", (int64_t)l->heads);
    tg_jout_int(out, "num_key_value_heads", (int64_t)l->heads);
    tg_jout_int(out, "head_dim", (int64_t)l->rotary_dim);
    tg_jout_int(out, "qk_nope_head_dim", (int64_t)(l->head_dim - l->rotary_dim));
    tg_jout_int(out, "qk_rope_head_dim", (int64_t)l->rotary_dim);
    tg_jout_int(out, "v_head_dim", (int64_t)tg_value_dim(l));
    tg_jout_int(out, "kv_lora_rank", (int64_t)l->kv_rank);
    if (l->q_rank)
        tg_jout_int(out, "q_lora_rank", (int64_t)l->q_rank);
    else
        tg_jout_null(out, "q_lora_rank");
    tg_jout_bool(out, "mla_use_nope", true);
    tg_jout_bool(out, "attention_bias", l->qkv_bias);
}

static void put_mlps(struct tg_json_out *out, const struct tg_model_spec *s)
{
    const struct tg_layer_spec *dense = first_mlp(s, false), *sparse = first_mlp(s, true);
    const struct tg_moe_spec unused = {.experts = 1,
                                       .per_token = 1,
                                       .mlp_dim = dense ? dense->mlp_dim : 1,
                                       .shared_dim = dense ? dense->mlp_dim : 1,
                                       .renormalise = true,
                                       .scale = 1,
                                       .groups = 1,
                                       .groups_kept = 1};
    const struct tg_moe_spec *m = sparse ? &sparse->moe : &unused;

    tg_jout_str(out, "hidden_act", "silu");
    tg_jout_int(out, "intermediate_size", (int64_t)(dense ? dense->mlp_dim : m->mlp_dim));
    tg_jout_int(out, "moe_intermediate_size", (int64_t)m->mlp_dim);
    tg_jout_int(out, "num_experts", (int64_t)m->experts);
    tg_jout_int(out, "num_experts_per_token", (int64_t)m->per_token);
    tg_jout_int(out, "num_shared_experts", (int64_t)(m->shared_dim / m->mlp_dim));
    tg_jout_int(out, "num_expert_group", (int64_t)m->groups);
    tg_jout_int(out, "topk_group", (int64_t)m->groups_kept);
    tg_jout_real(out, "routed_scaling_factor", m->scale);
    tg_jout_bool(out, "moe_renormalize", m->renormalise);
    tg_jout_str(out, "moe_router_activation_func", "sigmoid");
}

static void config(const struct tg_export *x, struct tg_json_out *out)
{
    const struct tg_model_spec *s = &x->spec;

    tg_jout_array(out, "architectures");
    tg_jout_str(out, NULL, "KimiLinearForCausalLM");
    tg_jout_end_array(out);
    tg_jout_str(out, "model_type", "kimi_linear");
    tg_target_common(x, out);
    tg_jout_null(out, "pad_token_id"); /* the class's own is outside small vocabularies */
    tg_jout_int(out, "model_max_length", (int64_t)s->max_positions);
    tg_jout_real(out, "rms_norm_eps", s->norm.eps);
    tg_jout_num(out, "attention_dropout", 0);
    put_layers(out, s);
    put_kda(out, s);
    put_mla(out, s);
    put_mlps(out, s);
}

static int plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err)
{
    struct tg_remarks why = {0};
    int rc = TG_OK;

    if (mixer && strcmp(mixer, "kda") != 0)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "changed layers must be kda for Kimi Linear, not %s", mixer);
    tg_plain_frame(teacher, &why);
    for (size_t i = 0; i < teacher->layer_count && !why.count; i++)
        check_block(teacher, i, &why);
    if (why.failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "no memory for what does not fit");
    else if (why.count)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "no Kimi Linear is made of this teacher: %s",
                     why.lines[0]);
    else
        snprintf(text, size, "kda,rotary=false,conv=4");
    tg_remarks_release(&why);
    return rc;
}

const struct tg_target tg_target_kimi_linear = {
    .name = "kimi_linear",
    .engines = "transformers, vLLM",
    .check = check,
    .pitfalls = pitfalls,
    .adapt = adapt,
    .fill = fill,
    .names = names,
    .config = config,
    .plan = plan,
    .keep = "none",
};
