/* Norms y = n w as norms y = n (1 + d), d in a type of few digits.
 *
 * bf16(w - 1) gives back every bf16 w of [0.5, 256], but few of the others. Where a linear follows,
 * w = s (1 + d) with s = +-2^e and d in [0, 1), whose digits are those of w; s goes into the
 * columns of that linear, exactly. It is done for the weights that need it and for no other. After
 * q and k norms no linear follows, but the two of a rotary pair may take a factor c in q and 1 / c
 * in k: scores are the same. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/targets/qwen3_5.h"

static float rounded(float v, enum tg_dtype t)
{
    unsigned char raw[8];
    float back;

    tg_dtype_from_f32(t, &v, raw, 1);
    tg_dtype_to_f32(t, raw, &back, 1);
    return back;
}

/* |1 + d - w| / |w| for the d that is stored */
static double loss(float w, enum tg_dtype t)
{
    const float back = 1 + rounded(w - 1, t);

    return back == w ? 0 : fabs((double)back - w) / fabs(w);
}

/* Half a step of the type at 1: what rounding w itself may lose */
static double unit(enum tg_dtype t)
{
    return t == TG_BF16 ? 0x1p-8 : t == TG_F16 ? 0x1p-11 : 0x1p-24;
}

/* Is w - 1 as good as w? A w of the type must come back; of others no more may be lost than by
 * rounding. */
static bool holds(float w, enum tg_dtype t)
{
    return !isfinite(w) || loss(w, t) <= (rounded(w, t) == w ? 0 : unit(t));
}

struct split {
    float scale, rest; /* w = scale (1 + rest) */
};
static struct split split(float w, enum tg_dtype t)
{
    int e;

    if (holds(w, t))
        return (struct split){1, w - 1};
    const float m = 2 * frexpf(fabsf(w), &e); /* of [1, 2) */
    return (struct split){copysignf(ldexpf(1, e - 1), w), m - 1};
}

/* The largest loss of a pair's weights with a factor; infinite where one would over- or underflow
 */
static double worst(const float *const w[4], int count, float c, enum tg_dtype t)
{
    double most = 0;

    for (int i = 0; i < count; i++) {
        const float by = i % 2 ? 1 / c : c, v = *w[i] * by;
        if (!(v / by == *w[i]))
            return INFINITY;
        if (!holds(v, t))
            most = fmax(most, loss(v, t));
    }
    return most;
}

/* The factor of q, a power of two, by which the weights of a pair lose least; 1 if none is better.
 * w: those of q and k in turn */
static float best_factor(const float *const w[4], int count, enum tg_dtype t)
{
    enum { MOST = 24 };
    double least = worst(w, count, 1, t);
    float best = 1;

    for (int n = 0; least > 0 && n <= MOST; n++)
        for (int way = 0; way < 4; way++) {
            const float c = ldexpf(way & 1 ? -1 : 1, way & 2 ? -n : n);
            const double l = worst(w, count, c, t);
            if (l < least) {
                least = l;
                best = c;
            }
        }
    return best;
}

/* Shares factors between the weights of q and k, [K] each */
static void balance(const struct tg_layer_spec *l, enum tg_dtype t, float *q, float *k)
{
    const size_t half = l->rotary_dim / 2;

    for (size_t i = 0; i < l->head_dim; i++) {
        const bool pair = i < half;
        const size_t j = pair ? i + half : i;
        const float *const w[4] = {&q[i], &k[i], &q[j], &k[j]};
        if (i >= half && i < l->rotary_dim)
            continue;
        const float c = best_factor(w, pair ? 4 : 2, t);
        q[i] *= c;
        k[i] /= c;
        if (pair) {
            q[j] *= c;
            k[j] /= c;
        }
    }
}

/* The source's weights of both norms of layer l, balanced: k's after q's in *both, which the
 * caller frees */
static int read_qk(const struct tg_export *x, size_t layer, float **both, struct tg_err *err)
{
    const struct tg_layer_spec *l = &x->spec.layers[layer];
    const size_t K = l->head_dim;
    char name[64];
    int rc;

    if (!(*both = tg_alloc_floats(2 * K)))
        return tg_fail(err, TG_ERR_NOMEM, "layer %zu: out of memory", layer);
    snprintf(name, sizeof name, "layers.%zu.mixer.q_norm.weight", layer);
    rc = tg_export_read(x, name, *both, K, err);
    snprintf(name, sizeof name, "layers.%zu.mixer.k_norm.weight", layer);
    if (!rc)
        rc = tg_export_read(x, name, *both + K, K, err);
    if (!rc)
        balance(l, x->dtype, *both, *both + K);
    else {
        tg_free(*both);
        *both = NULL;
    }
    return rc;
}

