/* First values of a Mamba-2 layer that replaces softmax attention (Wang et al. 2024, arXiv
 * 2408.15237: x from v, B from k, C from q). What Mamba-2 has between these projections and the sum
 * over earlier tokens is set so that the layer begins as
 *
 *   o_t = sum_j e^{-r (t - j)} (1 + s q_t . k_j) v_j
 *
 * weights of softmax to first order, with a decay r for each head in place of rotary; the reasons
 * are in docs/mixers/mamba2.md. Sizes are those for inputs of mean square 1. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/mamba2_core.h"

/* At silu's input: typical sizes of x and of B and C, small enough that silu is nearly halving; the
 * output gate's constant, large enough that silu is nearly the identity */
static const double x_size = 1.0 / 16, bc_size = 1.0 / 2, gate = 4;
/* Without measurements the decays' rates span what steps of 1e-3 to 0.1 and A of 1 to 16 do. */
static const double slowest = 1e-3, fastest = 1.6;
/* Between the looks back of two copies of a head */
static const double spread = 4;

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* u > 0 with silu(u) = y > 0, by Newton's steps; the slope there is between 1/2 and 1.1. */
static double silu_inverse(double y)
{
    double u = y + 1;
    for (int i = 0; i < 60; i++) {
        const double s = 1 / (1 + exp(-u));
        u -= (u * s - y) / (s * (1 + u * (1 - s)));
    }
    return u;
}

/* Rows of weights, or the biases, which are rows of one number, of the teacher; NULL: none */
struct rows {
    const float *q, *k, *v, *gate;
    size_t width;
};

/* q or k of the teacher, which a norm may follow */
struct normed {
    const float *w, *bias, *norm;
    bool plus_one;
};

static struct normed normed_of(const struct tg_mixer *from, const char *w, const char *bias,
                               const char *norm)
{
    return (struct normed){tg_mixer_param(from, w), tg_mixer_param(from, bias),
                           tg_mixer_param(from, norm), from->norm && from->norm->plus_one};
}

static double mean_square(const float *w, const float *bias, size_t rows, size_t width)
{
    double sum = 0;
    for (size_t i = 0; i < rows * width; i++)
        sum += (double)w[i] * (double)w[i];
    for (size_t i = 0; bias && i < rows; i++)
        sum += (double)bias[i] * (double)bias[i];
    return rows ? sum / (double)rows : 0;
}

/* What the norm divides head h by, typically; 1 without norm */
static double norm_size(const struct tg_mixer *from, const struct normed *n, size_t heads, size_t h)
{
    const size_t K = from->spec->head_dim, D = from->width;
    const bool wide = from->spec->qk_norm == TG_QK_WIDE;
    const size_t first = wide ? 0 : h * K, rows = wide ? heads * K : K;
    if (from->spec->qk_norm == TG_QK_NONE)
        return 1;
    const double square = mean_square(n->w + first * D, n->bias ? n->bias + first : NULL, rows, D);
    return square > 0 ? sqrt(square) : 1;
}

/* to [N, width] = mean of heads [first, first + count) of from [heads, K, width], as a norm scales
 * them. Channel 0 stays 0: it is the constant's. */
static void mean_heads(const struct tg_mixer *from, const struct normed *n, size_t heads,
                       const float *rows, size_t first, size_t count, size_t N, size_t width,
                       float *to)
{
    const size_t K = from->spec->head_dim;
    for (size_t h = first; h < first + count; h++) {
        const double size = norm_size(from, n, heads, h);
        for (size_t c = 1; c < N && c < K; c++) {
            const size_t at = from->spec->qk_norm == TG_QK_HEAD ? c : h * K + c;
            const float factor =
                n->norm ? (float)(((double)n->norm[at] + n->plus_one) / size) : 1 / (float)size;
            for (size_t i = 0; i < width; i++)
                to[c * width + i] += factor * rows[(h * K + c) * width + i];
        }
    }
    for (size_t i = 0; count > 1 && i < N * width; i++)
        to[i] /= (float)count;
}

