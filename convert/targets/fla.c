/* flash-linear-attention: a decoder whose changed layers have one of its linear mixers, and whose
 * kept ones plain softmax attention (`attn`). One config holds one size of everything for all
 * changed layers. Reading: convert/families/fla.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/config.h"
#include "convert/families/fla.h"
#include "convert/target.h"

/* A row of mixers.def in fla's words */
struct way {
    const char *mixer, *type, *architecture, *plan;
    bool conv, shared;   /* needs a convolution; heads may share keys and values */
    bool by_head;        /* head_dim is a key, else expand_k and expand_v of hidden_size */
    bool rotary, q_norm; /* turned; surgery leaves the teacher's norms of q and k */
};
static const struct way ways[] = {
    {.mixer = "gated_deltanet",
     .type = "gated_deltanet",
     .architecture = "GatedDeltaNetForCausalLM",
     .plan = "gated_deltanet,rotary=false",
     .conv = true,
     .by_head = true},
    {.mixer = "kda",
     .type = "kda",
     .architecture = "KDAForCausalLM",
     .plan = "kda,rotary=false",
     .conv = true,
     .by_head = true},
    {.mixer = "deltanet",
     .type = "delta_net",
     .architecture = "DeltaNetForCausalLM",
     .plan = "deltanet,rotary=false",
     .conv = true},
    {.mixer = "gla",
     .type = "gla",
     .architecture = "GLAForCausalLM",
     .plan = "gla,rotary=false",
     .shared = true,
     .q_norm = true},
    {.mixer = "hgrn2",
     .type = "hgrn2",
     .architecture = "HGRN2ForCausalLM",
     .plan = "hgrn2,rotary=false,lower_bound=false",
     .q_norm = true},
    {.mixer = "retnet",
     .type = "retnet",
     .architecture = "RetNetForCausalLM",
     .plan = "retnet,rotary=true",
     .rotary = true,
     .q_norm = true},
    {.mixer = "linear",
     .type = "linear_attn",
     .architecture = "LinearAttentionForCausalLM",
     .plan = "linear,rotary=false,normalise=false,feature_map=elu1",
     .shared = true,
     .q_norm = true},
};
enum { WAYS = sizeof ways / sizeof *ways };

static const struct way *way_of(const char *mixer)
{
    for (size_t i = 0; i < WAYS; i++)
        if (!strcmp(ways[i].mixer, mixer))
            return &ways[i];
    return NULL;
}

/* Softmax over everything or a window: what `attn` says */
static bool kept(const struct tg_layer_spec *l)
{
    return l->mixer->flags & TG_MIXER_TEACHER;
}

/* The first layer that is not; NULL: all are kept */
static const struct tg_layer_spec *first_changed(const struct tg_model_spec *spec)
{
    for (size_t i = 0; i < spec->layer_count; i++)
        if (!kept(&spec->layers[i]))
            return &spec->layers[i];
    return NULL;
}

static bool has_map(const struct tg_layer_spec *l)
{
    return l->mixer->flags & TG_MIXER_FAR;
}

static bool has(const struct tg_layer_spec *l, const char *param)
{
    for (size_t i = 0; i < l->mixer->param_count; i++)
        if (!strcmp(l->mixer->params[i].name, param))
            return true;
    return false;
}

/* eps of the norm of a changed layer's output: its own, and what fla's norm_eps makes of it. fla
 * scales linear attention by K^-1/2. */
static double own_eps(const struct tg_model_spec *spec, const struct tg_layer_spec *l)
{
    return l->recurrent.norm_eps > 0 ? l->recurrent.norm_eps : spec->norm.eps;
}

static double fla_eps(const struct tg_model_spec *spec, const struct tg_layer_spec *l)
{
    if (has(l, "lower_bound"))
        return TG_FLA_HGRN2_EPS;
    return has_map(l) ? spec->norm.eps * (double)l->head_dim : spec->norm.eps;
}

/* The layer as fla's reader makes it; ropes aside */
static struct tg_layer_spec adapted(const struct tg_model_spec *spec, const struct tg_layer_spec *l)
{
    struct tg_layer_spec to = {.mixer = l->mixer,
                               .heads = l->heads,
                               .kv_heads = l->kv_heads,
                               .head_dim = l->head_dim,
                               .rotary_dim = l->rotary_dim,
                               .mlp_dim = l->mlp_dim};

