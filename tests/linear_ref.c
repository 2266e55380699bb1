#include "tests/linear_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"
#include "tests/sse_ref.h"

/* What a row computes, by its name: the reference shares no code or table with linearize. */
enum gate { NONE, RETENTION, SLOPES, DECAY, SIGMOID, FORGET };
enum norm { DIVIDE, HEAD, WIDE };
static const struct row {
    const char *name;
    bool delta, channel, silu_q, silu_k, silu_v, sigmoid_z, z;
    enum gate gate;
    enum norm norm;
    double scale; /* 0: K^-1/2 */
} rows[] = {
    {.name = "linear", .scale = 1},
    {.name = "based", .scale = 1},
    {.name = "retnet", .gate = RETENTION, .norm = HEAD, .z = true},
    {.name = "gla", .gate = SIGMOID, .channel = true, .norm = HEAD, .z = true},
    {.name = "hgrn2", .gate = FORGET, .channel = true, .norm = WIDE, .silu_q = true},
    {.name = "lightning",
     .gate = SLOPES,
     .norm = WIDE,
     .z = true,
     .sigmoid_z = true,
     .silu_q = true,
     .silu_k = true,
     .silu_v = true,
     .scale = 1},
    {.name = "deltanet", .delta = true, .norm = HEAD},
    {.name = "gated_deltanet", .delta = true, .gate = DECAY, .norm = HEAD, .z = true},
    {.name = "sse", .gate = SIGMOID, .channel = true, .norm = HEAD, .z = true},
    {.name = "sse_deltanet", .delta = true, .gate = DECAY, .norm = HEAD, .z = true},
    {.name = "kda",
     .delta = true,
     .gate = DECAY,
     .channel = true,
     .norm = HEAD,
     .z = true,
     .sigmoid_z = true},
};

static const struct row *row_of(const struct tg_mixer *m)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, m->spec->mixer->name) == 0)
            return &rows[i];
    return NULL;
}

bool tg_linear_ref_knows(const struct tg_mixer *m)
{
    return row_of(m) && !(m->spec->window && m->spec->window_form == TG_WINDOW_JOINT);
}