/* The teacher's head that head h of x is made from: with more channels than the teacher's heads
 * give each has several copies, one after the other. */
static size_t source_of(const struct tg_mixer *m, const struct tg_mixer *from, size_t h)
{
    return h * from->spec->heads / m->spec->recurrent.v_heads;
}

/* in.weight [2 I + 2 R N + S, D], or in.bias: z, x, B, C, dt, S heads of x, R groups of N. dt stays
 * 0. */
static void fill_in(const struct tg_mixer *m, const struct tg_mixer *from, const struct rows *t,
                    float *data, size_t count)
{
    const struct tg_layer_spec *l = from->spec;
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    const size_t H = l->heads, G = l->kv_heads, each = tg_value_dim(l) * t->width;
    const size_t served = r->v_heads / r->groups; /* heads of a group */
    const struct normed q = normed_of(from, "q.weight", "q.bias", "q_norm.weight");
    const struct normed k = normed_of(from, "k.weight", "k.bias", "k_norm.weight");
    float *x = data + r->inner * t->width, *B = x + r->inner * t->width,
          *C = B + r->groups * r->state * t->width;

    memset(data, 0, count * sizeof *data);
    /* silu(gate + a u) / silu(gate) and sigmoid(u) / sigmoid(0) agree to first order */
    const double s = 1 / (1 + exp(-gate)), a = gate / (2 * (1 + gate * (1 - s)));
    for (size_t h = 0; h < r->v_heads; h++) {
        const size_t head = source_of(m, from, h);
        for (size_t i = 0; t->gate && i < each; i++)
            data[h * each + i] = (float)a * t->gate[head * each + i];
        if (t->v)
            memcpy(x + h * each, t->v + head / (H / G) * each, each * sizeof *x);
    }
    for (size_t g = 0; g < r->groups; g++) {
        const size_t head = source_of(m, from, g * served),
                     end = source_of(m, from, (g + 1) * served - 1), kv = head / (H / G),
                     last = end / (H / G), at = g * r->state * t->width;
        if (t->k)
            mean_heads(from, &k, G, t->k, kv, last - kv + 1, r->state, t->width, B + at);
        if (t->q)
            mean_heads(from, &q, H, t->q, head, end - head + 1, r->state, t->width, C + at);
    }
}

/* No bias of k: it adds the same to all scores of a query, which softmax does not see. */
static void fill_bias(const struct tg_mixer *m, const struct tg_mixer *from, float *data,
                      size_t count)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    const struct rows t = {tg_mixer_param(from, "q.bias"), NULL, tg_mixer_param(from, "v.bias"),
                           tg_mixer_param(from, "out_gate.bias"), 1};
    const float *norm = tg_mixer_param(from, "q_norm.bias");
    const size_t K = from->spec->head_dim, served = r->v_heads / r->groups;
    float *C = data + 2 * r->inner + r->groups * r->state;

    fill_in(m, from, &t, data, count);
    for (size_t i = 0; i < r->inner; i++)
        data[i] += (float)gate;
    for (size_t g = 0; norm && g < r->groups; g++) {
        const size_t first = source_of(m, from, g * served),
                     end = source_of(m, from, (g + 1) * served - 1) + 1;
        for (size_t c = 1; c < r->state && c < K; c++)
            for (size_t h = first; h < end; h++)
                C[g * r->state + c] +=
                    norm[from->spec->qk_norm == TG_QK_HEAD ? c : h * K + c] / (float)(end - first);
    }
}

/* A layer without biases has them through the inputs' constant. Where none was measured, what has
 * the size of the gate stands for it: x's own projection. */
