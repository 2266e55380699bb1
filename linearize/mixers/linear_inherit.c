/* What a linear layer begins with in place of a softmax layer (docs/mixers/linear.md):
 *
 *   decay      its mean look-back f / (1 - f) is the teacher's attention-weighted distance d of the
 *              head: f = d / (1 + d). Channels of a head spread around it by factors of 1/4 to 4.
 *   beta       1 / n^(1/2), n = e^{entropy} the number of keys the head attends to: a sharp head
 *              overwrites, a broad one accumulates
 *   z          near a constant with f(z) = 1
 *   conv       the token itself, small, where silu is nearly linear and a norm takes the scale out
 *
 * Constants come from the vector c with c . x near 1 on the layer's inputs (tg_attention_stats).
 * Without statistics heads get distances from 8 to 512, beta 1/2, and z small random weights. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "convert/config.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/linear_mixer.h"

static const double SHORTEST = 8, LONGEST = 512; /* tokens, without statistics */
static const double SPREAD = 4;                  /* of a head's channels, each way */
static const float TAP = 0.25F, SMALL = 0.02F;
static const float SILU_ONE = 1.2784645F; /* silu(SILU_ONE) = 1 */

struct start {
    const struct tg_mixer *m;
    const struct tg_origin *o;
    size_t rule, count;
    float *data;
};

/* Mean over the query heads that state head s serves, of a statistic [H] */
static double of_state(const struct tg_mixer *m, const double *stat, size_t s)
{
    const struct tg_layer_spec *l = m->spec;
    size_t S = tg_value_heads(l), H = l->heads, per = H > S ? H / S : 1;
    double sum = 0;
    for (size_t i = 0; i < per; i++)
        sum += stat[H > S ? s * per + i : s * H / S];
    return sum / (double)per;
}

/* Look-back of channel c of `each` of state head s, in tokens */
static double distance(const struct tg_mixer *m, const struct tg_origin *o, size_t s, size_t c,
                       size_t each)
{
    size_t S = tg_value_heads(m->spec);
    double d = SHORTEST * pow(LONGEST / SHORTEST, S > 1 ? (double)s / (double)(S - 1) : 0.5);
    if (o->stats)
        d = fmax(of_state(m, o->stats->distance, s), 0.5);
    return each > 1 ? d * pow(SPREAD, 2 * (double)c / (double)(each - 1) - 1) : d;
}

double tg_linear_first_decay(const struct tg_mixer *m, const struct tg_origin *o, size_t i,
                             size_t each)
{
    return -log1p(1 / distance(m, o, i / each, i % each, each));
}

double tg_linear_first_rate(const struct tg_mixer *m, const struct tg_origin *o, size_t s)
{
    return o->stats ? fmin(fmax(exp(-of_state(m, o->stats->entropy, s) / 2), 0.05), 0.95) : 0.5;
}

static double log_decay(const struct start *a, size_t i, size_t each)
{
    return tg_linear_first_decay(a->m, a->o, i, each);
}

static double logit(double p)
{
    return log(p) - log1p(-p);
}

/* rows of D: value[row] . x for every x */
static void constant_rows(const struct start *a, double (*value)(const struct start *a, size_t row))
{
    size_t D = a->m->width;
    const float *c = a->o->stats ? a->o->stats->constant : NULL;
    for (size_t i = 0; i < a->count; i++)
        a->data[i] = c ? (float)(value(a, i / D) * (double)c[i % D]) : 0;
}

static double beta_logit(const struct start *a, size_t s)
{
    double most = a->m->spec->recurrent.negative_eigenvalues ? 2 : 1;
    return logit(tg_linear_first_rate(a->m, a->o, s) / most);
}

static double silu_one(const struct start *a, size_t row)
{
    (void)a;
    (void)row;
    return (double)SILU_ONE;
}

static void random_rows(const struct start *a, double size)
{
    struct tg_rng rng = tg_rng_make(a->o->layer, a->rule);
    for (size_t i = 0; i < a->count; i++)
        a->data[i] = (float)(size * tg_rng_normal(&rng));
}

