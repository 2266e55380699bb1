/* Attention distances and entropies of a teacher; see lookback.h. The scores of a block of rows are
 * one product in float, everything after them is in double. With e_j = e^{s_tj - m}, m the row's
 * maximum and Z = sum_j e_j + sum_m e^{sink_m - m}:
 *
 *   distance = sum_j e_j (t - j) / Z,   entropy = (log Z sum_j e_j + sum_j e_j (m - s_tj)) / Z */
#include "linearize/surgery/lookback.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"

enum { ROW_BLOCK = 32 };

static bool attends(const struct tg_layer_spec *l)
{
    return l->mixer->flags & TG_MIXER_TEACHER;
}

void tg_lookback_release(struct tg_lookback *l)
{
    tg_free(l->of);
    tg_free(l->means);
    tg_free(l->sums);
    tg_free(l->vectors);
    tg_free(l->inputs);
    *l = (struct tg_lookback){0};
}

const struct tg_attention_stats *tg_lookback_of(const struct tg_lookback *look, size_t layer)
{
    return look && look->tokens && look->of[layer].distance ? &look->of[layer] : NULL;
}

static int start(struct tg_lookback *out, const struct tg_model_spec *spec, struct tg_err *err)
{
    size_t heads = 0, at = 0;
    for (size_t l = 0; l < spec->layer_count; l++)
        heads += attends(&spec->layers[l]) ? spec->layers[l].heads : 0;
    out->of = tg_alloc_array(spec->layer_count, sizeof *out->of);
    out->means = tg_alloc_array(heads, 3 * sizeof *out->means);
    out->sums = tg_alloc_array(heads, 3 * sizeof *out->sums);
    out->width = spec->width;
    out->vectors = tg_alloc_floats(2 * spec->layer_count * spec->width);
    out->inputs = tg_alloc_array(spec->layer_count * spec->width, 2 * sizeof *out->inputs);
    if (!out->of || !out->means || !out->sums || !out->vectors || !out->inputs)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for measures of %zu heads", heads);
    out->layers = spec->layer_count;
    for (size_t l = 0; l < spec->layer_count; l++) {
        const size_t H = spec->layers[l].heads;
        if (!attends(&spec->layers[l]))
            continue;
        out->of[l].distance = out->means + at;
        out->of[l].entropy = out->means + at + H;
        out->of[l].output = out->means + at + 2 * H;
        out->of[l].mean = out->vectors + 2 * l * spec->width;
        out->of[l].constant = out->of[l].mean + spec->width;
        at += 3 * H;
    }
    return TG_OK;
}

/* One call's memory */
struct pass {
    struct tg_lookback *out;
    const struct tg_model *teacher;
    const struct tg_batch *b;
    struct tg_run *run;
    size_t *blocks; /* [sequences + 1] blocks of rows before each sequence */
    float *hidden;  /* [rows,D] */
    float *q, *k, *v;
    float *scores;                  /* [threads][ROW_BLOCK, longest + V] */
    double *parts;                  /* [blocks][H][distance, entropy, output] */
    size_t longest, values, layers; /* up to the last one that attends */
    int status;
    struct tg_err *err;
};

struct layer_job {
    const struct pass *p;
    const struct tg_layer_spec *s;
    const float *sink; /* [H,sinks] or NULL */
};

static double score_of(const struct tg_layer_spec *l, float product)
{
    const double s = l->attn_scale * (double)product, cap = l->attn_softcap;
    return cap > 0 ? cap * tanh(s / cap) : s;
}

/* Token t with the products s [count] of its query and keys first .. t, one head: adds to sums; s
 * becomes the attention p. */
static void add_row(const struct layer_job *w, size_t h, size_t t, size_t first, float *s,
                    double sums[2])
{
    const size_t count = t + 1 - first, sinks = w->sink ? w->s->sinks : 0;
    const float *sink = sinks ? w->sink + h * sinks : NULL;
    double most = -INFINITY, keys = 0, far = 0, spread = 0, rest = 0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, score_of(w->s, s[i]));
    for (size_t i = 0; i < sinks; i++)
        most = fmax(most, (double)sink[i]);
    for (size_t i = 0; i < count; i++) {
        const double below = most - score_of(w->s, s[i]), e = exp(-below);
        keys += e;
        far += e * (double)(count - 1 - i);
        spread += e * below;
        s[i] = (float)e;
    }
    for (size_t i = 0; i < sinks; i++)
        rest += exp((double)sink[i] - most);
    for (size_t i = 0; i < count; i++)
        s[i] = (float)((double)s[i] / (keys + rest));
    sums[0] += far / (keys + rest);
    sums[1] += (keys * log(keys + rest) + spread) / (keys + rest);
}

