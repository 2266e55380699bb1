#include "convert/scaled.h"

#include <stdio.h>
#include <string.h>

#include "convert/names.h"
#include "formats/block_scaled.h"

static int read_block(struct tg_json q, struct tg_scaling *s, struct tg_err *err)
{
    const struct tg_json block = tg_json_key(q, "weight_block_size");
    size_t *const to[] = {&s->block_rows, &s->block_cols};
    size_t n = 0;

    if (!tg_json_has(block))
        return tg_json_fail(q, "weight_block_size", TG_ERR_UNSUPPORTED, err,
                            "is missing: the checkpoint is quantised with fp8 in a form that is "
                            "not read");
    if (tg_json_count(block) != 2 || !tg_json_is_array(block))
        return tg_json_fail(q, "weight_block_size", TG_ERR_VALUE, err,
                            "must be an array of two numbers");
    for (struct tg_json v = tg_json_first(block); v.node; v = tg_json_next(v)) {
        const double size = tg_json_number(v);
        if (!(size >= 1 && size <= 1 << 20) || size != (double)(size_t)size)
            return tg_json_fail(v, "", TG_ERR_VALUE, err, "must be an integer from 1 to 2^20");
        *to[n++] = (size_t)size;
    }
    return TG_OK;
}

int tg_scaling_read(struct tg_json config, struct tg_scaling *s, struct tg_err *err)
{
    static const char *const keys[] = {"quantization_config", "compression_config"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct tg_json q = tg_json_key(config, keys[i]);
        const char *method = tg_json_string(tg_json_key(q, "quant_method"));
        int rc;

        if (!tg_json_has(q))
            continue;
        if (!strcmp(method, "fp8")) {
            s->fp8 = true;
            if ((rc = read_block(q, s, err)))
                return rc;
            continue;
        }
        if (!strcmp(method, "mxfp4")) {
            s->mxfp4 = true;
            continue;
        }
        if (!*method) /* written before transformers 4.35 */
            method = tg_json_has(tg_json_key(q, "load_in_4bit")) ||
                             tg_json_has(tg_json_key(q, "load_in_8bit"))
                         ? "bitsandbytes"
                         : "an unnamed method";
        return tg_json_fail(config, keys[i], TG_ERR_UNSUPPORTED, err,
                            "the checkpoint is quantised with %s; read are unquantised weights, "
                            "fp8 in blocks and mxfp4: use the original checkpoint",
                            method);
    }
    return TG_OK;
}

bool tg_scaling_is_scales(const struct tg_scaling *s, const char *name)
{
    return (s->fp8 && tg_name_like("*_scale_inv", name)) ||
           (s->mxfp4 && tg_name_like("*_scales", name));
}

static bool is_blocks(const struct tg_scaling *s, const struct tg_tensor *t)
{
    return s->mxfp4 && tg_name_like("*_blocks", t->name);
}

bool tg_scaling_takes(const struct tg_scaling *s, const char *name)
{
    return tg_scaling_is_scales(s, name) || (s->mxfp4 && tg_name_like("*_blocks", name));
}

void tg_scaling_weight_of(const struct tg_scaling *s, const char *scales, char *out, size_t size)
{
    const bool inverse = s->fp8 && tg_name_like("*_scale_inv", scales);
    const size_t suffix = strlen(inverse ? "_scale_inv" : "_scales");

    snprintf(out, size, "%.*s%s", (int)(strlen(scales) - suffix), scales, inverse ? "" : "_blocks");
}

static bool is_small(const struct tg_scaling *s, const struct tg_tensor *t)
{
    return s->fp8 && (t->dtype == TG_F8_E4M3 || t->dtype == TG_F8_E5M2);
}

int tg_scaling_stored(const struct tg_scaling *s, const struct tg_tensors *tensors,
                      const struct tg_tensor *t, struct tg_stored *out, struct tg_err *err)
{
    const bool blocks = is_blocks(s, t);
    char name[TG_NAME_SIZE];
    int length;

    *out = (struct tg_stored){.rank = t->rank, .elements = t->elements};
    memcpy(out->shape, t->shape, sizeof out->shape);
    if (!blocks && !is_small(s, t))
        return TG_OK;
    length = (int)strlen(t->name) - (blocks ? (int)strlen("blocks") : 0);
    snprintf(name, sizeof name, "%.*s%s", length, t->name, blocks ? "scales" : "_scale_inv");
    if (!(out->scales = tg_tensors_find(tensors, name)))
        return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' has no scales '%s'", t->file, t->name,
                       name);
    if (!blocks)
        return TG_OK;
    if (t->rank < 3 || t->shape[t->rank - 1] != 16)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: tensor '%s' must have the shape [.., rows, groups, 16]", t->file,
                       t->name);
    out->rank--;
    out->shape[out->rank - 1] *= 32;
    out->elements *= 2;
    return TG_OK;
}

int tg_scaling_read_f32(const struct tg_scaling *s, const struct tg_tensor *t,
                        const struct tg_tensor *scales, float *dst, struct tg_err *err)
{
    struct tg_block_scaled b = {0};
    int rc = is_blocks(s, t)
                 ? tg_mxfp4_open(&b, t, scales, err)
                 : tg_block_scaled_open(&b, t, scales, s->block_rows, s->block_cols, err);

    if (rc == TG_OK)
        rc = tg_block_scaled_read(&b, 0, b.matrices * b.rows * b.cols, dst, err);
    tg_block_scaled_close(&b);
    return rc;
}