static void z_weight(const struct start *a, enum tg_gate_fn f)
{
    if (f == TG_GATE_FN_SIGMOID)
        tg_mixer_fill(a->data, a->count, 0);
    else if (a->o->stats && a->o->stats->constant)
        constant_rows(a, silu_one);
    else
        random_rows(a, (double)SMALL);
}

/* [C,taps]: the token itself */
static void conv_weight(const struct start *a)
{
    size_t taps = a->m->spec->recurrent.conv;
    for (size_t i = 0; i < a->count; i++)
        a->data[i] = i % taps == taps - 1 ? TAP : 0;
}

/* g = -e^{A_log} softplus(dt_bias) with A_log = 0 */
static void dt_bias(const struct start *a)
{
    size_t each = a->count / tg_value_heads(a->m->spec);
    for (size_t i = 0; i < a->count; i++)
        a->data[i] = (float)log(expm1(-log_decay(a, i, each)));
}

/* g = log sigmoid(bias) / 16 */
static void sigmoid_bias(const struct start *a)
{
    size_t each = a->count / tg_value_heads(a->m->spec);
    for (size_t i = 0; i < a->count; i++)
        a->data[i] = (float)-log(expm1(-16 * log_decay(a, i, each)));
}

/* With sigmoid(-u) near 1/2, e^g = lb + (1 - lb) / 2 */
static void lower_bound(const struct start *a)
{
    size_t each = a->count / tg_value_heads(a->m->spec);
    for (size_t i = 0; i < a->count; i++)
        a->data[i] = (float)logit(fmax(1 + 2 * expm1(log_decay(a, i, each)), 0.02));
}

static double row_size(const float *w, size_t D)
{
    double sum = 0;
    for (size_t i = 0; i < D; i++)
        sum += (double)w[i] * (double)w[i];
    return sqrt(sum);
}

/* |q row| |k row| of component c of query head h, summed over the two of a rotary pair */
static double component_size(const struct start *a, size_t h, size_t c)
{
    const struct tg_mixer *from = a->o->from;
    const float *q = tg_mixer_param(from, "q.weight"), *k = tg_mixer_param(from, "k.weight");
    const size_t K = from->spec->head_dim, D = from->width, half = from->spec->rotary_dim / 2;
    const size_t g = h / (from->spec->heads / from->spec->kv_heads);
    const size_t pair[2] = {c, c < half ? c + half : c < 2 * half ? c - half : c};
    double sum = 0;
    for (size_t i = 0; i < 2; i++)
        sum += row_size(q + (h * K + pair[i]) * D, D) * row_size(k + (g * K + pair[i]) * D, D);
    return sum;
}

/* Taylor maps [K,F] of each head: its F components of largest |q| |k|, rotary pairs together,
 * scaled so that q'.k' F^-1/2 keeps the size of q.k K^-1/2 */
static void taylor_map(const struct start *a)
{
    const size_t H = a->m->spec->heads, K = a->m->spec->head_dim, F = a->m->spec->feature_dim;
    const float scale = powf((float)F / (float)K, 0.25F);
    memset(a->data, 0, a->count * sizeof *a->data);
    for (size_t h = 0; h < H; h++) {
        double size[TG_MAX_HEAD_DIM];
        for (size_t c = 0; c < K; c++)
            size[c] = component_size(a, h, c);
        for (size_t f = 0; f < F && f < K; f++) {
            size_t best = 0;
            for (size_t c = 1; c < K; c++)
                best = size[c] > size[best] ? c : best;
            size[best] = -1;
            a->data[(h * K + best) * F + f] = scale;
        }
    }
}

/* The size that the teacher's heads have, over all of them */
static float norm_start(const struct start *a, const struct tg_linear_recipe *r)
{
    const size_t H = a->o->from->spec->heads;
    double squares = 0;
    for (size_t h = 0; h < H && a->o->stats; h++)
        squares += a->o->stats->output[h] * a->o->stats->output[h];
    double size = a->o->stats ? sqrt(squares / (double)H) : 1;
    size *= r->z == TG_GATE_FN_SIGMOID ? 2 : 1;             /* sigmoid(0) = 1/2 */
    return (float)(a->m->spec->window ? 0.2 * size : size); /* the window gives most at first */
}