    to.attn_scale = 1 / sqrt((double)l->head_dim);
    if (kept(l)) {
        to.qkv_bias = l->qkv_bias;
        tg_layer_attend(&to, l->window);
        return to;
    }
    const struct way *w = way_of(l->mixer->name);
    to.value_heads = tg_value_heads(l);
    to.value_dim = tg_value_dim(l);
    to.rotary_dim = w && w->rotary ? l->head_dim : 0;
    to.feature_map = has_map(l) ? l->feature_map : TG_MAP_HEDGEHOG_SOFTMAX;
    to.plain_values = has_map(l);
    to.recurrent.conv = l->recurrent.conv;
    to.recurrent.rank = l->recurrent.rank;
    to.recurrent.negative_eigenvalues = l->recurrent.negative_eigenvalues;
    to.recurrent.proj_bias = has(l, "g_b.bias");
    to.recurrent.no_bound = has(l, "lower_bound");
    to.recurrent.norm_eps = fla_eps(spec, l);
    return to;
}

#define SAY(to, layer, reasons)                                                                    \
    tg_remark_layer(to, layer, reasons, sizeof(reasons) / sizeof *(reasons))

static void check_frame(const struct tg_model_spec *s, struct tg_remarks *why)
{
    const struct tg_reason reasons[] = {
        {s->norm.kind != TG_NORM_RMS || s->norm.bias || s->norm.bare || s->norm.plus_one,
         "its norms are not RMS norms with a plain weight"},
        {s->no_norm_out, "it has no norm before the head"},
        {s->head_bias, "its head has a bias"},
        {tg_factor(s->embed_scale) != 1 || tg_factor(s->logit_scale) != 1,
         "embeddings or logits are scaled"},
        {s->logit_softcap != 0, "logits are capped"},
        {s->embed_dim != 0, "embeddings have a size of their own"},
        {s->learned_positions != 0, "positions are learned"},
    };

    tg_remark_model(why, reasons, sizeof reasons / sizeof *reasons);
}

/* Residuals and mlp, of every layer */
static void check_block(const struct tg_model_spec *s, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[i];
    const struct tg_reason reasons[] = {
        {l->residual != TG_RESIDUAL_PRE || tg_factor(l->mixer_scale) != 1 ||
             tg_factor(l->mlp_scale) != 1,
         "its branches do not join as in Llama"},
        {l->moe.experts != 0, "its mlp has experts"},
        {l->mlp_kind != TG_MLP_GATED || l->activation != TG_ACT_SILU || l->mlp_bias ||
             tg_factor(l->gate_scale) != 1 || tg_factor(l->down_scale) != 1,
         "its mlp is not gated by silu without biases"},
        {l->mlp_dim != s->layers[0].mlp_dim, "its mlp has another size than layer 0's"},
    };

    SAY(why, i, reasons);
}

/* Attention's fields that no layer of fla has */
static void check_heads(const struct tg_layer_spec *l, size_t i, struct tg_remarks *why)
{
    const struct tg_reason reasons[] = {
        {l->o_bias, "its output projection has a bias"},
        {l->output_gate, "its attention has an output gate"},
        {l->qkv_clip != 0, "its q, k and v are limited (qkv_clip)"},
        {l->sinks != 0, "it has sinks"},
    };

    SAY(why, i, reasons);
}

static void check_kept(const struct tg_model_spec *s, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[i];
    const struct tg_rope *r = &s->ropes[l->rope];
    const struct tg_reason reasons[] = {
        {l->heads * l->head_dim != s->width, "its heads together have not the size of the width"},
        {tg_value_dim(l) != l->head_dim, "values have another size than keys"},
        {l->qk_norm != TG_QK_NONE, "its q and k have norms, fla's softmax attention has none"},
        {l->rotary_dim != l->head_dim, "not all of a head is rotated"},
        {l->rotary_dim && (r->kind != TG_ROPE_DEFAULT || !(r->theta > 0)),
         "its rotary positions are scaled, fla has rope_theta alone"},
        {fabs(l->attn_scale * sqrt((double)l->head_dim) - 1) > 1e-12,
         "its scores have another scale than head_dim^-1/2"},
        {l->attn_softcap != 0, "its scores are capped"},
    };

    check_heads(l, i, why);
    SAY(why, i, reasons);
}

