/* Tensor names of GGUF hybrids and how their elements lie. Value heads of Gated DeltaNet are stored
 * tiled: head j of every key head, then head j + 1 of every key head, because ggml repeats key
 * heads whole; HF has the value heads of one key head side by side. Mamba-2's per-head values are
 * columns [heads,1]. */
#include "convert/gguf_model.h"

#include <string.h>

static bool recurs(const struct tg_layout_ask *ask)
{
    return ask->layer->mixer->flags & TG_MIXER_RECURRENT;
}

static void attend_same(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!recurs(ask))
        tg_layout_same(ask, out);
}

static void attend_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!recurs(ask))
        tg_layout_gated_q(ask, out);
}

static void recur_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (recurs(ask))
        tg_layout_qkv_q(ask, out);
}

static void recur_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (recurs(ask))
        tg_layout_qkv_k(ask, out);
}

static void loop(struct tg_piece *p, size_t count, size_t from, size_t to)
{
    p->loop[p->loops].count = count;
    p->loop[p->loops].from = from;
    p->loop[p->loops].to = to;
    p->loops++;
}

/* Value heads of `each` elements, tiled in what is stored: adds the loops */
static void tile(const struct tg_layout_ask *ask, struct tg_piece *p, size_t each)
{
    const size_t keys = ask->layer->kv_heads, group = tg_value_heads(ask->layer) / keys;

    loop(p, keys, each, group * each);
    loop(p, group, keys * each, each);
    loop(p, each, 1, 1);
}

/* Elements that one value head has in a parameter of nothing but value heads */
static size_t per_head(const struct tg_layout_ask *ask)
{
    return ask->param->count / tg_value_heads(ask->layer);
}

/* Rows of value heads: z, a, b, dt_bias */
static void tiled(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    out->rank = ask->param->rank;
    memcpy(out->shape, ask->param->shape, sizeof out->shape);
    tile(ask, &out->piece[out->pieces++], per_head(ask));
}

static void tiled_neg_exp(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    tiled(ask, out);
    out->neg_exp = true;
}

/* v of q, k, v */
static void tiled_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    if (!recurs(ask))
        return;
    tg_layout_qkv_v(ask, out);
    out->piece[0].loops = 0;
    tile(ask, &out->piece[0], per_head(ask));
}

/* Channels q, k, v of the convolution */
static void tiled_channels(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct tg_layer_spec *l = ask->layer;
    const size_t taps = (size_t)ask->param->shape[1];
    const size_t keys = (l->heads + l->kv_heads) * l->head_dim * taps;

    tg_layout_same(ask, out);
    out->piece[0].loop[0].count = keys;
    out->piece[1] = (struct tg_piece){.from = keys, .to = keys};
    tile(ask, &out->piece[1], tg_value_dim(l) * taps);
    out->pieces = 2;
}

/* Columns of the output projection */
static void tiled_columns(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t rows = (size_t)ask->param->shape[0], width = (size_t)ask->param->shape[1];

    if (!recurs(ask))
        return;
    tg_layout_same(ask, out);
    out->piece[0].loops = 0;
    loop(&out->piece[0], rows, width, width);
    tile(ask, &out->piece[0], tg_value_dim(ask->layer));
}

/* One value a head as a column: [heads,1] */
static void column(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    tg_layout_same(ask, out);
    out->rank = 2;
    out->shape[1] = 1;
}

static void column_neg_exp(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    column(ask, out);
    out->neg_exp = true;
}

/* The gated norm's weight by group: [groups, inner / groups] */
static void grouped(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const int64_t groups = (int64_t)ask->layer->recurrent.groups;

    tg_layout_same(ask, out);
    out->rank = 2;
    out->shape[0] = groups;
    out->shape[1] = (int64_t)ask->param->count / groups;
}

/* In rotary pairs side by side even in models without rotary positions, where the same order of q
 * and k is all that counts */
static void pairs(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    struct tg_layer_spec l = *ask->layer;
    struct tg_layout_ask whole = *ask;

    l.rotary_dim = l.head_dim;
    whole.layer = &l;
    tg_layout_pairs(&whole, out);
}

#define FRAME                                                                                      \
    {"token_embd.weight", "embed.weight", NULL}, {"output_norm.weight", "norm_out.weight", NULL},  \
        {"output.weight", "head.weight", NULL},                                                    \
    {                                                                                              \
        "blk.{i}.attn_norm.weight", "layers.{i}.norm_in.weight", NULL                              \
    }
#define MLPS                                                                                       \
    {"blk.{i}.ffn_gate.weight", "layers.{i}.mlp.gate.weight", NULL},                               \
        {"blk.{i}.ffn_up.weight", "layers.{i}.mlp.up.weight", NULL},                               \
        {"blk.{i}.ffn_down.weight", "layers.{i}.mlp.down.weight", NULL},                           \
        {"blk.{i}.ffn_gate_inp.weight", "layers.{i}.moe.router.weight", NULL},                     \
        {"blk.{i}.ffn_gate_exps.weight", "layers.{i}.moe.gate.weight", NULL},                      \
        {"blk.{i}.ffn_up_exps.weight", "layers.{i}.moe.up.weight", NULL},                          \
        {"blk.{i}.ffn_down_exps.weight", "layers.{i}.moe.down.weight", NULL},                      \
        {"blk.{i}.ffn_gate_shexp.weight", "layers.{i}.moe.shared.gate.weight", NULL},              \
        {"blk.{i}.ffn_up_shexp.weight", "layers.{i}.moe.shared.up.weight", NULL},                  \
    {                                                                                              \
        "blk.{i}.ffn_down_shexp.weight", "layers.{i}.moe.shared.down.weight", NULL                 \
    }

