/* Rotary settings of config.json. Version 4 of transformers wrote rope_theta and rope_scaling
 * ("type" or "rope_type") beside the other keys, version 5 writes all of it in rope_parameters, and
 * there for each kind of layer where they differ. What stands inside goes before what stands
 * beside, except original_max_position_embeddings, as in modeling_rope_utils. */
#include <math.h>
#include <string.h>

#include "convert/config.h"

static int read_kind(struct tg_json from, enum tg_rope_kind *kind, struct tg_err *err)
{
    const char *key = tg_json_has(tg_json_key(from, "rope_type")) ? "rope_type" : "type";
    const char *name = "default";
    const int rc = tg_json_get_str_or(from, key, &name, err);

    if (rc != TG_OK)
        return rc;
    if (!strcmp(name, "su")) /* its first name */
        name = "longrope";
    /* Phi-3 under yet another */
    if (!strcmp(name, "yarn") && tg_json_has(tg_json_key(from, "short_factor")))
        name = "longrope";
    for (int k = 0; k < TG_ROPE_COUNT; k++)
        if (!strcmp(name, tg_rope_kind_name((enum tg_rope_kind)k))) {
            *kind = (enum tg_rope_kind)k;
            return TG_OK;
        }
    return tg_json_fail(from, key, TG_ERR_UNSUPPORTED, err,
                        "rotary scaling \"%s\" is not supported; known: default, llama3, linear, "
                        "dynamic, yarn, longrope",
                        name);
}

static int read_llama3(struct tg_json from, struct tg_rope *r, struct tg_err *err)
{
    int rc;

    if ((rc = tg_json_get_num(from, "factor", 1, 1e6, &r->factor, err)) ||
        (rc = tg_json_get_num(from, "low_freq_factor", 1e-6, 1e6, &r->low_freq_factor, err)) ||
        (rc = tg_json_get_num(from, "high_freq_factor", 1e-6, 1e6, &r->high_freq_factor, err)))
        return rc;
    if (r->high_freq_factor <= r->low_freq_factor)
        return tg_json_fail(from, "high_freq_factor", TG_ERR_VALUE, err,
                            "%g must be larger than low_freq_factor, %g", r->high_freq_factor,
                            r->low_freq_factor);
    return TG_OK;
}

/* What a scale does to the size of attention scores (yarn) */
static double magnitude(double scale, double weight)
{
    return scale <= 1 ? 1 : 0.1 * weight * log(scale) + 1;
}

/* factor, or without it how much longer texts may be than they were */
static int read_factor(struct tg_json from, double positions, double lo, struct tg_rope *r,
                       struct tg_err *err)
{
    r->factor = positions / r->original_max_positions;
    if (tg_json_has(tg_json_key(from, "factor")))
        return tg_json_get_num(from, "factor", lo, 1e6, &r->factor, err);
    if (!(r->factor >= lo && r->factor <= 1e6))
        return tg_json_fail(from, "factor", TG_ERR_VALUE, err,
                            "is missing, and max_position_embeddings / "
                            "original_max_position_embeddings = %g is not in [%g, 1e+06]",
                            r->factor, lo);
    return TG_OK;
}

static int read_yarn(struct tg_json from, double positions, struct tg_rope *r, struct tg_err *err)
{
    double all = 0, some = 0;
    int rc;

    r->beta_fast = 32;
    r->beta_slow = 1;
    r->truncate = true;
    if ((rc = read_factor(from, positions, 1, r, err)) ||
        (rc = tg_json_get_num_or(from, "beta_fast", 1e-6, 1e6, &r->beta_fast, err)) ||
        (rc = tg_json_get_num_or(from, "beta_slow", 1e-6, 1e6, &r->beta_slow, err)) ||
        (rc = tg_json_get_bool_or(from, "truncate", &r->truncate, err)) ||
        (rc = tg_json_get_num_or(from, "mscale", 0, 1e3, &some, err)) ||
        (rc = tg_json_get_num_or(from, "mscale_all_dim", 0, 1e3, &all, err)))
        return rc;
    if (r->beta_fast < r->beta_slow)
        return tg_json_fail(from, "beta_fast", TG_ERR_VALUE, err, "%g is below beta_slow, %g",
                            r->beta_fast, r->beta_slow);
    r->attention_factor = some > 0 && all > 0
                              ? magnitude(r->factor, some) / magnitude(r->factor, all)
                              : magnitude(r->factor, 1);
    return tg_json_get_num_or(from, "attention_factor", 1e-6, 1e6, &r->attention_factor, err);
}

