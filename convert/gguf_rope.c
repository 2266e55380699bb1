/* Rotary positions of GGUF models in the words of config.json. */
#include "convert/gguf_read.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static const char rope_freqs[] = "rope_freqs.weight";

static double llama3_share(const struct tg_rope *r, size_t i, size_t pairs)
{
    const double wave = 6.283185307179586 * pow(r->theta, (double)i / (double)pairs);
    const double s = (r->original_max_positions / wave - r->low_freq_factor) /
                     (r->high_freq_factor - r->low_freq_factor);
    return s < 0 ? 0 : s > 1 ? 1 : s;
}

double tg_gguf_llama3_divisor(const struct tg_rope *r, size_t i, size_t pairs)
{
    const double s = llama3_share(r, i, pairs);
    return 1 / ((1 - s) / r->factor + s);
}

/* Fits the factor to the last pair, the slowest, and demands that all others agree. */
static int fit_llama3(const struct tg_reading *r, const float *freqs, size_t pairs,
                      struct tg_rope *p, struct tg_err *err)
{
    const double last = llama3_share(p, pairs - 1, pairs);
    p->factor = last < 1 ? (1 - last) / (1 / (double)freqs[pairs - 1] - last) : 1;
    if (fabs(p->factor - nearbyint(p->factor)) < 1e-3)
        p->factor = nearbyint(p->factor);
    for (size_t i = 0; i < pairs; i++) {
        const double want = tg_gguf_llama3_divisor(p, i, pairs);
        if (!(fabs(freqs[i] - want) <= 1e-5 * want))
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: tensor '%s': element %zu is %g; only llama3 scaling with "
                           "low_freq_factor %g, high_freq_factor %g and %g original positions is "
                           "supported, which has %g there",
                           tg_reading_file(r), rope_freqs, i, freqs[i], p->low_freq_factor,
                           p->high_freq_factor, p->original_max_positions, want);
    }
    return TG_OK;
}

static int put_llama3(struct tg_reading *r, const struct tg_tensor *t, struct tg_err *err)
{
    const size_t pairs = (size_t)r->head_dim / 2;
    struct tg_rope p = {.theta = r->theta, .low_freq_factor = 1, .high_freq_factor = 4};
    int64_t original = 8192;
    int rc = tg_reading_size_or(r, "rope.scaling.original_context_length", &original, err);
    if (rc != TG_OK)
        return rc;
    if (t->rank != 1 || t->elements != pairs || t->dtype != TG_F32 || pairs < 1)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' is not F32 [%zu]", tg_reading_file(r),
                       rope_freqs, pairs);
    float *freqs = tg_alloc_floats(pairs);
    if (!freqs)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", tg_reading_file(r));
    p.original_max_positions = (double)original;
    rc = tg_tensor_read_f32(t, freqs, err);
    if (rc == TG_OK)
        rc = fit_llama3(r, freqs, pairs, &p, err);
    tg_free(freqs);
    if (rc != TG_OK)
        return rc;
    tg_jout_str(&r->out, "rope_type", "llama3");
    tg_jout_num(&r->out, "factor", p.factor);
    tg_jout_num(&r->out, "low_freq_factor", p.low_freq_factor);
    tg_jout_num(&r->out, "high_freq_factor", p.high_freq_factor);
    tg_jout_num(&r->out, "original_max_position_embeddings", p.original_max_positions);
    return TG_OK;
}

/* linear and yarn, in the words of HF */
static int put_scaling(struct tg_reading *r, const char *type, struct tg_err *err)
{
    static const struct {
        const char *suffix, *config;
    } yarn[] = {
        {"rope.scaling.yarn_beta_fast", "beta_fast"},
        {"rope.scaling.yarn_beta_slow", "beta_slow"},
    };
    double factor = 1;
    int64_t original = 0;
    int rc = tg_reading_float(r, "rope.scaling.factor", 1, 1e6, &factor, err);
    if (rc == TG_OK)
        rc = tg_reading_size_or(r, "rope.scaling.original_context_length", &original, err);
    if (rc != TG_OK)
        return rc;
    tg_jout_str(&r->out, "rope_type", type);
    tg_jout_num(&r->out, "factor", factor);
    if (!strcmp(type, "linear"))
        return TG_OK;
    if (original)
        tg_jout_int(&r->out, "original_max_position_embeddings", original);
    for (size_t i = 0; i < 2; i++) {
        double beta = 0;
        rc = tg_reading_float_or(r, yarn[i].suffix, 1e-6, 1e6, &beta, err);
        if (rc != TG_OK)
            return rc;
        if (beta != 0)
            tg_jout_num(&r->out, yarn[i].config, beta);
    }
    return TG_OK;
}

int tg_reading_rope(struct tg_reading *r, bool partial, struct tg_err *err)
{
    const struct tg_tensor *freqs = tg_tensors_find(r->t, rope_freqs);
    const char *type = "none";
    char key[TG_READING_KEY];
    int64_t rotary = r->head_dim;
    int rc = TG_OK;

    r->theta = 10000;
    if ((rc = tg_reading_float_or(r, "rope.freq_base", 1, 1e15, &r->theta, err)) ||
        (rc = tg_reading_size_or(r, "rope.dimension_count", &rotary, err)))
        return rc;
    if (rotary > r->head_dim || (rotary != r->head_dim && !partial))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: metadata key '%s.rope.dimension_count' is %lld, only %sthe head size, "
                       "%lld, is supported",
                       tg_reading_file(r), r->arch->name, (long long)rotary,
                       partial ? "what is at most " : "", (long long)r->head_dim);
    if (tg_reading_find(r, "rope.scaling.type", key) &&
        (rc = tg_gguf_get_string(r->t, key, &type, err)))
        return rc;
    const bool none = !strcmp(type, "none");
    if ((!none && strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0) || (!none && freqs))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: metadata key '%s.rope.scaling.type' is '%s'%s; supported: none, "
                       "linear, yarn, and %s alone",
                       tg_reading_file(r), r->arch->name, type,
                       freqs ? " beside rope_freqs.weight" : "", rope_freqs);
    tg_jout_object(&r->out, "rope_parameters");
    tg_jout_num(&r->out, "rope_theta", r->theta);
    /* the family takes the whole part of head size * factor: half a dimension is no part of it */
    if (partial)
        tg_jout_num(&r->out, "partial_rotary_factor",
                    rotary == r->head_dim ? 1 : ((double)rotary + 0.5) / (double)r->head_dim);
    if (freqs)
        rc = put_llama3(r, freqs, err);
    else if (none)
        tg_jout_str(&r->out, "rope_type", "default");
    else
        rc = put_scaling(r, type, err);
    tg_jout_end_object(&r->out);
    return rc;
}
