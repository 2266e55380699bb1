/* Types and values of GGUF metadata, and lookups in an open set. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/gguf_file.h"

static const struct tg_gguf_type_info types[TG_GGUF_TYPE_COUNT] = {
    [TG_GGUF_U8] = {"U8", 1, TG_GGUF_UNSIGNED},      [TG_GGUF_I8] = {"I8", 1, TG_GGUF_SIGNED},
    [TG_GGUF_U16] = {"U16", 2, TG_GGUF_UNSIGNED},    [TG_GGUF_I16] = {"I16", 2, TG_GGUF_SIGNED},
    [TG_GGUF_U32] = {"U32", 4, TG_GGUF_UNSIGNED},    [TG_GGUF_I32] = {"I32", 4, TG_GGUF_SIGNED},
    [TG_GGUF_F32] = {"F32", 4, TG_GGUF_FLOAT},       [TG_GGUF_BOOL] = {"BOOL", 1, TG_GGUF_TRUTH},
    [TG_GGUF_STRING] = {"STRING", 0, TG_GGUF_OTHER}, [TG_GGUF_ARRAY] = {"ARRAY", 0, TG_GGUF_OTHER},
    [TG_GGUF_U64] = {"U64", 8, TG_GGUF_UNSIGNED},    [TG_GGUF_I64] = {"I64", 8, TG_GGUF_SIGNED},
    [TG_GGUF_F64] = {"F64", 8, TG_GGUF_FLOAT},
};

const struct tg_gguf_type_info *tg_gguf_type_info(uint32_t type)
{
    return type < TG_GGUF_TYPE_COUNT ? &types[type] : NULL;
}

const char *tg_gguf_type_name(enum tg_gguf_type t)
{
    const struct tg_gguf_type_info *info = tg_gguf_type_info((uint32_t)t);
    return info ? info->name : "?";
}

static const struct tg_ggml_type ggml_types[] = {
    [0] = {"F32", TG_F32, false},    [1] = {"F16", TG_F16, false},
    [2] = {"Q4_0", TG_Q4_0, false},  [3] = {"Q4_1", TG_Q4_1, false},
    [4] = {"Q4_2", -1, true},        [5] = {"Q4_3", -1, true},
    [6] = {"Q5_0", TG_Q5_0, false},  [7] = {"Q5_1", TG_Q5_1, false},
    [8] = {"Q8_0", TG_Q8_0, false},  [9] = {"Q8_1", -1, false},
    [10] = {"Q2_K", TG_Q2_K, false}, [11] = {"Q3_K", TG_Q3_K, false},
    [12] = {"Q4_K", TG_Q4_K, false}, [13] = {"Q5_K", TG_Q5_K, false},
    [14] = {"Q6_K", TG_Q6_K, false}, [15] = {"Q8_K", -1, false},
    [16] = {"IQ2_XXS", -1, false},   [17] = {"IQ2_XS", -1, false},
    [18] = {"IQ3_XXS", -1, false},   [19] = {"IQ1_S", -1, false},
    [20] = {"IQ4_NL", -1, false},    [21] = {"IQ3_S", -1, false},
    [22] = {"IQ2_S", -1, false},     [23] = {"IQ4_XS", -1, false},
    [24] = {"I8", TG_I8, false},     [25] = {"I16", TG_I16, false},
    [26] = {"I32", TG_I32, false},   [27] = {"I64", TG_I64, false},
    [28] = {"F64", TG_F64, false},   [29] = {"IQ1_M", -1, false},
    [30] = {"BF16", TG_BF16, false}, [31] = {"Q4_0_4_4", -1, true},
    [32] = {"Q4_0_4_8", -1, true},   [33] = {"Q4_0_8_8", -1, true},
    [34] = {"TQ1_0", -1, false},     [35] = {"TQ2_0", -1, false},
    [36] = {"IQ4_NL_4_4", -1, true}, [37] = {"IQ4_NL_4_8", -1, true},
    [38] = {"IQ4_NL_8_8", -1, true}, [39] = {"MXFP4", TG_MXFP4, false},
    [40] = {"NVFP4", -1, false},     [41] = {"Q1_0", -1, false},
    [42] = {"Q2_0", -1, false},
};
enum { GGML_TYPES = sizeof ggml_types / sizeof *ggml_types };

const struct tg_ggml_type *tg_ggml_type(uint32_t id)
{
    return id < GGML_TYPES ? &ggml_types[id] : NULL;
}

int tg_ggml_type_of(enum tg_dtype t)
{
    for (int i = 0; i < GGML_TYPES; i++)
        if (ggml_types[i].dtype == (int)t)
            return i;
    return -1;
}

struct tg_gguf_value tg_gguf_scalar(struct tg_cursor *c, enum tg_gguf_type type)
{
    struct tg_gguf_value v = {.type = type};
    const struct tg_gguf_type_info *info = &types[type];
    const uint64_t u = info->size == 1   ? tg_cursor_u8(c)
                       : info->size == 2 ? tg_cursor_u16(c)
                       : info->size == 4 ? tg_cursor_u32(c)
                                         : tg_cursor_u64(c);
    const uint64_t sign = (uint64_t)1 << (8 * info->size - 1);
    if (type == TG_GGUF_F32) {
        const uint32_t bits = (uint32_t)u;
        float x;
        memcpy(&x, &bits, sizeof x);
        v.f = x;
    } else if (type == TG_GGUF_F64) {
        memcpy(&v.f, &u, sizeof v.f);
    } else if (info->kind == TG_GGUF_TRUTH) {
        v.b = u != 0;
    } else if (info->kind == TG_GGUF_SIGNED) {
        const uint64_t wide = (u ^ sign) - sign; /* sign-extended */
        memcpy(&v.i, &wide, sizeof v.i);
    } else {
        v.u = u;
    }
    return v;
}

