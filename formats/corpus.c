/* Token ids of corpora: text through the tokenizer, or ids as they stand in .npy and .safetensors
 * files. */
#include "formats/corpus.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/npy.h"
#include "formats/tensors.h"
#include "formats/text.h"

static const size_t max_text = (size_t)1 << 34; /* bytes: stops a gzip bomb */

/* "85%", "100000", "300k", "1.5M"; empty leaves the default. */
static bool parse_edge(const char *s, size_t n, double *at, bool *share)
{
    char buf[32], *end;
    if (n == 0)
        return true;
    if (n >= sizeof buf || s[0] < '0' || s[0] > '9')
        return false;
    memcpy(buf, s, n);
    buf[n] = '\0';
    double v = strtod(buf, &end);
    *share = *end == '%';
    if (*end == '%')
        v /= 100;
    else if (*end == 'k' || *end == 'K')
        v *= 1e3;
    else if (*end == 'M' || *end == 'G')
        v *= *end == 'M' ? 1e6 : 1e9;
    if (*end)
        end++;
    *at = *share ? v : floor(v);
    return *end == '\0' && v >= 0 && v < 0x1p53 && (!*share || v <= 1);
}

int tg_corpus_spec_parse(const char *arg, struct tg_corpus_spec *spec, struct tg_err *err)
{
    const char *at = strrchr(arg, '@');
    if (at && (strchr(at, '/') || at[1 + strspn(at + 1, "0123456789.%:kKMG")] != '\0'))
        at = NULL; /* an ordinary part of the file's name */
    *spec = (struct tg_corpus_spec){.end = INFINITY};
    if (at) {
        const char *colon = strchr(at, ':');
        if (!colon ||
            !parse_edge(at + 1, (size_t)(colon - at - 1), &spec->begin, &spec->begin_share) ||
            !parse_edge(colon + 1, strlen(colon + 1), &spec->end, &spec->end_share))
            return tg_fail(
                err, TG_ERR_VALUE,
                "'%s': the part '%s' is not BEGIN:END with percents up to 100%% or tokens", arg,
                at);
        if (spec->begin_share == spec->end_share && !(spec->begin < spec->end))
            return tg_fail(err, TG_ERR_VALUE, "'%s': the part ends before it begins", arg);
    }
    spec->path = at ? tg_strndup(arg, (size_t)(at - arg)) : tg_strdup(arg);
    if (!spec->path)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", arg);
    if (!*spec->path) {
        tg_corpus_spec_release(spec);
        return tg_fail(err, TG_ERR_VALUE, "'%s': no file is named", arg);
    }
    return TG_OK;
}

void tg_corpus_spec_release(struct tg_corpus_spec *spec)
{
    tg_free(spec->path);
    *spec = (struct tg_corpus_spec){0};
}

struct encoder {
    const struct tg_tokenizer *tok;
    struct tg_ids *ids;
};

static int encode_one(void *ud, const char *text, size_t len, struct tg_err *err)
{
    const struct encoder *e = ud;
    return tg_tokenizer_encode(e->tok, text, len, false, e->ids, err);
}

static int read_text(const char *path, const struct tg_tokenizer *tok, struct tg_ids *ids,
                     struct tg_err *err)
{
    char *text;
    size_t len;
    if (!tok)
        return tg_fail(err, TG_ERR_VALUE, "%s: text needs a tokenizer", path);
    int rc = tg_text_read_raw(path, max_text, &text, &len, err);
    if (rc != TG_OK)
        return rc;
    struct encoder e = {tok, ids};
    if (tg_text_is_jsonl(path))
        rc = tg_text_each(path, text, len, encode_one, &e, err);
    else
        rc = encode_one(&e, text, len, err);
    tg_free(text);
    return rc;
}

/* Appends all elements of an integer tensor. */
static int append(const struct tg_tensor *t, struct tg_ids *ids, struct tg_err *err)
{
    int64_t *wide = tg_alloc_array(t->elements, sizeof *wide);
    size_t need;
    int rc = TG_OK;
    if (!wide || !tg_add_size(&need, ids->count, t->elements) ||
        !tg_grow(&ids->data, &ids->cap, need, sizeof *ids->data))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->file);
    else
        rc = tg_tensor_read_i64(t, wide, err);
    for (size_t i = 0; i < t->elements && rc == TG_OK; i++) {
        if (wide[i] < 0 || wide[i] > INT32_MAX)
            rc = tg_fail(err, TG_ERR_VALUE, "%s: token %zu has the id %lld", t->file, i,
                         (long long)wide[i]);
        else
            ids->data[ids->count++] = (int32_t)wide[i];
    }
    tg_free(wide);
    return rc;
}

