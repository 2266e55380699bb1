/* Rotary frequencies and tables.
 *
 *   f_i = theta^(-2i/n),  angle(t, i) = t f_i
 *
 *   linear    f_i / factor
 *   llama3    wavelengths above original / low are divided by `factor`, those below original / high
 *             are kept, between them the two are mixed linearly in original / wavelength
 *   dynamic   theta grows with the text: theta (factor length / original - (factor - 1))^(n /
 * (n-2)) yarn      f_i / factor below, f_i above a ramp over i between the indices that turn
 * beta_fast and beta_slow times over the original length (arXiv 2309.00071) longrope  f_i /
 * short_i, or f_i / long_i for texts above the original length
 *
 * At thousands of tokens the float32 rounding of f_i alone turns the angle by 1e-4, so each
 * rounding of transformers' modeling_rope_utils is repeated here. */
#include "linearize/model/ropes.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static float llama3_scaled(const struct tg_rope *rope, float f)
{
    double low = rope->original_max_positions / rope->low_freq_factor;
    double high = rope->original_max_positions / rope->high_freq_factor;
    float wavelength = (float)(2 * M_PI) / f;
    if (wavelength > (float)low)
        return f / (float)rope->factor;
    if (wavelength < (float)high)
        return f;
    float smooth = (float)rope->original_max_positions / wavelength - (float)rope->low_freq_factor;
    smooth /= (float)(rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * f / (float)rope->factor + smooth * f;
}

/* The index (of pairs) that turns `turns` times over the original length */
static double turning_index(const struct tg_rope *rope, double turns, size_t n)
{
    return (double)n * log(rope->original_max_positions / (turns * 2 * M_PI)) /
           (2 * log(rope->theta));
}

/* How much of pair i is kept as it is */
static float yarn_kept(const struct tg_rope *rope, size_t i, size_t n)
{
    double low = turning_index(rope, rope->beta_fast, n);
    double high = turning_index(rope, rope->beta_slow, n);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)n - 1);
    if (low == high)
        high += 0.001;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    return 1 - fminf(fmaxf(ramp, 0), 1);
}

static double dynamic_theta(const struct tg_rope *rope, size_t n, size_t length)
{
    const double most = rope->original_max_positions,
                 now = (double)length > most ? (double)length : most;
    return rope->theta *
           pow(rope->factor * now / most - (rope->factor - 1), (double)n / ((double)n - 2));
}

void tg_rope_frequencies(const struct tg_rope *rope, size_t n, size_t length, float *inv_freq)
{
    const bool far = (double)length > rope->original_max_positions;
    const double theta =
        rope->kind == TG_ROPE_DYNAMIC ? dynamic_theta(rope, n, length) : rope->theta;
    for (size_t i = 0; i < n / 2; i++) {
        const float exponent = (float)(2 * i) / (float)n;
        const float period = (float)pow((double)(float)theta, exponent);
        float f = 1.0f / period;
        if (rope->kind == TG_ROPE_LLAMA3)
            f = llama3_scaled(rope, f);
        else if (rope->kind == TG_ROPE_LINEAR)
            f /= (float)rope->factor;
        else if (rope->kind == TG_ROPE_YARN) {
            const float kept = yarn_kept(rope, i, n);
            f = 1.0f / ((float)rope->factor * period) * (1 - kept) + f * kept;
        } else if (rope->kind == TG_ROPE_LONGROPE)
            f = 1.0f / ((float)(far ? rope->long_factor[i] : rope->short_factor[i]) * period);
        inv_freq[i] = rope->kind == TG_ROPE_NONE ? 0 : f;
    }
}

void tg_rope_table(const float *inv_freq, float factor, size_t n, size_t from, size_t to,
                   float *cosines, float *sines)
{
    size_t half = n / 2;
    for (size_t t = from; t < to; t++)
        for (size_t i = 0; i < half; i++) {
            float angle = (float)t * inv_freq[i];
            cosines[t * half + i] = (float)cos((double)angle) * factor;
            sines[t * half + i] = (float)sin((double)angle) * factor;
        }
}

/* Texts of one regime share their frequencies: any up to the original length; for longrope any
 * above it. */
static size_t regime(const struct tg_rope *rope, size_t length)
{
    if (!tg_rope_by_length(rope) || (double)length <= rope->original_max_positions)
        return 0;
    return rope->kind == TG_ROPE_LONGROPE ? SIZE_MAX : length;
}

static int fill_table(struct tg_rope_table *t, const struct tg_rope *rope, size_t want,
                      struct tg_err *err)
{
    const size_t half = t->n / 2, length = regime(rope, want), have = t->positions * half;
    float *cosines = NULL, *sines = NULL, *inv_freq = tg_alloc_floats(half);
    size_t cells;
    const bool same = length == t->length && t->positions;
    if (same && want <= t->positions) {
        tg_free(inv_freq);
        return TG_OK;
    }
    if (tg_mul_size(&cells, want, half)) {
        cosines = tg_alloc_floats(cells);
        sines = tg_alloc_floats(cells);
    }
    if (!cosines || !sines || !inv_freq) {
        tg_free(cosines);
        tg_free(sines);
        tg_free(inv_freq);
        return tg_fail(err, TG_ERR_NOMEM, "no memory for rotary tables of %zu positions", want);
    }
    if (same) {
        memcpy(cosines, t->cosine, have * sizeof *cosines);
        memcpy(sines, t->sine, have * sizeof *sines);
    }
    tg_rope_frequencies(rope, t->n, want, inv_freq);
    tg_rope_table(inv_freq, (float)tg_factor(rope->attention_factor), t->n, same ? t->positions : 0,
                  want, cosines, sines);
    tg_free(inv_freq);
    tg_free(t->cosine);
    tg_free(t->sine);
    t->cosine = cosines;
    t->sine = sines;
    t->length = length;
    t->positions = want;
    return TG_OK;
}

static struct tg_rope_table *find(const struct tg_ropes *r, const struct tg_layer_spec *l)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->tables[i].rope == l->rope && r->tables[i].n == l->rotary_dim)
            return &r->tables[i];
    return NULL;
}

int tg_ropes_fit(struct tg_ropes *r, const struct tg_model_spec *spec, bool by_length,
                 size_t positions, struct tg_err *err)
{
    for (size_t l = 0; l < spec->layer_count; l++) {
        const struct tg_layer_spec *layer = &spec->layers[l];
        const struct tg_rope *rope = &spec->ropes[layer->rope];
        if (!layer->rotary_dim || tg_rope_by_length(rope) != by_length)
            continue;
        struct tg_rope_table *t = find(r, layer);
        if (!t) {
            if (!tg_grow(&r->tables, &r->cap, r->count + 1, sizeof *r->tables))
                return tg_fail(err, TG_ERR_NOMEM, "no memory for rotary tables");
            t = &r->tables[r->count++];
            *t = (struct tg_rope_table){.rope = layer->rope, .n = layer->rotary_dim};
        }
        int status = fill_table(t, rope, positions, err);
        if (status)
            return status;
    }
    return TG_OK;
}

void tg_ropes_release(struct tg_ropes *r)
{
    for (size_t i = 0; i < r->count; i++) {
        tg_free(r->tables[i].cosine);
        tg_free(r->tables[i].sine);
    }
    tg_free(r->tables);
    *r = (struct tg_ropes){0};
}

const struct tg_rope_table *tg_ropes_find(const struct tg_ropes *r, const struct tg_layer_spec *l)
{
    return l->rotary_dim ? find(r, l) : NULL;
}