/* A block of rows of one sequence, one query head */
static void block_item(void *ud, size_t item, int worker)
{
    const struct layer_job *w = ud;
    const struct pass *p = w->p;
    const size_t H = w->s->heads, G = w->s->kv_heads, K = w->s->head_dim, window = w->s->window;
    const size_t block = item / H, h = item % H;
    const size_t V = tg_value_dim(w->s);
    float *scores = p->scores + (size_t)worker * ROW_BLOCK * (p->longest + p->values);
    float *y = scores + ROW_BLOCK * p->longest;
    double *sums = p->parts + 3 * item;
    size_t i = 0;
    while (p->blocks[i + 1] <= block)
        i++;
    const size_t begin = p->b->begin[i], n = p->b->begin[i + 1] - begin;
    const size_t from = (block - p->blocks[i]) * ROW_BLOCK;
    const size_t to = from + ROW_BLOCK < n ? from + ROW_BLOCK : n;
    const size_t first = window && from + 1 > window ? from + 1 - window : 0, keys = to - first;
    tg_gemm1(false, true, to - from, keys, K, 1, p->q + ((begin + from) * H + h) * K, H * K,
             p->k + ((begin + first) * G + h / (H / G)) * K, G * K, 0, scores, keys);
    sums[0] = sums[1] = sums[2] = 0;
    for (size_t t = from; t < to; t++) {
        const size_t own = window && t + 1 > window ? t + 1 - window : 0;
        float *row = scores + (t - from) * keys;
        add_row(w, h, t, own, row + own - first, sums);
        memset(row, 0, (own - first) * sizeof *row);
        memset(row + t + 1 - first, 0, (to - t - 1) * sizeof *row);
    }
    tg_gemm1(false, false, to - from, V, keys, 1, scores, keys,
             p->v + ((begin + first) * G + h / (H / G)) * V, G * V, 0, y, V);
    sums[2] = p->teacher->ctx.k->sum_squares(y, (to - from) * V);
}

static void add_inputs(const struct pass *p, size_t layer, const float *x)
{
    const size_t D = p->out->width, rows = tg_batch_rows(p->b);
    double *sum = p->out->inputs + 2 * layer * D, *squares = sum + D;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < D; i++) {
            const double v = (double)x[r * D + i];
            sum[i] += v;
            squares[i] += v * v;
        }
}

/* Mean and c of a layer from the sums of its inputs. A channel that never changes has a variance of
 * a millionth of its square, so that one alone is enough. */
static void vectors_of(const struct tg_lookback *l, size_t layer)
{
    const size_t D = l->width;
    const double *sum = l->inputs + 2 * layer * D, *squares = sum + D, n = (double)l->tokens;
    float *average = l->vectors + 2 * layer * D, *c = average + D;
    double total = 1;
    for (size_t i = 0; i < D; i++) {
        const double mean = sum[i] / n, square = squares[i] / n;
        const double variance = fmax(square - mean * mean, 1e-6 * square);
        const double ratio = variance > 0 ? mean / variance : 0;
        average[i] = (float)mean;
        c[i] = (float)ratio;
        total += ratio * mean;
    }
    for (size_t i = 0; i < D; i++)
        c[i] = (float)((double)c[i] / total);
}

static void seen(void *ud, size_t layer, const float *x, const float *y)
{
    struct pass *p = ud;
    const struct tg_layer_spec *s = &p->teacher->spec.layers[layer];
    const size_t blocks = p->blocks[p->b->count], H = s->heads;
    struct tg_mixer m;
    (void)y;
    if (!attends(s) || p->status)
        return;
    tg_model_mixer(p->teacher, layer, p->teacher->data, tg_run_ropes(p->run), &m);
    tg_proj_fwd(&p->teacher->ctx, &m, p->b, x, p->q, p->k, p->v, NULL);
    tg_proj_rotate(&p->teacher->ctx, &m, p->b, p->q, p->k, 1);
    struct layer_job w = {p, s, s->sinks ? tg_mixer_param(&m, "sink") : NULL};
    tg_parallel(p->teacher->ctx.threads, blocks * H, block_item, &w);
    add_inputs(p, layer, x);
    double *sums = p->out->sums + (p->out->of[layer].distance - p->out->means);
    for (size_t item = 0; item < blocks * H; item++) {
        sums[item % H] += p->parts[3 * item];
        sums[H + item % H] += p->parts[3 * item + 1];
        sums[2 * H + item % H] += p->parts[3 * item + 2];
    }
    for (size_t h = 0; h < H && !p->status; h++)
        if (!isfinite(sums[h]) || !isfinite(sums[H + h]) || !isfinite(sums[2 * H + h]))
            p->status =
                tg_fail(p->err, TG_ERR_VALUE,
                        "layer %zu, head %zu: the teacher's attention is not finite", layer, h);
}