const struct tg_name_rule tg_gguf_qwen35_names[] = {
    FRAME,
    {"blk.{i}.post_attention_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"blk.{i}.attn_q.weight", "layers.{i}.mixer.q.weight", attend_q},
    {"blk.{i}.attn_q.weight", "layers.{i}.mixer.out_gate.weight", tg_layout_gated_gate},
    {"blk.{i}.attn_k.weight", "layers.{i}.mixer.k.weight", attend_same},
    {"blk.{i}.attn_v.weight", "layers.{i}.mixer.v.weight", attend_same},
    {"blk.{i}.attn_output.weight", "layers.{i}.mixer.o.weight", attend_same},
    {"blk.{i}.attn_q_norm.weight", "layers.{i}.mixer.q_norm.weight", NULL},
    {"blk.{i}.attn_k_norm.weight", "layers.{i}.mixer.k_norm.weight", NULL},
    {"blk.{i}.attn_qkv.weight", "layers.{i}.mixer.q.weight", recur_q},
    {"blk.{i}.attn_qkv.weight", "layers.{i}.mixer.k.weight", recur_k},
    {"blk.{i}.attn_qkv.weight", "layers.{i}.mixer.v.weight", tiled_v},
    {"blk.{i}.attn_gate.weight", "layers.{i}.mixer.z.weight", tiled},
    {"blk.{i}.ssm_conv1d.weight", "layers.{i}.mixer.conv.weight", tiled_channels},
    {"blk.{i}.ssm_dt.bias", "layers.{i}.mixer.dt_bias", tiled},
    {"blk.{i}.ssm_a", "layers.{i}.mixer.A_log", tiled_neg_exp},
    {"blk.{i}.ssm_alpha.weight", "layers.{i}.mixer.a.weight", tiled},
    {"blk.{i}.ssm_beta.weight", "layers.{i}.mixer.b.weight", tiled},
    {"blk.{i}.ssm_norm.weight", "layers.{i}.mixer.norm.weight", NULL},
    {"blk.{i}.ssm_out.weight", "layers.{i}.mixer.o.weight", tiled_columns},
    MLPS,
    {"blk.{i}.ffn_gate_inp_shexp.weight", "layers.{i}.moe.shared_gate.weight", tg_layout_squeeze},
    {NULL, NULL, NULL},
};

const struct tg_name_rule tg_gguf_granitehybrid_names[] = {
    FRAME,
    {"blk.{i}.ffn_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"blk.{i}.attn_q.weight", "layers.{i}.mixer.q.weight", pairs},
    {"blk.{i}.attn_q.bias", "layers.{i}.mixer.q.bias", pairs},
    {"blk.{i}.attn_k.weight", "layers.{i}.mixer.k.weight", pairs},
    {"blk.{i}.attn_k.bias", "layers.{i}.mixer.k.bias", pairs},
    {"blk.{i}.attn_v.weight", "layers.{i}.mixer.v.weight", NULL},
    {"blk.{i}.attn_v.bias", "layers.{i}.mixer.v.bias", NULL},
    {"blk.{i}.attn_output.weight", "layers.{i}.mixer.o.weight", NULL},
    {"blk.{i}.attn_output.bias", "layers.{i}.mixer.o.bias", NULL},
    {"blk.{i}.ssm_in.weight", "layers.{i}.mixer.in.weight", NULL},
    {"blk.{i}.ssm_conv1d.weight", "layers.{i}.mixer.conv.weight", NULL},
    {"blk.{i}.ssm_conv1d.bias", "layers.{i}.mixer.conv.bias", NULL},
    {"blk.{i}.ssm_dt.bias", "layers.{i}.mixer.dt_bias", NULL},
    {"blk.{i}.ssm_a", "layers.{i}.mixer.A_log", column_neg_exp},
    {"blk.{i}.ssm_d", "layers.{i}.mixer.skip", column},
    {"blk.{i}.ssm_norm.weight", "layers.{i}.mixer.norm.weight", grouped},
    {"blk.{i}.ssm_out.weight", "layers.{i}.mixer.out.weight", NULL},
    MLPS,
    {NULL, NULL, NULL},
};

/* Layers that predict further tokens come after the decoder's. */
static const char *const qwen35_droppable[] = {"blk.{+}.*", NULL};
/* rope_freqs is read with the metadata. */
static const char *const granite_droppable[] = {"rope_freqs.weight", NULL};

const struct tg_family tg_gguf_qwen35 = {
    .name = "qwen35", .names = tg_gguf_qwen35_names, .droppable = qwen35_droppable};
const struct tg_family tg_gguf_granitehybrid = {
    .name = "granitehybrid", .names = tg_gguf_granitehybrid_names, .droppable = granite_droppable};