bool tg_gguf_element(const struct tg_gguf_value *v, size_t i, struct tg_gguf_value *out)
{
    if (v->type != TG_GGUF_ARRAY || i >= v->array.count)
        return false;
    if (v->array.type == TG_GGUF_STRING) {
        *out = (struct tg_gguf_value){.type = TG_GGUF_STRING,
                                      .s = ((const struct tg_gguf_string *)v->array.data)[i]};
        return true;
    }
    const size_t size = types[v->array.type].size;
    struct tg_cursor c = tg_cursor_over((const uint8_t *)v->array.data + i * size, size);
    *out = tg_gguf_scalar(&c, v->array.type);
    return true;
}

bool tg_gguf_as_int(const struct tg_gguf_value *v, int64_t *out)
{
    if (types[v->type].kind == TG_GGUF_SIGNED)
        *out = v->i;
    else if (types[v->type].kind == TG_GGUF_UNSIGNED && v->u <= INT64_MAX)
        *out = (int64_t)v->u;
    else
        return false;
    return true;
}

static int compare_key(const void *key, const void *item)
{
    return strcmp(key, (*(const struct tg_gguf_kv *const *)item)->key);
}

const struct tg_gguf_value *tg_gguf_file_find(const struct tg_gguf_file *g, const char *key)
{
    const struct tg_gguf_kv *const *hit =
        g->kvs ? bsearch(key, g->sorted, g->kvs, sizeof *g->sorted, compare_key) : NULL;
    return hit ? &(*hit)->value : NULL;
}

static const struct tg_gguf_file *first_part(const struct tg_tensors *t)
{
    return tg_tensors_format(t) == &tg_format_gguf ? tg_tensors_part(t, 0)->state : NULL;
}

size_t tg_gguf_count(const struct tg_tensors *t)
{
    const struct tg_gguf_file *g = first_part(t);
    return g ? g->kvs : 0;
}

const struct tg_gguf_kv *tg_gguf_at(const struct tg_tensors *t, size_t i)
{
    return &first_part(t)->kv[i];
}

const struct tg_gguf_value *tg_gguf_find(const struct tg_tensors *t, const char *key)
{
    const struct tg_gguf_file *g = first_part(t);
    return g ? tg_gguf_file_find(g, key) : NULL;
}

int tg_gguf_keys(const struct tg_tensors *t, bool retyped, struct tg_gguf_kv **kv, size_t *count,
                 struct tg_err *err)
{
    const size_t all = tg_gguf_count(t);
    *count = 0;
    *kv = tg_alloc_array(all, sizeof **kv);
    if (!*kv)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", tg_tensors_file(t, 0));
    for (size_t i = 0; i < all; i++) {
        const struct tg_gguf_kv *from = tg_gguf_at(t, i);
        if (strncmp(from->key, "split.", 6) != 0 &&
            !(retyped && !strcmp(from->key, "general.file_type")))
            (*kv)[(*count)++] = *from;
    }
    return TG_OK;
}