static void add_biases(const struct tg_mixer *m, const struct tg_origin *o, float *data,
                       size_t count)
{
    const size_t rows = count / m->width, inner = m->spec->recurrent.inner, D = m->width;
    const float *constant = o->stats ? o->stats->constant : NULL, *x = data + inner * D;
    float *bias = tg_alloc_array(rows, sizeof *bias);

    if (!bias) {
        data[0] = NAN;
        return;
    }
    fill_bias(m, o->from, bias, rows);
    const double square = mean_square(x, NULL, inner, D);
    const float scale = square > 0 ? (float)(gate / sqrt(square)) : 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t c = 0; c < D; c++)
            data[i * D + c] += constant    ? bias[i] * constant[c]
                               : i < inner ? scale * x[i * D + c]
                                           : 0;
    tg_free(bias);
}

static void fill_weight(const struct tg_mixer *m, const struct tg_origin *o, float *data,
                        size_t count)
{
    const struct tg_mixer *from = o->from;
    const struct rows t = {tg_mixer_param(from, "q.weight"), tg_mixer_param(from, "k.weight"),
                           tg_mixer_param(from, "v.weight"),
                           tg_mixer_param(from, "out_gate.weight"), m->width};
    fill_in(m, from, &t, data, count);
    if (!tg_mixer_param(m, "in.bias"))
        add_biases(m, o, data, count);
}

/* Copies of a head share its columns. */
static void fill_out(const struct tg_mixer *m, const struct tg_mixer *from, float *data)
{
    const size_t H = m->spec->recurrent.v_heads, V = m->spec->recurrent.v_dim,
                 wide = from->spec->heads * V;
    const float *w = tg_mixer_param(from, "o.weight");

    for (size_t h = 0, end; h < H; h = end) {
        const size_t head = source_of(m, from, h);
        for (end = h; end < H && source_of(m, from, end) == head;)
            end++;
        for (size_t i = 0; i < m->width; i++)
            for (size_t c = h * V; c < end * V; c++)
                data[i * H * V + c] = w[i * wide + head * V + c % V] / (float)(end - h);
    }
}

/* The scales between projections and sum */
struct scales {
    double size;     /* of x's projection */
    double x, b, c;  /* factors of the convolution's last tap */
    double constant; /* of B and C in channel 0, after silu */
    double gain;     /* of dt: what enters the norm has about size 1 for a head that looks at one
                        token */
};

/* Root of the mean square of `count` channels of the in projection from row `first` on */
static double size_of(const struct tg_mixer *m, size_t first, size_t count)
{
    const float *bias = tg_mixer_param(m, "in.bias");
    const double square = mean_square(tg_mixer_param(m, "in.weight") + first * m->width,
                                      bias ? bias + first : NULL, count, m->width);
    return square > 0 ? sqrt(square) : 1;
}

static struct scales scales_of(const struct tg_mixer *m, const struct tg_mixer *from)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    const size_t bc = r->groups * r->state;
    const double root = sqrt((double)r->state), sb = size_of(m, 2 * r->inner, bc),
                 sc = size_of(m, 2 * r->inner + bc, bc);
    /* Scores that spread by more than 1 are made smaller, or many weights would be negative. */
    const double score = fmin(from->spec->attn_scale, 1 / (sb * sc * root));
    struct scales s = {.size = size_of(m, r->inner, r->inner)};

    s.constant = bc_size / 2 * sqrt(root);
    s.x = x_size / s.size;
    s.b = 2 * s.constant * sqrt(score * sc / sb);
    s.c = 2 * s.constant * sqrt(score * sb / sc);
    s.gain = 1 / (x_size / 2 * s.constant * s.constant * silu(gate));
    return s;
}

static void fill_conv(const struct tg_mixer *m, const struct scales *s, float *data, size_t count)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    const size_t bc = r->groups * r->state;

    memset(data, 0, count * sizeof *data);
    for (size_t c = 0; c < r->inner + 2 * bc; c++)
        data[(c + 1) * r->conv - 1] = (float)(c < r->inner        ? s->x
                                              : c < r->inner + bc ? s->b
                                                                  : s->c);
}