static int pass_init(struct pass *p, struct tg_err *err)
{
    const struct tg_model_spec *spec = &p->teacher->spec;
    const size_t rows = tg_batch_rows(p->b), threads = (size_t)p->teacher->ctx.threads;
    size_t q = 0, k = 0, v = 0, heads = 0;
    p->blocks = tg_alloc_array(p->b->count + 1, sizeof *p->blocks);
    for (size_t i = 0; p->blocks && i < p->b->count; i++) {
        const size_t n = p->b->begin[i + 1] - p->b->begin[i];
        p->longest = n > p->longest ? n : p->longest;
        p->blocks[i + 1] = p->blocks[i] + (n + ROW_BLOCK - 1) / ROW_BLOCK;
    }
    for (size_t l = 0; l < spec->layer_count; l++) {
        const struct tg_layer_spec *s = &spec->layers[l];
        if (!attends(s))
            continue;
        const size_t a = s->heads * s->head_dim, c = s->kv_heads * tg_value_dim(s);
        p->layers = l + 1;
        heads = s->heads > heads ? s->heads : heads;
        q = a > q ? a : q;
        k = s->kv_heads * s->head_dim > k ? s->kv_heads * s->head_dim : k;
        v = c > v ? c : v;
        p->values = tg_value_dim(s) > p->values ? tg_value_dim(s) : p->values;
    }
    p->hidden = tg_alloc_floats(rows * spec->width);
    p->q = tg_alloc_floats(rows * q);
    p->k = tg_alloc_floats(rows * k);
    p->v = tg_alloc_floats(rows * v);
    p->scores = tg_alloc_floats(threads * ROW_BLOCK * (p->longest + p->values));
    p->parts = tg_alloc_array(p->blocks ? p->blocks[p->b->count] * heads : 0, 3 * sizeof(double));
    if (!p->blocks || !p->hidden || !p->q || !p->k || !p->v || !p->scores || !p->parts)
        return tg_fail(err, TG_ERR_NOMEM, "no memory to measure %zu tokens at a time", rows);
    int status = tg_run_create(&p->run, err);
    return status ? status : tg_run_fit(p->run, p->teacher, p->b, false, err);
}

static void pass_release(struct pass *p)
{
    tg_run_free(p->run);
    tg_free(p->blocks);
    tg_free(p->hidden);
    tg_free(p->q);
    tg_free(p->k);
    tg_free(p->v);
    tg_free(p->scores);
    tg_free(p->parts);
}

int tg_lookback_measure(struct tg_lookback *out, const struct tg_model *teacher,
                        const struct tg_batch *b, const int32_t *ids, struct tg_err *err)
{
    assert(!out->of || out->layers == teacher->spec.layer_count);
    struct pass p = {.out = out, .teacher = teacher, .b = b, .err = err};
    const struct tg_hooks hooks = {.mixer = seen, .ud = &p};
    int status = out->of ? TG_OK : start(out, &teacher->spec, err);
    if (!status)
        status = pass_init(&p, err);
    if (!status) {
        tg_model_embed(teacher, ids, b, p.hidden);
        for (size_t l = 0; l < p.layers && !p.status; l++)
            tg_layer_forward(teacher, p.run, l, b, p.hidden, false, &hooks);
        status = p.status;
    }
    if (!status) {
        out->tokens += tg_batch_rows(b);
        for (size_t l = 0; l < out->layers; l++) {
            const double *at = out->of[l].distance;
            const size_t from = at ? (size_t)(at - out->means) : 0;
            const size_t H = teacher->spec.layers[l].heads;
            for (size_t i = 0; at && i < 3 * H; i++)
                out->means[from + i] = out->sums[from + i] / (double)out->tokens;
            for (size_t i = 2 * H; at && i < 3 * H; i++)
                out->means[from + i] =
                    sqrt(out->means[from + i] / (double)tg_value_dim(&teacher->spec.layers[l]));
            if (at)
                vectors_of(out, l);
        }
    }
    pass_release(&p);
    return status;
}