void tg_linear_inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule,
                       float *data, size_t count)
{
    const struct tg_linear_recipe *r = tg_mixer_find(m->spec->mixer)->recipe;
    const char *name = m->spec->mixer->params[rule].name, *shared = "shared_";
    const struct start a = {m, o, rule, count, data};
    /* Taylor features give even a far key a weight of 1/2 at least */
    const struct tg_mixer_start fixed[] = {
        {"alpha", 1},
        {"sink", -4},
        {"far_logit", m->spec->feature_map == TG_MAP_TAYLOR ? -3 : 0},
        {NULL, 0}};
    if (!strncmp(name, shared, strlen(shared))) /* the state for all tokens begins as the others */
        name += strlen(shared);
    if (!strcmp(name, "conv.weight"))
        conv_weight(&a);
    else if (!strcmp(name, "norm.weight"))
        tg_mixer_fill(data, count, norm_start(&a, r));
    else if (!strcmp(name, "z.weight"))
        z_weight(&a, r->z);
    else if (!strcmp(name, "b.weight"))
        constant_rows(&a, beta_logit);
    else if (!strcmp(name, "dt_bias"))
        dt_bias(&a);
    else if (!strcmp(name, "f_b.bias"))
        sigmoid_bias(&a);
    else if (!strcmp(name, "lower_bound"))
        lower_bound(&a);
    else if (!strcmp(name, "partition.weight"))
        random_rows(&a, (double)SMALL);
    else if (!strcmp(name, "f_a.weight") || !strcmp(name, "g_a.weight") ||
             !strcmp(name, "q2_a.weight") || !strcmp(name, "k2_a.weight"))
        random_rows(&a, 1 / sqrt((double)m->width));
    else if (m->spec->mixer->params[rule].flags & TG_PARAM_IF_MAP &&
             m->spec->feature_map == TG_MAP_TAYLOR)
        taylor_map(&a);
    else
        tg_mixer_start_fill(m, fixed, rule, data, count);
}

/* The weight of a norm that the teacher has and the new layer has not goes into the rows that it
 * scaled; unit vectors do not see the rest of the norm. */
static void fold_norm(const struct start *a, const char *weight)
{
    const struct tg_mixer *from = a->o->from;
    const float *w = tg_mixer_param(from, weight);
    const size_t D = a->m->width, rows = a->count / D, K = a->m->spec->head_dim;
    const bool per_head = from->spec->qk_norm != TG_QK_HEAD;
    const size_t source = weight[0] == 'q' ? from->spec->heads : from->spec->kv_heads;
    for (size_t i = 0; w && i < a->count; i++) {
        const size_t row = i / D, h = row / K * source / (rows / K);
        const float factor = w[per_head ? h * K + row % K : row % K];
        a->data[i] *= from->norm && from->norm->plus_one ? 1 + factor : factor;
    }
}

/* The keys less their mean, which softmax does not see: W <- W - (W mean) c^T, c . x near 1. Keys
 * that point the same way would have the delta rule overwrite all that it holds with every token.
 */
static void centre(const struct start *a)
{
    const struct tg_attention_stats *s = a->o->stats;
    const size_t D = a->m->width;
    for (float *w = a->data; s && w < a->data + a->count; w += D) {
        double mean = 0;
        for (size_t i = 0; i < D; i++)
            mean += (double)w[i] * (double)s->mean[i];
        for (size_t i = 0; i < D; i++)
            w[i] -= (float)(mean * (double)s->constant[i]);
    }
}

void tg_linear_adjust(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                      size_t count)
{
    const char *name = m->spec->mixer->params[rule].name;
    const bool q = !strcmp(name, "q.weight"), k = !strcmp(name, "k.weight");
    const struct start a = {m, o, rule, count, data};
    if ((q || k) && o->from->spec->qk_norm && !m->spec->qk_norm)
        fold_norm(&a, q ? "q_norm.weight" : "k_norm.weight");
    if (k && tg_mixer_find(m->spec->mixer)->recipe->unit && !m->spec->qkv_bias && !m->spec->window)
        centre(&a);
}