void tg_linear_vary(struct tg_layer_spec *l, size_t i, size_t G, size_t window, size_t sinks)
{
    enum { OFF = TG_WINDOW_FORM_COUNT };
    static const struct {
        int form;
        bool shared, plain, gate, plain_values;
        size_t values, wider, taps; /* value heads of a key head; V - K */
        size_t partitions, active;
    } ways[] = {
        {TG_WINDOW_PARALLEL, true, false, false, false, 1, 1, 4, 4, 1},
        {OFF, false, true, false, true, 2, 1, 1, 3, 2},
        {TG_WINDOW_SERIES, false, false, true, false, 1, 0, 2, 1, 1},
        {TG_WINDOW_JOINT, true, false, false, false, 1, 0, 0, 2, 1},
        {OFF, true, false, false, true, 1, 0, 3, 3, 3},
        {TG_WINDOW_PARALLEL, false, true, false, false, 1, 0, 5, 4, 2},
        {TG_WINDOW_PARALLEL, true, true, true, false, 1, 0, 4, 8, 1},
        {TG_WINDOW_SERIES, false, false, false, false, 1, 1, 0, 5, 3},
        {OFF, true, true, false, false, 1, 2, 4, 6, 2},
    };
    i %= sizeof ways / sizeof *ways;
    const bool map = row_of(&(struct tg_mixer){.spec = l})->norm == DIVIDE;
    const bool open = ways[i].form != OFF && (ways[i].form != TG_WINDOW_JOINT || map);
    l->window = open ? window : 0;
    l->window_form = open ? (enum tg_window_form)ways[i].form : TG_WINDOW_PARALLEL;
    l->sinks = open ? sinks : 0;
    l->kv_heads = ways[i].shared ? G : l->heads;
    l->linear_plain = ways[i].plain;
    l->output_gate = ways[i].gate;
    l->plain_values = map && ways[i].plain_values;
    l->value_dim = l->head_dim + ways[i].wider;
    const bool forgets = row_of(&(struct tg_mixer){.spec = l})->gate == FORGET;
    l->value_heads = !map && !forgets && ways[i].values > 1 ? l->kv_heads * ways[i].values : 0;
    l->recurrent.negative_eigenvalues = ways[i].shared;
    l->gated = false; /* lolcats' alone */
    l->recurrent.no_bound = l->recurrent.proj_bias = ways[i].plain;
    l->recurrent.scales[0] = 0.9;
    l->recurrent.norm_eps = 1e-2; /* norms of sums that nearly cancel would have no exact slope */
    if (l->recurrent.conv)
        l->recurrent.conv = ways[i].taps;
    if (l->recurrent.rank)
        l->recurrent.rank = 3;
    if (l->recurrent.partitions) {
        l->recurrent.partitions = ways[i].partitions;
        l->recurrent.active = ways[i].active;
        l->recurrent.no_shared = ways[i].plain && ways[i].form != OFF;
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* Memory of one text, freed at once */
enum { BLOCKS = 64 };
struct text {
    const struct tg_ref *r;
    const struct row *row;
    size_t T, D, H, G, S, K, V, out;
    const double *x;
    double *blocks[BLOCKS];
    size_t used;
};

static double *take(struct text *t, size_t n)
{
    assert_true(t->used < BLOCKS);
    double *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return t->blocks[t->used++] = p;
}

/* [T,n] = x [T,k] W^T + bias */
static double *linear(struct text *t, const char *weight, const char *bias, const double *x,
                      size_t n, size_t k)
{
    const double *w = tg_ref_param(t->r, weight), *b = bias ? tg_ref_param(t->r, bias) : NULL;
    double *y = take(t, t->T * n);
    for (size_t i = 0; i < t->T * n; i++) {
        y[i] = b ? b[i % n] : 0;
        for (size_t c = 0; c < k; c++)
            y[i] += x[i / n * k + c] * w[i % n * k + c];
    }
    return y;
}

/* Short convolution with silu over channels [from, from + n) of conv.weight, or silu alone */
static double *activate(struct text *t, const double *x, size_t n, size_t from, bool alone)
{
    const double *w = tg_ref_param(t->r, "conv.weight");
    size_t taps = t->r->mixer->spec->recurrent.conv;
    double *y = take(t, t->T * n);
    for (size_t i = 0; i < t->T * n; i++) {
        size_t row = i / n, c = i % n;
        double sum = 0;
        for (size_t j = 0; w && j < taps && j <= row; j++)
            sum += w[(from + c) * taps + taps - 1 - j] * x[(row - j) * n + c];
        y[i] = w ? silu(sum) : alone ? silu(x[i]) : x[i];
    }
    return y;
}

static void turn_all(const struct text *t, double *x, size_t heads)
{
    double *from = tg_alloc_array(t->K, sizeof *from);
    for (size_t i = 0; i < t->T * heads; i++) {
        memcpy(from, x + i * t->K, t->K * sizeof *from);
        tg_ref_head_turn(t->r, i / heads, from, x + i * t->K);
    }
    tg_free(from);
}

/* Softmax of the last `window` keys with sinks: [T,H,V] */
static double *window(struct text *t, const double *q0, const double *k0, const double *v0)
{
    const struct tg_layer_spec *s = t->r->mixer->spec;
    const double *sink = tg_ref_param(t->r, "sink");
    double *q = take(t, t->T * t->H * t->K), *k = take(t, t->T * t->G * t->K);
    double *y = take(t, t->T * t->H * t->V);
    memcpy(q, q0, t->T * t->H * t->K * sizeof *q);
    memcpy(k, k0, t->T * t->G * t->K * sizeof *k);
    turn_all(t, q, t->H);
    turn_all(t, k, t->G);
    for (size_t i = 0; i < t->T * t->H; i++) {
        size_t row = i / t->H, h = i % t->H, g = h / (t->H / t->G);
        double den = 0;
        for (size_t m = 0; sink && m < s->sinks; m++)
            den += exp(sink[h * s->sinks + m]);
        for (size_t j = row + 1 > s->window ? row + 1 - s->window : 0; j <= row; j++) {
            double score = 0;
            for (size_t c = 0; c < t->K; c++)
                score += q[i * t->K + c] * k[(j * t->G + g) * t->K + c];
            score = exp(s->attn_scale * score);
            den += score;
            for (size_t c = 0; c < t->V; c++)
                y[i * t->V + c] += score * v0[(j * t->G + g) * t->V + c];
        }
        for (size_t c = 0; c < t->V; c++)
            y[i * t->V + c] /= den;
    }
    return y;
}

/* Log gates of state head h at row i, channel c */
struct gates {
    const double *a; /* projected; HGRN2: k's projection, the negated logit */
    const double *A_log, *dt_bias;
};

static struct gates gates_of(struct text *t, const double *u)
{
    size_t rank = t->r->mixer->spec->recurrent.rank, SK = t->S * t->K;
    enum gate kind = t->row->gate;
    struct gates g = {u, tg_ref_param(t->r, "A_log"), tg_ref_param(t->r, "dt_bias")};
    if (kind != DECAY && kind != SIGMOID)
        return g;
    if (!t->row->channel) {
        g.a = linear(t, "a.weight", NULL, t->x, t->S, t->D);
        return g;
    }
    const double *low = linear(t, "f_a.weight", NULL, t->x, rank, t->D);
    g.a = linear(t, "f_b.weight", kind == SIGMOID ? "f_b.bias" : NULL, low, SK, rank);
    return g;
}

/* Of the state that all tokens use */
static struct gates shared_gates_of(struct text *t)
{
    size_t rank = t->r->mixer->spec->recurrent.rank;
    if (!t->row->channel)
        return (struct gates){linear(t, "shared_a.weight", NULL, t->x, t->S, t->D),
                              tg_ref_param(t->r, "shared_A_log"),
                              tg_ref_param(t->r, "shared_dt_bias")};
    const double *low = linear(t, "shared_f_a.weight", NULL, t->x, rank, t->D);
    return (struct gates){linear(t, "shared_f_b.weight", "shared_f_b.bias", low, t->S * t->K, rank),
                          NULL, NULL};
}

static double gate_at(const struct text *t, struct gates g, size_t i, size_t h, size_t c)
{
    size_t each = t->row->channel ? t->K : 1, at = h * each + (t->row->channel ? c : 0);
    double a = g.a ? g.a[i * t->S * each + at] : 0, lb;
    switch (t->row->gate) {
    case RETENTION:
        return log(1 - pow(2, -5 - (double)h));
    case SLOPES:
        return -t->r->mixer->spec->recurrent.scales[0] *
               pow(2, -8 * (double)(h + 1) / (double)t->S);
    case DECAY:
        return -exp(g.A_log[h]) * softplus(a + g.dt_bias[at]);
    case SIGMOID:
        return -softplus(-a) / 16;
    case FORGET:
        lb = tg_ref_param(t->r, "lower_bound") ? sigmoid(tg_ref_param(t->r, "lower_bound")[at]) : 0;
        return log(lb + (1 - lb) * sigmoid(-a));
    default:
        return 0;
    }
}

static void unit(double *x, size_t n)
{
    double sum = 1e-6;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        x[i] /= sqrt(sum);
}

/* q and k of query head h at row i, as the recurrence takes them; returns their size */
static size_t key_of(const struct text *t, const double *q1, const double *k1, size_t i, size_t qh,
                     size_t kh, double *q, double *k)
{
    size_t K = t->K, KF = K * t->r->mixer->spec->feature_dim, n = K;
    const double *wq = tg_ref_param(t->r, "map_q.weight"), *wk = tg_ref_param(t->r, "map_k.weight");
    memcpy(q, q1 + (i * t->H + qh) * K, K * sizeof *q);
    memcpy(k, k1 + (i * t->G + kh) * K, K * sizeof *k);
    if (t->row->delta) {
        unit(q, K);
        unit(k, K);
    }
    if (t->row->norm == DIVIDE) {
        double from[64];
        assert_true(K <= 64);
        memcpy(from, q, K * sizeof *q);
        n = tg_ref_head_features(t->r, wq ? wq + qh * KF : NULL, from, q);
        memcpy(from, k, K * sizeof *k);
        tg_ref_head_features(t->r, wk ? wk + qh * KF : NULL, from, k);
    }
    return n;
}

/* What the recurrence reads; use [T], or NULL: factors of q and k, 0 where a token leaves the state
 * alone */
struct heads {
    const double *q1, *k1, *v1, *beta, *use;
    struct gates g;
};

/* One output head over the whole text, added to o: its own state, even where the product shares one
 */
static void head(struct text *t, size_t h, const struct heads *in, double *o)
{
    const struct tg_layer_spec *s = t->r->mixer->spec;
    size_t K = t->K, V = t->V, most = 4096;
    size_t qh = t->out > t->H ? h / (t->out / t->H) : h, kh = qh / (t->H / t->G);
    size_t sh = t->out > t->S ? h / (t->out / t->S) : h; /* state and value head */
    double *S = take(t, most * (V + 1)), *q = take(t, most), *k = take(t, most);
    double *p = take(t, V + 1), scale = t->row->scale != 0 ? t->row->scale : 1 / sqrt((double)K);
    for (size_t i = 0; i < t->T; i++) {
        const double *v = in->v1 + (i * t->S + sh) * V;
        double *to = o + (i * t->out + h) * V, den = 0, use = in->use ? in->use[i] : 1;
        if (use == 0)
            continue;
        size_t n = key_of(t, in->q1, in->k1, i, qh, kh, q, k);
        assert_true(n <= most);
        for (size_t c = 0; c < n; c++) {
            double decay = exp(gate_at(t, in->g, i, sh, c));
            q[c] *= use;
            k[c] *= use;
            for (size_t e = 0; e <= V; e++)
                S[c * (V + 1) + e] *= decay;
        }
        for (size_t e = 0; e <= V; e++) {
            p[e] = e < V ? v[e] : 1;
            for (size_t c = 0; t->row->delta && c < n; c++)
                p[e] -= S[c * (V + 1) + e] * k[c];
            p[e] *= t->row->delta ? in->beta[i * t->S + sh] : 1;
        }
        for (size_t c = 0; c < n; c++)
            for (size_t e = 0; e <= V; e++) {
                S[c * (V + 1) + e] += k[c] * p[e];
                *(e < V ? &to[e] : &den) += scale * q[c] * S[c * (V + 1) + e];
            }
        for (size_t e = 0; t->row->norm == DIVIDE && !s->plain_values && e < V; e++)
            to[e] = den > 0 ? to[e] / den : 0;
    }
    t->used -= 4;
    for (size_t i = 0; i < 4; i++)
        tg_free(t->blocks[t->used + i]);
}

static void all_heads(struct text *t, const struct heads *in, double *o)
{
    for (size_t h = 0; h < t->out; h++)
        head(t, h, in, o);
}

/* x + rot((text A^T) B^T) of rank V */
static const double *with_low_rank(struct text *t, const double *x, size_t heads, const char *a,
                                   const char *b)
{
    const struct tg_layer_spec *s = t->r->mixer->spec;
    double *y = linear(t, b, NULL, linear(t, a, NULL, t->x, t->V, t->D), heads * t->K, t->V);
    if (s->rotary_dim && !s->linear_plain)
        turn_all(t, y, heads);
    for (size_t i = 0; i < t->T * heads * t->K; i++)
        y[i] += x[i];
    return y;
}

/* State after state, each over the tokens that use it, and the one that all use */
static void sparse(struct text *t, struct heads in, double *o)
{
    const struct tg_recurrent_spec *s = &t->r->mixer->spec->recurrent;
    double *use = take(t, s->partitions * t->T);
    struct heads one = in;
    tg_sse_ref_use(t->r, t->T, t->x, use);
    if (!s->no_shared) {
        one.q1 = with_low_rank(t, in.q1, t->H, "q2_a.weight", "q2_b.weight");
        one.k1 = with_low_rank(t, in.k1, t->G, "k2_a.weight", "k2_b.weight");
        in.g = shared_gates_of(t);
        all_heads(t, &in, o);
    }
    for (size_t i = 0; i < s->partitions; i++) {
        one.use = use + i * t->T;
        all_heads(t, &one, o);
    }
}

static void norm(const struct text *t, double *o)
{
    const struct tg_layer_spec *s = t->r->mixer->spec;
    double eps = s->recurrent.norm_eps > 0 ? s->recurrent.norm_eps : (double)t->r->mixer->norm_eps;
    const double *w = tg_ref_param(t->r, "norm.weight");
    bool wide = t->row->norm == WIDE;
    size_t n = wide ? t->out * t->V : t->V;
    if (t->row->norm == DIVIDE && !s->plain_values)
        return;
    for (double *v = o; v < o + t->T * t->out * t->V; v += n) {
        double sum = 0;
        for (size_t c = 0; c < n; c++)
            sum += v[c] * v[c];
        for (size_t c = 0; c < n; c++)
            v[c] *= w[c] / sqrt(sum / (double)n + eps);
    }
}

static void gate_out(struct text *t, double *o)
{
    size_t rank = t->r->mixer->spec->recurrent.rank, n = t->out * t->V;
    const double *z;
    if (!t->row->z)
        return;
    if (tg_ref_param(t->r, "g_a.weight"))
        z = linear(t, "g_b.weight", "g_b.bias", linear(t, "g_a.weight", NULL, t->x, rank, t->D), n,
                   rank);
    else
        z = linear(t, "z.weight", NULL, t->x, n, t->D);
    for (size_t i = 0; i < t->T * n; i++)
        o[i] *= t->row->sigmoid_z ? sigmoid(z[i]) : silu(z[i]);
}

static void forward(struct text *t, double *y)
{
    const struct tg_layer_spec *s = t->r->mixer->spec;
    size_t HK = t->H * t->K, GK = t->G * t->K, SV = t->S * t->V, OV = t->out * t->V;
    double *q0 = linear(t, "q.weight", "q.bias", t->x, HK, t->D);
    double *k0 = linear(t, "k.weight", "k.bias", t->x, GK, t->D);
    double *v0 = linear(t, "v.weight", "v.bias", t->x, SV, t->D), *w = NULL, *beta = NULL;
    for (size_t i = 0; i < t->T * t->H && s->qk_norm; i++)
        tg_ref_head_norm(t->r, tg_ref_param(t->r, "q_norm.weight"), q0 + i * t->K);
    for (size_t i = 0; i < t->T * t->G && s->qk_norm; i++)
        tg_ref_head_norm(t->r, tg_ref_param(t->r, "k_norm.weight"), k0 + i * t->K);
    if (s->window)
        w = window(t, q0, k0, v0);
    if (w && s->window_form == TG_WINDOW_SERIES)
        v0 = w;
    q0 = activate(t, q0, HK, 0, t->row->silu_q);
    k0 = activate(t, k0, GK, HK, t->row->silu_k);
    v0 = activate(t, v0, SV, HK + GK, t->row->silu_v);
    struct gates g = gates_of(t, k0);
    if (t->row->gate == FORGET) {
        double *k = take(t, t->T * GK);
        for (size_t i = 0; i < t->T * GK; i++)
            k[i] = 1 - exp(gate_at(t, g, i / GK, i % GK / t->K, i % t->K));
        k0 = k;
    }
    if (s->rotary_dim && !s->linear_plain) {
        turn_all(t, q0, t->H);
        turn_all(t, k0, t->G);
    }
    if (t->row->delta) {
        beta = linear(t, "b.weight", NULL, t->x, t->S, t->D);
        for (size_t i = 0; i < t->T * t->S; i++)
            beta[i] = (s->recurrent.negative_eigenvalues ? 2 : 1) * sigmoid(beta[i]);
    }
    double *o = take(t, t->T * OV);
    const struct heads in = {q0, k0, v0, beta, NULL, g};
    if (tg_sse_ref_knows(t->r->mixer))
        sparse(t, in, o);
    else
        all_heads(t, &in, o);
    norm(t, o);
    gate_out(t, o);
    for (size_t i = 0; w && i < t->T * OV; i++)
        o[i] += tg_ref_param(t->r, "alpha")[i / t->V % t->out] * w[i];
    if (s->output_gate) {
        const double *gate = linear(t, "out_gate.weight", "out_gate.bias", t->x, OV, t->D);
        for (size_t i = 0; i < t->T * OV; i++)
            o[i] *= sigmoid(gate[i]);
    }
    memcpy(y, linear(t, "o.weight", "o.bias", o, t->D, OV), t->T * t->D * sizeof *y);
}

void tg_linear_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                           double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    r->consts->at = 0;
    for (size_t i = 0; i < b->count; i++) {
        struct text t = {.r = r,
                         .row = row_of(r->mixer),
                         .T = b->begin[i + 1] - b->begin[i],
                         .D = r->mixer->width,
                         .H = s->heads,
                         .G = s->kv_heads,
                         .S = tg_value_heads(s),
                         .K = s->head_dim,
                         .V = tg_value_dim(s),
                         .out = tg_out_heads(s),
                         .x = x + b->begin[i] * r->mixer->width};
        forward(&t, y + b->begin[i] * r->mixer->width);
        for (size_t j = 0; j < t.used; j++)
            tg_free(t.blocks[j]);
    }
}