/* Says what is lost in the q/k norms of a layer */
static int note_qk(struct tg_export *x, size_t layer, struct tg_err *err)
{
    const size_t n = 2 * x->spec.layers[layer].head_dim;
    size_t count = 0;
    double most = 0, smallest = INFINITY;
    float *w;
    const int rc = read_qk(x, layer, &w, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (!holds(w[i], x->dtype)) {
            count++;
            most = fmax(most, loss(w[i], x->dtype));
            smallest = fmin(smallest, fabs(w[i]));
        }
    if (count)
        tg_remark(&x->notes,
                  "layer %zu: %zu of %zu weights of the q and k norms are not exact as 1 + %s: the "
                  "smallest is %.3g, the largest relative error %.2g",
                  layer, count, n, tg_dtype_info(x->dtype)->name, smallest, most);
    tg_free(w);
    return TG_OK;
}

/* The weights of a norm over the width, as the source has them; the caller frees */
static int read_norm(const struct tg_export *x, const char *name, float **w, struct tg_err *err)
{
    const size_t D = x->spec.width;
    int rc;

    if (!(*w = tg_alloc_floats(D)))
        return tg_fail(err, TG_ERR_NOMEM, "parameter '%s': out of memory", name);
    if ((rc = tg_export_read(x, name, *w, D, err))) {
        tg_free(*w);
        *w = NULL;
    }
    return rc;
}

/* A tied head has no columns of its own. */
static int untie(struct tg_export *x, struct tg_err *err)
{
    size_t count = 0;
    float *w;
    const int rc = read_norm(x, "norm_out.weight", &w, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < x->spec.width; i++)
        count += !holds(w[i], x->dtype);
    tg_free(w);
    if (count) {
        x->spec.tied_head = false;
        tg_remark(&x->notes,
                  "%zu of %zu weights of the last norm are not exact as 1 + %s: the head takes "
                  "their powers of two, and is no longer tied to the embeddings",
                  count, x->spec.width, tg_dtype_info(x->dtype)->name);
    }
    return TG_OK;
}

int tg_qwen3_5_norms(struct tg_export *x, struct tg_err *err)
{
    int rc = TG_OK;

    if (x->in->spec->norm.plus_one)
        return TG_OK;
    x->spec.norm.plus_one = true;
    if (x->spec.tied_head)
        rc = untie(x, err);
    for (size_t i = 0; i < x->spec.layer_count && rc == TG_OK; i++)
        if (tg_qwen3_5_is_softmax(&x->spec.layers[i]) && x->dtype != TG_F32)
            rc = note_qk(x, i, err);
    return rc;
}

/* The norm whose output a linear reads */
static const char *norm_before(const char *part)
{
    static const char *const mixer[] = {"q", "k", "v", "out_gate", "z", "a", "b"};
    static const char *const mlp[] = {"mlp.gate.weight",      "mlp.up.weight",
                                      "moe.router.weight",    "moe.gate.weight",
                                      "moe.up.weight",        "moe.shared.gate.weight",
                                      "moe.shared.up.weight", "moe.shared_gate.weight"};
    char name[32];

    for (size_t i = 0; i < sizeof mixer / sizeof *mixer; i++) {
        snprintf(name, sizeof name, "mixer.%s.weight", mixer[i]);
        if (!strcmp(part, name))
            return "norm_in.weight";
    }
    for (size_t i = 0; i < sizeof mlp / sizeof *mlp; i++)
        if (!strcmp(part, mlp[i]))
            return "norm_mlp.weight";
    return strcmp(part, "head.weight") ? NULL : "norm_out.weight";
}

static bool is_norm(const char *part)
{
    return !strcmp(part, "norm_in.weight") || !strcmp(part, "norm_mlp.weight") ||
           !strcmp(part, "norm_out.weight");
}

static int fold_qk(const struct tg_export *x, const struct tg_param *p, bool of_k, float *dst,
                   struct tg_err *err)
{
    float *w;
    const int rc = read_qk(x, (size_t)p->layer, &w, err);

    for (size_t i = 0; rc == TG_OK && i < p->count; i++)
        dst[i] = w[of_k * p->count + i] - 1;
    tg_free(w);
    return rc;
}

static int fold_columns(const struct tg_export *x, const struct tg_param *p, const char *norm,
                        float *dst, struct tg_err *err)
{
    const size_t D = x->spec.width;
    bool any = false;
    char name[64];
    float *w;
    int rc;

    if (p->layer < 0)
        snprintf(name, sizeof name, "%s", norm);
    else
        snprintf(name, sizeof name, "layers.%d.%s", p->layer, norm);
    if ((rc = read_norm(x, name, &w, err)))
        return rc;
    for (size_t i = 0; i < D; i++) {
        w[i] = split(w[i], x->dtype).scale;
        any = any || w[i] != 1;
    }
    for (size_t row = 0; any && row < p->count; row += D)
        for (size_t i = 0; i < D; i++)
            dst[row + i] *= w[i];
    tg_free(w);
    return TG_OK;
}

int tg_qwen3_5_fold(const struct tg_export *x, const struct tg_param *p, float *dst,
                    struct tg_err *err)
{
    const char *part = tg_qwen3_5_part(p), *norm = norm_before(part);

    if (x->in->spec->norm.plus_one)
        return TG_OK;
    if (!strcmp(part, "mixer.q_norm.weight"))
        return fold_qk(x, p, false, dst, err);
    if (!strcmp(part, "mixer.k_norm.weight"))
        return fold_qk(x, p, true, dst, err);
    for (size_t i = 0; is_norm(part) && i < p->count; i++)
        dst[i] = split(dst[i], x->dtype).rest;
    return norm ? fold_columns(x, p, norm, dst, err) : TG_OK;
}

int tg_qwen3_5_adapt(struct tg_export *x, struct tg_err *err)
{
    tg_qwen3_5_shape(&x->spec);
    return tg_qwen3_5_norms(x, err);
}

int tg_qwen3_5_fill_folded(const struct tg_export *x, const struct tg_param *p, float *dst,
                           struct tg_err *err)
{
    const int rc = tg_qwen3_5_fill(x, p, dst, err);

    return rc ? rc : tg_qwen3_5_fold(x, p, dst, err);
}
