/* Granite 4 hybrid: which models it can be, for both of its rows. One config is for all layers, so
 * what layers have must be the same in all of them. */
#include "convert/targets/granite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/config.h"
#include "convert/targets/plain.h"

const struct tg_layer_spec *tg_granite_recurrent(const struct tg_model_spec *spec)
{
    return tg_plain_first(spec, "mamba2");
}

const struct tg_layer_spec *tg_granite_attention(const struct tg_model_spec *spec)
{
    return tg_plain_first(spec, "softmax");
}

bool tg_granite_rotary(const struct tg_model_spec *spec)
{
    const struct tg_layer_spec *a = tg_granite_attention(spec);
    return a && a->rotary_dim > 0;
}

double tg_granite_divisor(const struct tg_model_spec *spec)
{
    const double scale = tg_factor(spec->logit_scale), d = 1 / scale,
                 near[] = {d, nextafter(d, 0), nextafter(d, INFINITY)};
    for (size_t i = 0; i < sizeof near / sizeof *near; i++)
        if (1 / near[i] == scale) /* as the reader computes it */
            return near[i];
    return 0;
}

static void check_factor(double f, const char *what, struct tg_remarks *why)
{
    if (!(f >= 1e-9 && f <= 1e6))
        tg_remark(why, "%s is %g, must be 1e-9 to 1e6", what, f);
}

static void check_frame(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    tg_plain_frame(spec, why);
    check_factor(tg_factor(spec->embed_scale), "the factor of embeddings", why);
    check_factor(1 / tg_factor(spec->logit_scale), "the divisor of logits", why);
    if (tg_granite_divisor(spec) == 0)
        tg_remark(why, "no divisor of logits is their factor, %.17g", tg_factor(spec->logit_scale));
}

static void check_block(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i], *a = &spec->layers[0];

    tg_plain_block(spec, i, why);
    if (l->moe.experts)
        tg_remark(why, "layer %zu: it has experts; only dense mlps are exported", i);
    else if (l->mlp_dim != a->mlp_dim)
        tg_remark(why, "layer %zu: its mlp has size %zu, that of layer 0 %zu", i, l->mlp_dim,
                  a->mlp_dim);
    if (tg_factor(l->mixer_scale) != tg_factor(a->mixer_scale) ||
        tg_factor(l->mlp_scale) != tg_factor(a->mixer_scale))
        tg_remark(why, "layer %zu: the factors of its branches are %g and %g, must be one for all",
                  i, tg_factor(l->mixer_scale), tg_factor(l->mlp_scale));
    else if (i == 0)
        check_factor(tg_factor(l->mixer_scale), "layer 0: the factor of its branches", why);
}

static bool same_rope(const struct tg_model_spec *spec, const struct tg_layer_spec *l,
                      const struct tg_layer_spec *a)
{
    return l->rotary_dim == a->rotary_dim &&
           (!l->rotary_dim || (l->rope == a->rope && spec->ropes[l->rope].kind != TG_ROPE_NONE));
}

static void check_rotary(const struct tg_model_spec *spec, size_t i, const struct tg_layer_spec *a,
                         struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];
    const struct tg_rope *r = &spec->ropes[l->rope];

    if (l->rotary_dim && l->rotary_dim != l->head_dim)
        tg_remark(why, "layer %zu: rotary positions turn %zu of %zu of a head, must be all or none",
                  i, l->rotary_dim, l->head_dim);
    else if (!same_rope(spec, l, a))
        tg_remark(why,
                  "layer %zu: its rotary positions are not those of the first kept layer; all kept "
                  "layers have the same, or none",
                  i);
    else if (l->rotary_dim && r->kind == TG_ROPE_DYNAMIC &&
             r->original_max_positions != (double)spec->max_positions)
        tg_remark(why, "layer %zu: dynamic rotary positions begin at %g, not at the largest %zu", i,
                  r->original_max_positions, spec->max_positions);
}

static void check_attention(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i], *a = tg_granite_attention(spec);

    tg_plain_attention(spec, i, why);
    if (l->heads * l->head_dim != spec->width)
        tg_remark(why, "layer %zu: %zu heads of %zu are not the width, %zu", i, l->heads,
                  l->head_dim, spec->width);
    if (l->heads != a->heads || l->kv_heads != a->kv_heads)
        tg_remark(why, "layer %zu: %zu and %zu heads, another kept layer has %zu and %zu", i,
                  l->heads, l->kv_heads, a->heads, a->kv_heads);
    if (l->attn_scale != a->attn_scale)
        tg_remark(why, "layer %zu: scores are scaled by %.17g, in another kept layer by %.17g", i,
                  l->attn_scale, a->attn_scale);
    else if (l == a)
        check_factor(l->attn_scale, "the factor of scores", why);
    check_rotary(spec, i, a, why);
}

static bool same_sizes(const struct tg_recurrent_spec *r, const struct tg_recurrent_spec *a)
{
    return r->v_heads == a->v_heads && r->v_dim == a->v_dim && r->inner == a->inner &&
           r->state == a->state && r->groups == a->groups && r->conv == a->conv &&
           r->dt_min == a->dt_min && r->dt_max == a->dt_max;
}