static int read_factors(struct tg_json from, const char *key, double *to, size_t *count,
                        struct tg_err *err)
{
    const struct tg_json list = tg_json_key(from, key);
    size_t n = 0;

    if (!tg_json_has(list))
        return tg_json_fail(from, key, TG_ERR_VALUE, err, "is missing");
    if (!tg_json_is_array(list) || !tg_json_count(list) ||
        tg_json_count(list) > TG_MAX_ROPE_FACTORS)
        return tg_json_fail(from, key, TG_ERR_VALUE, err,
                            "must be an array of 1 to %d numbers; it has %zu", TG_MAX_ROPE_FACTORS,
                            tg_json_count(list));
    for (struct tg_json v = tg_json_first(list); v.node; v = tg_json_next(v)) {
        if (!tg_json_is_number(v) || !(tg_json_number(v) >= 1e-6 && tg_json_number(v) <= 1e9))
            return tg_json_fail(v, "", TG_ERR_VALUE, err, "must be a number from 1e-6 to 1e9");
        to[n++] = tg_json_number(v);
    }
    *count = n;
    return TG_OK;
}

static int read_longrope(struct tg_json from, double positions, struct tg_rope *r,
                         struct tg_err *err)
{
    size_t longs = 0;
    int rc;

    if ((rc = read_factors(from, "short_factor", r->short_factor, &r->factor_count, err)) ||
        (rc = read_factors(from, "long_factor", r->long_factor, &longs, err)) ||
        (rc = read_factor(from, positions, 1e-6, r, err)))
        return rc;
    if (longs != r->factor_count)
        return tg_json_fail(from, "long_factor", TG_ERR_VALUE, err,
                            "has %zu numbers, but short_factor has %zu", longs, r->factor_count);
    r->attention_factor = 1;
    if (r->factor > 1 && r->original_max_positions > 1)
        r->attention_factor = sqrt(1 + log(r->factor) / log(r->original_max_positions));
    return tg_json_get_num_or(from, "attention_factor", 1e-6, 1e6, &r->attention_factor, err);
}

int tg_config_rope(struct tg_json from, struct tg_json beside, double positions, struct tg_rope *r,
                   double *share, struct tg_err *err)
{
    const char *original = "original_max_position_embeddings";
    const struct tg_json where = tg_json_has(tg_json_key(beside, original)) ? beside : from;
    int rc;

    if ((rc = tg_json_get_num_or(from, "rope_theta", 1, 1e15, &r->theta, err)) ||
        (rc = tg_json_get_num_or(from, "partial_rotary_factor", 0, 1, share, err)) ||
        (rc = read_kind(from, &r->kind, err)) || tg_rope_plain(r))
        return rc;
    if (r->kind == TG_ROPE_LINEAR)
        return tg_json_get_num(from, "factor", 1, 1e6, &r->factor, err);
    if (!(positions >= 1))
        positions = 1;
    r->original_max_positions = positions;
    if (r->kind == TG_ROPE_DYNAMIC)
        return tg_json_get_num(from, "factor", 1, 1e6, &r->factor, err);
    if ((rc = tg_json_get_num_or(where, original, 1, 1e12, &r->original_max_positions, err)))
        return rc;
    if (r->kind == TG_ROPE_LLAMA3)
        return read_llama3(from, r, err);
    return r->kind == TG_ROPE_YARN ? read_yarn(from, positions, r, err)
                                   : read_longrope(from, positions, r, err);
}

/* rope_scaling unless it is null or empty, else rope_parameters; neither: absent */
static int find_rope(struct tg_json c, struct tg_json *from, struct tg_err *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};

    *from = (struct tg_json){0};
    for (size_t i = 0; i < 2; i++) {
        const struct tg_json v = tg_json_key(c, keys[i]);
        if (tg_json_has(v) && !tg_json_is_object(v))
            return tg_json_fail(c, keys[i], TG_ERR_VALUE, err, "must be an object or null");
        if (tg_json_has(v) && !tg_json_has(*from) && tg_json_count(v))
            *from = v;
    }
    return TG_OK;
}

static bool for_each_kind(struct tg_json from)
{
    return tg_json_is_object(tg_json_key(from, "full_attention")) ||
           tg_json_is_object(tg_json_key(from, "sliding_attention"));
}

