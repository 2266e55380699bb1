/* Qwen3-Next (Qwen3NextConfig): three layers of Gated DeltaNet, then one of gated softmax
 * attention; norms by 1 + weight; experts and a gated shared one. q, k, v and z of the linear
 * layers lie interleaved by key head, b and a too. */
#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 2,
                                   .head_dim = 256,
                                   .max_positions = 32768,
                                   .bos_id = -1,
                                   .eos_id = -1,
                                   .norm.plus_one = true,
                                   .rotary_share = 0.25,
                                   .layer = {.qk_norm = TG_QK_HEAD, .output_gate = true}};
    struct tg_moe_spec moe = {.experts = 512, .per_token = 10};
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)) || (rc = tg_config_qwen_hybrid(c, spec, err)) ||
        (rc = tg_config_qwen_moe(c, &moe, err)))
        return rc;
    return moe.experts ? tg_config_sparse_layers(c, &moe, spec, err) : TG_OK;
}

/* Per key head: q [K], k [K], v [n V], z [n V], n value heads to a key head */
static void qkvz(const struct tg_layout_ask *ask, struct tg_layout *out, size_t first, size_t rows)
{
    const struct tg_layer_spec *l = ask->layer;
    const size_t values = tg_value_heads(l) / l->kv_heads * tg_value_dim(l);

    tg_layout_blocks(ask, out, l->kv_heads, 2 * l->head_dim + 2 * values, first, rows, 0);
}

static void q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    qkvz(ask, out, 0, ask->layer->head_dim);
}

static void k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    qkvz(ask, out, ask->layer->head_dim, ask->layer->head_dim);
}

/* Which of the two blocks of values */
static void values(const struct tg_layout_ask *ask, struct tg_layout *out, size_t which)
{
    const struct tg_layer_spec *l = ask->layer;
    const size_t rows = tg_value_heads(l) / l->kv_heads * tg_value_dim(l);

    qkvz(ask, out, 2 * l->head_dim + which * rows, rows);
}

static void v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    values(ask, out, 0);
}

static void z(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    values(ask, out, 1);
}

static void b(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t n = tg_value_heads(ask->layer) / ask->layer->kv_heads;

    tg_layout_blocks(ask, out, ask->layer->kv_heads, 2 * n, 0, n, 0);
}

static void a(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t n = tg_value_heads(ask->layer) / ask->layer->kv_heads;

    tg_layout_blocks(ask, out, ask->layer->kv_heads, 2 * n, n, n, 0);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_GATED_ATTENTION,
    TG_NAMES_DELTANET,
    {"[model.]layers.{i}.linear_attn.in_proj_qkvz.weight", "layers.{i}.mixer.q.weight", q},
    {"[model.]layers.{i}.linear_attn.in_proj_qkvz.weight", "layers.{i}.mixer.k.weight", k},
    {"[model.]layers.{i}.linear_attn.in_proj_qkvz.weight", "layers.{i}.mixer.v.weight", v},
    {"[model.]layers.{i}.linear_attn.in_proj_qkvz.weight", "layers.{i}.mixer.z.weight", z},
    {"[model.]layers.{i}.linear_attn.in_proj_ba.weight", "layers.{i}.mixer.b.weight", b},
    {"[model.]layers.{i}.linear_attn.in_proj_ba.weight", "layers.{i}.mixer.a.weight", a},
    TG_NAMES_MLP,
    TG_NAMES_EXPERTS,
    TG_NAMES_SHARED_EXPERT,
    {NULL, NULL, NULL},
};

static const char *const types[] = {"qwen3_next", NULL};
/* layers for multi-token prediction stand apart */
static const char *const droppable[] = {"*rotary_emb.inv_freq", "mtp.*", NULL};

const struct tg_family tg_family_qwen3_next = {
    .name = "qwen3_next",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