/* The tensor "input_ids" or "ids", or the only one there is. */
static int read_tensors(const char *path, struct tg_ids *ids, struct tg_err *err)
{
    struct tg_tensors *t;
    int rc = tg_tensors_open(&t, path, err);
    if (rc != TG_OK)
        return rc;
    const struct tg_tensor *x = tg_tensors_find(t, "input_ids");
    if (!x)
        x = tg_tensors_find(t, "ids");
    if (!x && tg_tensors_count(t) == 1)
        x = tg_tensors_at(t, 0);
    rc = x ? append(x, ids, err)
           : tg_fail(err, TG_ERR_FORMAT, "%s: no tensor 'input_ids' or 'ids'", path);
    tg_tensors_close(t);
    return rc;
}

static bool ends_with(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n >= m && strcmp(path + n - m, ending) == 0;
}

static int append_npy(const void *bytes, size_t len, const char *path, struct tg_ids *ids,
                      struct tg_err *err)
{
    struct tg_tensor t;
    int rc = tg_npy_parse(bytes, len, path, &t, err);
    return rc == TG_OK ? append(&t, ids, err) : rc;
}

/* Known by its first bytes. */
static int read_npy(const char *path, bool *is_npy, struct tg_ids *ids, struct tg_err *err)
{
    struct tg_map m;
    int rc = tg_map_open(&m, path, err);
    if (rc != TG_OK)
        return rc;
    *is_npy = tg_npy_probe(m.data, m.size);
    if (*is_npy)
        rc = append_npy(m.data, m.size, path, ids, err);
    tg_map_close(&m);
    return rc;
}

/* Known by its name: what is compressed is not looked into twice. */
static int read_npy_gz(const char *path, struct tg_ids *ids, struct tg_err *err)
{
    char *bytes = NULL;
    size_t len;
    int rc = tg_bytes_read(path, max_text, &bytes, &len, err);
    if (rc == TG_OK)
        rc = append_npy(bytes, len, path, ids, err);
    tg_free(bytes);
    return rc;
}

static int read_any(const char *path, const struct tg_tokenizer *tok, struct tg_ids *ids,
                    struct tg_err *err)
{
    bool is_npy = false;
    if (ends_with(path, ".safetensors"))
        return read_tensors(path, ids, err);
    if (ends_with(path, ".npy.gz"))
        return read_npy_gz(path, ids, err);
    int rc = read_npy(path, &is_npy, ids, err);
    return rc == TG_OK && !is_npy ? read_text(path, tok, ids, err) : rc;
}

/* Keeps the part of ids[from..) that the spec names. Edges given as shares round down, so that
 * neighbouring parts meet. */
static int keep_part(const struct tg_corpus_spec *spec, struct tg_ids *ids, size_t from,
                     struct tg_err *err)
{
    size_t n = ids->count - from;
    double begin = spec->begin_share ? floor(spec->begin * (double)n) : spec->begin;
    double end = isinf(spec->end)  ? (double)n
                 : spec->end_share ? floor(spec->end * (double)n)
                                   : spec->end;
    if (n == 0)
        return tg_fail(err, TG_ERR_VALUE, "%s: holds no tokens", spec->path);
    if (begin >= end || end > (double)n)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: the part from token %.0f to %.0f is empty or beyond its %zu tokens",
                       spec->path, begin, end, n);
    size_t at = (size_t)begin, count = (size_t)end - at;
    memmove(ids->data + from, ids->data + from + at, count * sizeof *ids->data);
    ids->count = from + count;
    return TG_OK;
}

static int check_limit(const char *path, size_t limit, const struct tg_ids *ids, size_t from,
                       struct tg_err *err)
{
    for (size_t i = from; limit > 0 && i < ids->count; i++) {
        if ((size_t)ids->data[i] >= limit)
            return tg_fail(err, TG_ERR_VALUE,
                           "%s: token %zu has the id %d, the vocabulary ends at %zu", path,
                           i - from, (int)ids->data[i], limit);
    }
    return TG_OK;
}

int tg_corpus_read(const struct tg_corpus_spec *spec, const struct tg_tokenizer *tok,
                   size_t vocab_limit, struct tg_ids *ids, struct tg_err *err)
{
    size_t from = ids->count;
    int rc = read_any(spec->path, tok, ids, err);
    if (rc == TG_OK)
        rc = check_limit(spec->path, vocab_limit, ids, from, err);
    if (rc == TG_OK)
        rc = keep_part(spec, ids, from, err);
    if (rc != TG_OK)
        ids->count = from;
    return rc;
}