/* What depends on the mixer but not on the layers beside */
static void check_mixer(const struct tg_model_spec *s, size_t i, const struct way *w,
                        struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[i];
    const struct tg_rope *r = &s->ropes[l->rope];
    const size_t S = tg_value_heads(l), K = l->head_dim, V = tg_value_dim(l);
    const bool turned = l->rotary_dim && !l->linear_plain, bound = has(l, "lower_bound");
    const struct tg_reason reasons[] = {
        {l->window != 0, "it has a window beside the linear branch"},
        {turned && !w->rotary, "its linear branch is rotated (rotary=false fits)"},
        {w->rotary && (!turned || l->rotary_dim != K || r->kind != TG_ROPE_DEFAULT ||
                       r->theta != TG_FLA_RETNET_THETA),
         "it is not rotated whole by a theta of 10000"},
        {w->rotary && K > TG_FLA_RETNET_MOST, "its heads are larger than 256"},
        {l->qkv_bias, "its projections have biases, fla's linear layers have none"},
        {l->qk_norm != TG_QK_NONE, "its q and k have norms, fla's linear layers have none"},
        {l->kv_heads != l->heads && !w->shared,
         "its heads share keys and values (kv=expanded fits)"},
        {S != l->kv_heads && !w->by_head, "it has more value heads than keys"},
        {w->conv && !l->recurrent.conv, "it has no convolution"},
        {w->conv && own_eps(s, l) != fla_eps(s, l), "the norm of its output has an own epsilon"},
        {w->by_head && (size_t)((double)K * ((double)V / (double)K)) != V,
         "expand_v cannot say the size of its values"},
        {has(l, "f_b.bias") && l->recurrent.rank != TG_FLA_GLA_RANK,
         "the rank of its gate is not 16"},
        {has(l, "g_b.bias") && l->recurrent.rank != V,
         "the rank of its gates is not the size of a value"},
        {bound && !l->recurrent.no_bound,
         "its decays have lower bounds of their own (lower_bound=false fits)"},
        {bound && (l->heads * K != s->width || V != K),
         "its heads together have not the size of the width"},
        {has_map(l) && tg_feature_map_has_weights(l->feature_map),
         "its feature map has weights (feature_map=elu1 or relu fits)"},
        {has_map(l) && !l->plain_values, "it divides by a sum of weights (normalise=false fits)"},
    };

    check_heads(l, i, why);
    SAY(why, i, reasons);
}

/* One config for all changed layers */
static bool alike(const struct tg_layer_spec *a, const struct tg_layer_spec *b)
{
    return a->mixer == b->mixer && a->heads == b->heads && a->kv_heads == b->kv_heads &&
           tg_value_heads(a) == tg_value_heads(b) && a->head_dim == b->head_dim &&
           tg_value_dim(a) == tg_value_dim(b) && a->recurrent.conv == b->recurrent.conv &&
           a->recurrent.negative_eigenvalues == b->recurrent.negative_eigenvalues &&
           (!has_map(a) || a->feature_map == b->feature_map);
}

static void check(const struct tg_model_spec *s, struct tg_remarks *why)
{
    const struct tg_layer_spec *first = first_changed(s);

    check_frame(s, why);
    if (!first)
        tg_remark(why, "no layer is changed: fla's models have a linear mixer");
    for (size_t i = 0; i < s->layer_count; i++) {
        const struct tg_layer_spec *l = &s->layers[i];
        const struct way *w = way_of(l->mixer->name);
        check_block(s, i, why);
        if (kept(l))
            check_kept(s, i, why);
        else if (!w)
            tg_remark(why, "layer %zu: fla's hybrids have no mixer %s", i, l->mixer->name);
        else
            check_mixer(s, i, w, why);
        if (first && !kept(l) && !alike(first, l))
            tg_remark(why,
                      "layer %zu: its mixer or sizes are not those of layer %zu, and one config "
                      "is for all changed layers",
                      i, (size_t)(first - s->layers));
    }
}

/* Ropes numbered as layers use them, which is how they are read */
static void adapt_ropes(const struct tg_rope *from, struct tg_model_spec *s)
{
    struct tg_rope to[TG_MAX_ROPES] = {{.theta = 0}};

    for (size_t i = 0; i < s->layer_count; i++) {
        struct tg_layer_spec *l = &s->layers[i];
        size_t r = 0;
        if (!l->rotary_dim)
            continue;
        while (r + 1 < TG_MAX_ROPES && to[r].theta > 0 && to[r].theta != from[l->rope].theta)
            r++;
        to[r].theta = from[l->rope].theta;
        l->rope = r;
    }
    memcpy(s->ropes, to, sizeof to);
}

