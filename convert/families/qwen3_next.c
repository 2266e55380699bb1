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

/* Per key head: q [K], k [K], v [H/G V], z [H/G V] */
static void qkv(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct tg_recurrent_spec *r = &ask->layer->recurrent;
    const size_t K = r->k_dim, V = r->v_heads / r->k_heads * r->v_dim, all = 2 * K + 2 * V;

    tg_layout_blocks(ask, out, ask->layer->recurrent.k_heads, all, 0, K, 0);
    tg_layout_blocks(ask, out, ask->layer->recurrent.k_heads, all, K, K, r->k_heads * K);
    tg_layout_blocks(ask, out, ask->layer->recurrent.k_heads, all, 2 * K, V, 2 * r->k_heads * K);
}

static void z(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct tg_recurrent_spec *r = &ask->layer->recurrent;
    const size_t V = r->v_heads / r->k_heads * r->v_dim;

    tg_layout_blocks(ask, out, ask->layer->recurrent.k_heads, 2 * r->k_dim + 2 * V,
                     2 * r->k_dim + V, V, 0);
}

static void b(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t n = ask->layer->recurrent.v_heads / ask->layer->recurrent.k_heads;

    tg_layout_blocks(ask, out, ask->layer->recurrent.k_heads, 2 * n, 0, n, 0);
}

static void a(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t n = ask->layer->recurrent.v_heads / ask->layer->recurrent.k_heads;

    tg_layout_blocks(ask, out, ask->layer->recurrent.k_heads, 2 * n, n, n, 0);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_GATED_ATTENTION,
    TG_NAMES_DELTANET,
    {"[model.]layers.{i}.linear_attn.in_proj_qkvz.weight", "layers.{i}.mixer.qkv.weight", qkv},
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
