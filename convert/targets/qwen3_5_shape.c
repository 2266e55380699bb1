/* How the layers of a Qwen3.5 model are built of those of a Qwen3-like hybrid. */
#include <math.h>
#include <string.h>

#include "convert/targets/qwen3_5.h"

enum {
    /* of a shared expert that only stands there: parts of it in whole blocks on several devices */
    SHARED_DIM = 64,
    DEFAULT_POSITIONS = 32768, /* what the config class takes for none */
};

static void shape_softmax(struct tg_layer_spec *l)
{
    *l = (struct tg_layer_spec){.mixer = l->mixer,
                                .heads = l->heads,
                                .kv_heads = l->kv_heads,
                                .head_dim = l->head_dim,
                                .rotary_dim = l->rotary_dim,
                                .qk_norm = TG_QK_HEAD,
                                .output_gate = true,
                                .attn_scale = 1 / sqrt((double)l->head_dim),
                                .mlp_dim = l->mlp_dim,
                                .moe = l->moe};
}

static void shape_linear(struct tg_layer_spec *l, double eps)
{
    *l = (struct tg_layer_spec){.mixer = l->mixer,
                                .heads = l->heads,
                                .kv_heads = l->kv_heads,
                                .head_dim = l->head_dim,
                                .value_heads = tg_value_heads(l),
                                .value_dim = tg_value_dim(l),
                                .attn_scale = 1 / sqrt((double)l->head_dim),
                                .recurrent = {.conv = l->recurrent.conv, .norm_eps = eps},
                                .mlp_dim = l->mlp_dim,
                                .moe = l->moe};
}

static void shape_experts(struct tg_moe_spec *m)
{
    *m = (struct tg_moe_spec){.experts = m->experts,
                              .per_token = m->per_token,
                              .mlp_dim = m->mlp_dim,
                              .router = TG_ROUTER_SOFTMAX_TOP,
                              .renormalise = true,
                              .shared_dim = m->shared_dim ? m->shared_dim : SHARED_DIM,
                              .shared_gate = true};
}

void tg_qwen3_5_shape(struct tg_model_spec *s)
{
    const struct tg_layer_spec *kept = tg_qwen3_5_first(s, true);

    if (kept)
        s->ropes[0] = s->ropes[kept->rope];
    s->ropes[1] = (struct tg_rope){0};
    s->embed_scale = s->logit_scale = 0;
    s->pairs_apart = false;
    if (!s->max_positions)
        s->max_positions = DEFAULT_POSITIONS;
    for (size_t i = 0; i < s->layer_count; i++) {
        struct tg_layer_spec *l = &s->layers[i];
        if (tg_qwen3_5_is_softmax(l))
            shape_softmax(l);
        else
            shape_linear(l, s->norm.eps);
        if (l->moe.experts)
            shape_experts(&l->moe);
    }
}

const char *tg_qwen3_5_part(const struct tg_param *p)
{
    const char *dot = p->layer < 0 ? NULL : strchr(p->name, '.');

    dot = dot ? strchr(dot + 1, '.') : NULL;
    return dot ? dot + 1 : p->name;
}

/* What the source did not have, and whose values make no difference */
static bool is_new(const struct tg_layer_spec *from, const char *part)
{
    if (!strcmp(part, "mixer.out_gate.weight"))
        return !from->output_gate;
    if (!strcmp(part, "moe.shared_gate.weight"))
        return !from->moe.shared_gate;
    return !strncmp(part, "moe.shared.", strlen("moe.shared.")) && !from->moe.shared_dim;
}

/* What a new gate of zeros halves */
static bool is_halved(const struct tg_layer_spec *from, const char *part)
{
    if (!strcmp(part, "mixer.o.weight"))
        return tg_qwen3_5_is_softmax(from) && !from->output_gate;
    return !strcmp(part, "moe.shared.down.weight") && from->moe.shared_dim &&
           !from->moe.shared_gate;
}

int tg_qwen3_5_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                    struct tg_err *err)
{
    const struct tg_layer_spec *from = p->layer < 0 ? NULL : &x->in->spec->layers[p->layer];
    const char *part = tg_qwen3_5_part(p);
    int rc;

    if (from && is_new(from, part)) {
        memset(dst, 0, p->count * sizeof *dst);
        return TG_OK;
    }
    if (!strcmp(part, "head.weight") && x->in->spec->tied_head)
        return tg_export_read(x, "embed.weight", dst, p->count, err);
    if ((rc = tg_export_same(x, p, dst, err)))
        return rc;
    for (size_t i = 0; from && is_halved(from, part) && i < p->count; i++)
        dst[i] *= 2;
    return TG_OK;
}