static int adapt(struct tg_export *x, struct tg_err *err)
{
    const struct tg_model_spec *in = x->in->spec;
    struct tg_model_spec *s = &x->spec;
    double scale = 1;

    (void)err;
    for (size_t i = 0; i < s->layer_count; i++) {
        const struct tg_layer_spec *l = &in->layers[i];
        s->layers[i] = adapted(in, l);
        s->layers[i].rope = s->layers[i].rotary_dim ? l->rope : 0;
        if (!kept(l))
            scale = sqrt(fla_eps(in, l) / own_eps(in, l));
    }
    adapt_ropes(in->ropes, s);
    s->norm = (struct tg_norm_spec){.eps = in->norm.eps};
    s->embed_scale = s->logit_scale = 0;
    s->pairs_apart = false;
    if (!s->max_positions)
        s->max_positions = 2048;
    if (fabs(log2(scale) - round(log2(scale))) > 1e-6)
        tg_remark(&x->notes, "values are scaled by %g for the epsilon of fla's norm", scale);
    return TG_OK;
}

static bool ends(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);

    return n >= m && !strcmp(name + n - m, end);
}

static int fill(const struct tg_export *x, const struct tg_param *p, float *dst, struct tg_err *err)
{
    int rc;

    if (ends(p->name, ".g_b.bias") && !tg_export_has(x, p->name)) {
        memset(dst, 0, p->count * sizeof *dst);
        return TG_OK;
    }
    if ((rc = tg_export_same(x, p, dst, err)) || p->layer < 0 || !ends(p->name, ".mixer.v.weight"))
        return rc;
    const struct tg_layer_spec *l = &x->in->spec->layers[p->layer];
    if (kept(l))
        return TG_OK;
    /* norm(c o) with c^2 eps is norm(o) with eps; o is linear in v */
    const float c = (float)sqrt(fla_eps(x->in->spec, l) / own_eps(x->in->spec, l));
    for (size_t i = 0; i < p->count && c != 1; i++)
        dst[i] *= c;
    return TG_OK;
}

/* Kept layers that are said in one object */
static bool same_attention(const struct tg_model_spec *s, const struct tg_layer_spec *a,
                           const struct tg_layer_spec *b)
{
    return a->heads == b->heads && a->kv_heads == b->kv_heads && a->qkv_bias == b->qkv_bias &&
           a->window == b->window && s->ropes[a->rope].theta == s->ropes[b->rope].theta;
}

/* Is layer i the first of those that are kept like it? */
static bool begins(const struct tg_model_spec *s, size_t i)
{
    if (!kept(&s->layers[i]))
        return false;
    for (size_t j = 0; j < i; j++)
        if (kept(&s->layers[j]) && same_attention(s, &s->layers[j], &s->layers[i]))
            return false;
    return true;
}

static void put_attention(const struct tg_model_spec *s, size_t first, const char *key,
                          struct tg_json_out *out)
{
    const struct tg_layer_spec *l = &s->layers[first];

    tg_jout_object(out, key);
    tg_jout_array(out, "layers");
    for (size_t i = first; i < s->layer_count; i++)
        if (kept(&s->layers[i]) && same_attention(s, l, &s->layers[i]))
            tg_jout_int(out, NULL, (int64_t)i);
    tg_jout_end_array(out);
    tg_jout_int(out, "num_heads", (int64_t)l->heads);
    tg_jout_int(out, "num_kv_heads", (int64_t)l->kv_heads);
    tg_jout_bool(out, "qkv_bias", l->qkv_bias);
    if (l->window)
        tg_jout_int(out, "window_size", (int64_t)l->window);
    else
        tg_jout_null(out, "window_size");
    tg_jout_num(out, "rope_theta", s->ropes[l->rope].theta);
    tg_jout_end_object(out);
}

/* One object, which older versions know too, or a list of them */
static void put_attn(const struct tg_model_spec *s, struct tg_json_out *out)
{
    size_t objects = 0, only = 0;

    for (size_t i = 0; i < s->layer_count; i++)
        if (begins(s, i)) {
            only = i;
            objects++;
        }
    if (!objects)
        tg_jout_null(out, "attn");
    else if (objects == 1)
        put_attention(s, only, "attn", out);
    else {
        tg_jout_array(out, "attn");
        for (size_t i = 0; i < s->layer_count; i++)
            if (begins(s, i))
                put_attention(s, i, NULL, out);
        tg_jout_end_array(out);
    }
}

static const char *map_name(enum tg_feature_map m)
{
    return m == TG_MAP_ELU1 ? "elu" : m == TG_MAP_RELU ? "relu" : "identity";
}