/* What stands there, for a message */
static const char *value_text(const struct tg_gguf_value *v, char *buf, size_t size)
{
    switch (types[v->type].kind) {
    case TG_GGUF_UNSIGNED:
        snprintf(buf, size, "%" PRIu64, v->u);
        break;
    case TG_GGUF_SIGNED:
        snprintf(buf, size, "%" PRId64, v->i);
        break;
    case TG_GGUF_FLOAT:
        snprintf(buf, size, "%.9g", v->f);
        break;
    case TG_GGUF_TRUTH:
        snprintf(buf, size, "%s", v->b ? "true" : "false");
        break;
    default:
        if (v->type == TG_GGUF_STRING)
            snprintf(buf, size, "the string '%.60s'", v->s.text);
        else
            snprintf(buf, size, "an array of %zu %s", v->array.count, types[v->array.type].name);
    }
    return buf;
}

static int get(const struct tg_tensors *t, const char *key, const struct tg_gguf_value **v,
               struct tg_err *err)
{
    *v = tg_gguf_find(t, key);
    return *v ? TG_OK
              : tg_fail(err, TG_ERR_FORMAT, "%s: metadata key '%s' is missing",
                        tg_tensors_file(t, 0), key);
}

static int fail_kind(const struct tg_tensors *t, const char *key, const struct tg_gguf_value *v,
                     const char *want, struct tg_err *err)
{
    char text[120];
    return tg_fail(err, TG_ERR_VALUE, "%s: metadata key '%s' is %s (%s), must be %s",
                   tg_tensors_file(t, 0), key, value_text(v, text, sizeof text),
                   types[v->type].name, want);
}

int tg_gguf_get_int(const struct tg_tensors *t, const char *key, int64_t min, int64_t max,
                    int64_t *out, struct tg_err *err)
{
    const struct tg_gguf_value *v;
    char want[80];
    int64_t x;
    int rc = get(t, key, &v, err);
    if (rc != TG_OK)
        return rc;
    snprintf(want, sizeof want, "an integer in [%" PRId64 ", %" PRId64 "]", min, max);
    if (!tg_gguf_as_int(v, &x) || x < min || x > max)
        return fail_kind(t, key, v, want, err);
    *out = x;
    return TG_OK;
}

int tg_gguf_get_float(const struct tg_tensors *t, const char *key, double min, double max,
                      double *out, struct tg_err *err)
{
    const struct tg_gguf_value *v;
    char want[80];
    int rc = get(t, key, &v, err);
    if (rc != TG_OK)
        return rc;
    snprintf(want, sizeof want, "a float in [%g, %g]", min, max);
    if (types[v->type].kind != TG_GGUF_FLOAT || !(v->f >= min && v->f <= max))
        return fail_kind(t, key, v, want, err);
    *out = v->f;
    return TG_OK;
}

int tg_gguf_get_bool(const struct tg_tensors *t, const char *key, bool *out, struct tg_err *err)
{
    const struct tg_gguf_value *v;
    int rc = get(t, key, &v, err);
    if (rc == TG_OK && v->type != TG_GGUF_BOOL)
        rc = fail_kind(t, key, v, "a BOOL", err);
    if (rc == TG_OK)
        *out = v->b;
    return rc;
}

int tg_gguf_get_string(const struct tg_tensors *t, const char *key, const char **out,
                       struct tg_err *err)
{
    const struct tg_gguf_value *v;
    int rc = get(t, key, &v, err);
    if (rc == TG_OK && (v->type != TG_GGUF_STRING || memchr(v->s.text, '\0', v->s.len)))
        rc = fail_kind(t, key, v, "a STRING without NUL", err);
    if (rc == TG_OK)
        *out = v->s.text;
    return rc;
}

int tg_gguf_get_array(const struct tg_tensors *t, const char *key, enum tg_gguf_type type,
                      const struct tg_gguf_value **out, struct tg_err *err)
{
    const struct tg_gguf_value *v;
    char want[80];
    int rc = get(t, key, &v, err);
    snprintf(want, sizeof want, "an array of %s", types[type].name);
    if (rc == TG_OK && (v->type != TG_GGUF_ARRAY || v->array.type != type))
        rc = fail_kind(t, key, v, want, err);
    if (rc == TG_OK)
        *out = v;
    return rc;
}
