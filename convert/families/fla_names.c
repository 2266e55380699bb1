/* Tensor names of flash-linear-attention, of all its model types that are read (fla.h). */
#include <string.h>

#include "convert/families/fla.h"
#include "convert/names.h"

/* Layers by what their mixers have. A layout leaves those out that its rule is not for. */
static bool has(const struct tg_layout_ask *ask, const char *param)
{
    const struct tg_mixer_schema *m = ask->layer->mixer;

    for (size_t i = 0; i < m->param_count; i++)
        if (!strcmp(m->params[i].name, param))
            return true;
    return false;
}

static bool forgets(const struct tg_layout_ask *ask)
{
    return has(ask, "lower_bound");
}

static bool overwrites(const struct tg_layout_ask *ask)
{
    return has(ask, "b.weight");
}

static void if_so(bool so, const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (so)
        tg_layout_same(ask, out);
}

/* k and v, which HGRN2 calls f and i */
static void plain_kv(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(!forgets(ask), ask, out);
}

static void forget_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(forgets(ask), ask, out);
    out->negative = true; /* k is what the gate lets go */
}

static void forget_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(forgets(ask), ask, out);
}

/* The two low ranks of gates */
static void gla_gate(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(!overwrites(ask), ask, out);
}

static void kda_gate(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(overwrites(ask), ask, out);
}

/* Norms of the output: of the delta rule, gated, of HGRN2, of linear attention */
static void delta_norm(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(overwrites(ask), ask, out);
}

static void swish_norm(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(!overwrites(ask) && has(ask, "z.weight"), ask, out);
}

static void forget_norm(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(forgets(ask), ask, out);
}

static void map_norm(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if_so(ask->layer->mixer->flags & TG_MIXER_FAR, ask, out);
}

/* `rows` of conv.weight from row `first`, apart: [rows, 1, taps] */
static void conv(const struct tg_layout_ask *ask, struct tg_layout *out, size_t first, size_t rows)
{
    const size_t taps = (size_t)ask->param->shape[1];

    out->rank = 3;
    out->shape[0] = (int64_t)rows;
    out->shape[1] = 1;
    out->shape[2] = (int64_t)taps;
    out->pieces = 1;
    out->piece[0].to = first * taps;
    out->piece[0].loops = 1;
    out->piece[0].loop[0].count = rows * taps;
    out->piece[0].loop[0].from = out->piece[0].loop[0].to = 1;
}

static void conv_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    conv(ask, out, 0, ask->layer->heads * ask->layer->head_dim);
}

static void conv_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct tg_layer_spec *l = ask->layer;

    conv(ask, out, l->heads * l->head_dim, l->kv_heads * l->head_dim);
}

static void conv_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct tg_layer_spec *l = ask->layer;

    conv(ask, out, (l->heads + l->kv_heads) * l->head_dim, tg_value_heads(l) * tg_value_dim(l));
}

#define ATT(name, canonical, layout)                                                               \
    {                                                                                              \
        "[model.]layers.{i}.attn." name, "layers.{i}.mixer." canonical, layout                     \
    }
const struct tg_name_rule tg_fla_names[] = {
    ATT("g_norm.weight", "norm.weight", swish_norm), /* with fuse_norm false */
    {"[model.]embeddings.weight", "embed.weight", NULL},
    {"[model.]norm.weight", "norm_out.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {"[model.]layers.{i}.attn_norm.weight", "layers.{i}.norm_in.weight", NULL},
    {"[model.]layers.{i}.mlp_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    ATT("q_proj.weight", "q.weight", NULL),
    ATT("q_proj.bias", "q.bias", NULL),
    ATT("k_proj.weight", "k.weight", plain_kv),
    ATT("k_proj.bias", "k.bias", NULL),
    ATT("v_proj.weight", "v.weight", plain_kv),
    ATT("v_proj.bias", "v.bias", NULL),
    ATT("o_proj.weight", "o.weight", NULL),
    ATT("f_proj.weight", "k.weight", forget_k),
    ATT("i_proj.weight", "v.weight", forget_v),
    ATT("q_conv1d.weight", "conv.weight", conv_q),
    ATT("k_conv1d.weight", "conv.weight", conv_k),
    ATT("v_conv1d.weight", "conv.weight", conv_v),
    ATT("gk_proj.0.weight", "f_a.weight", gla_gate),
    ATT("gk_proj.1.weight", "f_b.weight", gla_gate),
    ATT("gk_proj.1.bias", "f_b.bias", NULL),
    ATT("f_proj.0.weight", "f_a.weight", kda_gate),
    ATT("f_proj.1.weight", "f_b.weight", kda_gate),
    ATT("a_proj.weight", "a.weight", NULL),
    ATT("b_proj.weight", "b.weight", NULL),
    ATT("A_log", "A_log", NULL),
    ATT("dt_bias", "dt_bias", NULL),
    ATT("g_proj.weight", "z.weight", NULL),
    ATT("g_proj.0.weight", "g_a.weight", NULL),
    ATT("g_proj.1.weight", "g_b.weight", NULL),
    ATT("g_proj.1.bias", "g_b.bias", NULL),
    ATT("o_norm.weight", "norm.weight", delta_norm),
    ATT("g_norm_swish_gate.weight", "norm.weight", swish_norm),
    ATT("g_norm.weight", "norm.weight", forget_norm),
    ATT("norm.weight", "norm.weight", map_norm),
    TG_NAMES_MLP,
    {NULL, NULL, NULL},
};
#undef ATT