static void put_mixer(const struct tg_model_spec *s, const struct way *w,
                      const struct tg_layer_spec *l, struct tg_json_out *out)
{
    const double H = (double)l->heads, K = (double)l->head_dim, V = (double)tg_value_dim(l),
                 width = (double)s->width;

    tg_jout_int(out, "num_heads", (int64_t)l->heads);
    if (has(l, "lower_bound")) {
        tg_jout_int(out, "expand_ratio", (int64_t)l->head_dim);
        tg_jout_bool(out, "use_lower_bound", false);
    } else if (w->by_head) {
        tg_jout_int(out, "head_dim", (int64_t)l->head_dim);
        tg_jout_int(out, "num_v_heads", (int64_t)tg_value_heads(l));
        tg_jout_num(out, "expand_v", V / K);
    } else {
        tg_jout_num(out, "expand_k", H * K / width);
        tg_jout_num(out, "expand_v", H * V / width);
    }
    if (w->shared)
        tg_jout_int(out, "num_kv_heads", (int64_t)l->kv_heads);
    if (has_map(l))
        tg_jout_str(out, "feature_map", map_name(l->feature_map));
    tg_jout_bool(out, "use_short_conv", w->conv);
    if (!w->conv)
        return;
    tg_jout_int(out, "conv_size", (int64_t)l->recurrent.conv);
    tg_jout_bool(out, "allow_neg_eigval", l->recurrent.negative_eigenvalues);
}

static void config(const struct tg_export *x, struct tg_json_out *out)
{
    const struct tg_model_spec *s = &x->spec;
    const struct tg_layer_spec *l = first_changed(s);
    const struct way *w = way_of(l->mixer->name);

    tg_jout_str(out, "model_type", w->type);
    tg_jout_array(out, "architectures");
    tg_jout_str(out, NULL, w->architecture);
    tg_jout_end_array(out);
    tg_target_common(x, out);
    tg_jout_int(out, "intermediate_size", (int64_t)s->layers[0].mlp_dim);
    tg_jout_str(out, "hidden_act", "swish");
    tg_jout_num(out, "norm_eps", s->norm.eps);
    put_mixer(s, w, l, out);
    put_attn(s, out);
}

/* Layers as surgery would leave them to the mixer */
static void check_plan(const struct tg_model_spec *teacher, const struct way *w,
                       struct tg_remarks *why)
{
    check_frame(teacher, why);
    for (size_t i = 0; i < teacher->layer_count; i++) {
        const struct tg_layer_spec *l = &teacher->layers[i];
        const struct tg_rope *r = &teacher->ropes[l->rope];
        const struct tg_reason reasons[] = {
            {!kept(l), "it is no softmax attention"},
            {l->qkv_bias, "its projections have biases, fla's linear layers have none"},
            {l->qk_norm != TG_QK_NONE && w->q_norm,
             "its q and k have norms, fla's linear layers have none"},
            {w->rotary && (l->rotary_dim != l->head_dim || r->kind != TG_ROPE_DEFAULT ||
                           r->theta != TG_FLA_RETNET_THETA),
             "it is not rotated whole by a theta of 10000"},
            {w->rotary && l->head_dim > TG_FLA_RETNET_MOST, "its heads are larger than 256"},
            {way_of("hgrn2") == w &&
                 (l->heads * l->head_dim != teacher->width || tg_value_dim(l) != l->head_dim),
             "its heads together have not the size of the width"},
        };
        check_block(teacher, i, why);
        check_heads(l, i, why);
        SAY(why, i, reasons);
    }
}

static int plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err)
{
    const struct way *w = mixer ? way_of(mixer) : &ways[0];
    struct tg_remarks why = {0};
    int rc = TG_OK;

    if (!w)
        return tg_fail(err, TG_ERR_VALUE,
                       "fla: no mixer '%s' in its hybrids; there are gated_deltanet, kda, "
                       "deltanet, gla, hgrn2, retnet, linear",
                       mixer);
    check_plan(teacher, w, &why);
    if (why.count)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "fla: no plan with %s fits: %s", w->mixer,
                     why.lines[0]);
    snprintf(text, size, "%s", w->plan);
    tg_remarks_release(&why);
    return rc;
}

const struct tg_target tg_target_fla = {
    .name = "fla",
    .engines = "flash-linear-attention",
    .check = check,
    .adapt = adapt,
    .fill = fill,
    .names = tg_fla_names + TG_FLA_READ_ONLY,
    .config = config,
    .plan = plan,
    .keep = "every:4",
};