/* Of x: silu(b + u) has mean 0 to second order, or a sum over many tokens would be that mean. */
static void fill_conv_bias(const struct tg_mixer *m, const struct scales *s, float *data,
                           size_t count)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    const float constant = (float)silu_inverse(s->constant);

    for (size_t c = 0; c < r->inner; c++) {
        const double u = s->x * size_of(m, r->inner + c, 1);
        data[c] = (float)(-u * u / 2);
    }
    for (size_t c = r->inner; c < count; c++)
        data[c] = (c - r->inner) % r->state ? 0 : constant;
}

/* What the distance of head h, a copy of the teacher's, is multiplied by: copies that were alike
 * would stay so. Their factors are even in the logarithm, `spread` from one copy to the next, and
 * their product is 1. */
static double spread_of(const struct tg_mixer *m, const struct tg_mixer *from, size_t h)
{
    const size_t head = source_of(m, from, h), H = m->spec->recurrent.v_heads;
    size_t first = h, end = h;

    while (first > 0 && source_of(m, from, first - 1) == head)
        first--;
    while (end < H && source_of(m, from, end) == head)
        end++;
    return pow(spread, (double)(h - first) - ((double)(end - first) - 1) / 2);
}

/* How many tokens before its own head h looks back to, at a mean */
static double distance_of(const struct tg_mixer *m, const struct tg_origin *o, size_t h)
{
    if (o->stats)
        return fmax(o->stats->distance[source_of(m, o->from, h)] * spread_of(m, o->from, h), 0.1);
    const double at = ((double)h + 0.5) / (double)m->spec->recurrent.v_heads;
    return 1 / expm1(slowest * pow(fastest / slowest, at));
}

/* A head that looks back by d has a decay of d / (1 + d), whose weights have that mean and sum to
 * 1 + d: dt makes the sum `gain`, A the decay. */
static void fill_steps(const struct tg_mixer *m, const struct tg_origin *o, const struct scales *s,
                       bool decay, float *data, size_t count)
{
    for (size_t h = 0; h < count; h++) {
        const double d = distance_of(m, o, h), dt = s->gain / (1 + d);
        data[h] = (float)(decay ? log(log1p(1 / d) / dt) : dt + log(-expm1(-dt)));
    }
}

/* The size of the teacher's: a mean of n values has that of one over the root of n. */
static double norm_weight(const struct tg_mixer *m, const struct tg_origin *o,
                          const struct scales *s)
{
    const size_t H = m->spec->recurrent.v_heads;
    double sum = 0;
    for (size_t h = 0; h < H; h++)
        sum += o->stats ? exp(-o->stats->entropy[source_of(m, o->from, h)])
                        : 1 / (1 + distance_of(m, o, h));
    return s->size * sqrt(sum / (double)H) * (o->from->spec->output_gate ? 0.5 : 1);
}

static void copy(const float *from, float *data, size_t count)
{
    if (from)
        memcpy(data, from, count * sizeof *data);
    else
        memset(data, 0, count * sizeof *data);
}

void tg_mamba2_inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule,
                       float *data, size_t count)
{
    const char *name = m->spec->mixer->params[rule].name;

    if (!strcmp(name, "in.weight")) {
        fill_weight(m, o, data, count);
        return;
    }
    if (!strcmp(name, "in.bias")) {
        fill_bias(m, o->from, data, count);
        return;
    }
    const struct scales s = scales_of(m, o->from);
    if (!strcmp(name, "conv.weight"))
        fill_conv(m, &s, data, count);
    else if (!strcmp(name, "conv.bias"))
        fill_conv_bias(m, &s, data, count);
    else if (!strcmp(name, "dt_bias") || !strcmp(name, "A_log"))
        fill_steps(m, o, &s, *name == 'A', data, count);
    else if (!strcmp(name, "out.weight"))
        fill_out(m, o->from, data);
    else if (!strcmp(name, "out.bias"))
        copy(tg_mixer_param(o->from, "o.bias"), data, count);
    else
        for (size_t i = 0; i < count; i++) /* skip, and the norm's weight */
            data[i] = *name == 's' ? 0 : (float)norm_weight(m, o, &s);
}