int tg_config_ropes(struct tg_json c, const struct tg_config_defaults *d,
                    struct tg_model_spec *spec, double *share, struct tg_err *err)
{
    const char *theta = d->keys.theta ? d->keys.theta : "rope_theta";
    const char *local = d->keys.local_theta ? d->keys.local_theta : theta;
    const char *part = d->keys.rotary_share ? d->keys.rotary_share : "partial_rotary_factor";
    const double positions = (double)spec->max_positions;
    struct tg_rope *full = &spec->ropes[0], *slides = &spec->ropes[1];
    struct tg_json from, kinds[2] = {{0}, {0}};
    double shares[2];
    int rc;

    full->theta = d->theta > 0 ? d->theta : 10000;
    slides->theta = d->local_theta;
    *share = d->rotary_share > 0 ? d->rotary_share : 1;
    if ((rc = tg_json_get_num_or(c, theta, 1, 1e15, &full->theta, err)) ||
        (d->local_theta > 0 && (rc = tg_json_get_num_or(c, local, 1, 1e15, &slides->theta, err))) ||
        (rc = tg_json_get_num_or(c, part, 0, 1, share, err)) || (rc = find_rope(c, &from, err)))
        return rc;
    kinds[0] = from;
    if (for_each_kind(from)) {
        kinds[0] = tg_json_key(from, "full_attention");
        kinds[1] = tg_json_key(from, "sliding_attention");
        if (!(slides->theta > 0))
            slides->theta = full->theta;
    }
    for (int i = 0; i < TG_MAX_ROPES; i++) {
        shares[i] = *share;
        if (tg_json_has(kinds[i]) && !tg_json_is_object(kinds[i]))
            return tg_json_fail(kinds[i], "", TG_ERR_VALUE, err, "must be an object or null");
        if (tg_json_has(kinds[i]) &&
            (rc = tg_config_rope(kinds[i], c, positions, &spec->ropes[i], &shares[i], err)))
            return rc;
    }
    if (tg_json_has(kinds[1]) && shares[0] != shares[1])
        return tg_json_fail(kinds[1], "partial_rotary_factor", TG_ERR_UNSUPPORTED, err,
                            "%g differs from the %g of full_attention", shares[1], shares[0]);
    *share = shares[0];
    if (!(d->rotary_share > 0) && *share != 1)
        return tg_json_fail(tg_json_has(tg_json_key(kinds[0], "partial_rotary_factor")) ? kinds[0]
                                                                                        : c,
                            "partial_rotary_factor", TG_ERR_UNSUPPORTED, err,
                            "%g is not supported in this family; known: 1", *share);
    return TG_OK;
}

static void write_factors(struct tg_json_out *j, const char *key, const double *x, size_t count)
{
    tg_jout_array(j, key);
    for (size_t i = 0; i < count; i++)
        tg_jout_num(j, NULL, x[i]);
    tg_jout_end_array(j);
}

void tg_config_rope_write(const struct tg_rope *r, struct tg_json_out *j)
{
    const enum tg_rope_kind k = r->kind;

    tg_jout_str(j, "rope_type", tg_rope_kind_name(k));
    tg_jout_num(j, "rope_theta", r->theta);
    if (!tg_rope_plain(r))
        tg_jout_num(j, "factor", r->factor);
    if (k == TG_ROPE_LLAMA3) {
        tg_jout_num(j, "low_freq_factor", r->low_freq_factor);
        tg_jout_num(j, "high_freq_factor", r->high_freq_factor);
    }
    if (!tg_rope_plain(r) && k != TG_ROPE_LINEAR)
        tg_jout_num(j, "original_max_position_embeddings", r->original_max_positions);
    if (k == TG_ROPE_YARN || k == TG_ROPE_LONGROPE)
        tg_jout_num(j, "attention_factor", r->attention_factor);
    if (k == TG_ROPE_YARN) {
        tg_jout_num(j, "beta_fast", r->beta_fast);
        tg_jout_num(j, "beta_slow", r->beta_slow);
        tg_jout_bool(j, "truncate", r->truncate);
    }
    if (k == TG_ROPE_LONGROPE) {
        write_factors(j, "short_factor", r->short_factor, r->factor_count);
        write_factors(j, "long_factor", r->long_factor, r->factor_count);
    }
}