static void check_recurrent(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_recurrent_spec *r = &spec->layers[i].recurrent;
    const double eps = r->norm_eps > 0 ? r->norm_eps : spec->norm.eps;
    bool scaled = tg_factor(r->in_scale) != 1 || tg_factor(r->out_scale) != 1;

    for (size_t k = 0; k < sizeof r->scales / sizeof *r->scales; k++)
        scaled |= tg_factor(r->scales[k]) != 1;
    if (!r->norm)
        tg_remark(why, "layer %zu: it has no norm before its output projection", i);
    if (r->norm && r->norm_before_gate)
        tg_remark(why, "layer %zu: its norm comes before the gate, must come after it", i);
    if (r->norm && r->norm_groups > 1)
        tg_remark(why, "layer %zu: its norm has %zu groups, must have 1", i, r->norm_groups);
    if (r->norm && eps != spec->norm.eps)
        tg_remark(why, "layer %zu: its norm's epsilon is %g, must be that of all norms, %g", i, eps,
                  spec->norm.eps);
    if (scaled)
        tg_remark(why, "layer %zu: its projections have factors", i);
    if (!same_sizes(r, &tg_granite_recurrent(spec)->recurrent))
        tg_remark(why, "layer %zu: its sizes are not those of the first mamba2 layer", i);
}

/* Layers are alike, so the first one that does not fit says what there is to say. */
void tg_granite_check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    check_frame(spec, why);
    const size_t before = why->count;
    for (size_t i = 0; i < spec->layer_count && why->count == before; i++) {
        const struct tg_layer_spec *l = &spec->layers[i];
        check_block(spec, i, why);
        if (tg_plain_is(l, "softmax"))
            check_attention(spec, i, why);
        else if (tg_plain_is(l, "mamba2"))
            check_recurrent(spec, i, why);
        else
            tg_remark(why, "layer %zu: its mixer is %s, must be softmax or mamba2", i,
                      l->mixer->name);
    }
}

static void adapt_recurrent(struct tg_layer_spec *l, double eps, bool bias)
{
    struct tg_recurrent_spec *r = &l->recurrent;

    *r = (struct tg_recurrent_spec){.v_heads = r->v_heads,
                                    .v_dim = r->v_dim,
                                    .inner = r->inner,
                                    .state = r->state,
                                    .groups = r->groups,
                                    .conv = r->conv,
                                    .conv_bias = true,
                                    .proj_bias = bias,
                                    .out_bias = bias,
                                    .norm = true,
                                    .norm_eps = eps,
                                    .dt_min = r->dt_min,
                                    .dt_max = r->dt_max};
}

/* Does any layer of this mixer have a bias in one of its projections? */
static bool biased(const struct tg_model_spec *spec, const char *mixer)
{
    for (size_t i = 0; i < spec->layer_count; i++) {
        const struct tg_layer_spec *l = &spec->layers[i];
        if (tg_plain_is(l, mixer) &&
            (l->qkv_bias || l->o_bias || l->recurrent.proj_bias || l->recurrent.out_bias))
            return true;
    }
    return false;
}

int tg_granite_adapt(struct tg_export *x, struct tg_err *err)
{
    struct tg_model_spec *s = &x->spec;
    const struct tg_layer_spec *a = tg_granite_attention(s);
    const bool attention_bias = biased(s, "softmax"), proj_bias = biased(s, "mamba2");
    const struct tg_rope rope = a ? s->ropes[a->rope] : (struct tg_rope){0};
    (void)err;

    snprintf(s->family, sizeof s->family, "granitemoehybrid");
    snprintf(s->base_family, sizeof s->base_family, "granitemoehybrid");
    memset(s->ropes, 0, sizeof s->ropes);
    if (tg_granite_rotary(s))
        s->ropes[0] = rope;
    s->pairs_apart = false;
    s->embed_scale = tg_factor(s->embed_scale);
    s->logit_scale = tg_factor(s->logit_scale);
    s->max_positions = s->max_positions ? s->max_positions : 2048; /* of the class */
    for (size_t i = 0; i < s->layer_count; i++) {
        struct tg_layer_spec *l = &s->layers[i];
        l->mixer_scale = l->mlp_scale = tg_factor(l->mixer_scale);
        l->gate_scale = l->down_scale = l->mixer_skip = l->mlp_skip = 0;
        l->rope = l->value_dim = l->value_heads = l->feature_dim = 0;
        l->feature_map = (enum tg_feature_map)0;
        if (tg_plain_is(l, "softmax"))
            l->qkv_bias = l->o_bias = attention_bias;
        else
            adapt_recurrent(l, s->norm.eps, proj_bias);
    }
    return TG_OK;
}

int tg_granite_plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                    struct tg_err *err)
{
    struct tg_remarks why = {0};
    int rc = TG_OK;

    if (mixer && strcmp(mixer, "mamba2") != 0)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "changed layers must be mamba2 for Granite hybrid, not %s", mixer);
    tg_granite_check(teacher, &why);
    if (why.failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "no memory for what does not fit");
    else if (why.count)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "no Granite hybrid holds layers of this teacher: %s",
                     why.lines[0]);
    else
        snprintf(text, size, "mamba2,groups=1,expand=2,bias=false,conv=4");
    tg_remarks_release(&why);
    return rc;
}
