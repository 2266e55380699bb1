/* Text of plain, .jsonl and gzip files (RFC 1952, through zlib, which checks CRC and length of each
 * member). */
#include "formats/text.h"

#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "formats/corpus.h"

static int fail_memory(const char *path, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
}

static int fail_large(const char *path, size_t max, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE, "%s: the text is larger than %zu bytes", path, max);
}

enum { STEP = 1 << 18 }; /* room for output offered to zlib at a time */

/* Output buffer of one decompression. */
struct sink {
    char *text;
    size_t len, cap, max;
};

static int inflate_some(z_stream *z, struct sink *s, const char *path, int *state,
                        struct tg_err *err)
{
    size_t need = s->len + STEP + 1;
    if (!tg_grow(&s->text, &s->cap, need < s->max + 2 ? need : s->max + 2, 1))
        return fail_memory(path, err);
    size_t room = s->cap - s->len - 1;
    z->next_out = (unsigned char *)s->text + s->len;
    z->avail_out = room < STEP ? (unsigned)room : STEP;
    unsigned before = z->avail_out;
    *state = inflate(z, Z_NO_FLUSH);
    s->len += before - z->avail_out;
    if (s->len > s->max)
        return fail_large(path, s->max, err);
    if (*state == Z_MEM_ERROR)
        return fail_memory(path, err);
    if (*state == Z_BUF_ERROR && z->avail_in == 0)
        return tg_fail(err, TG_ERR_FORMAT, "%s: gzip data ends in the middle", path);
    if (*state != Z_OK && *state != Z_STREAM_END)
        return tg_fail(err, TG_ERR_FORMAT, "%s: damaged gzip data after %zu bytes of text: %s",
                       path, s->len, z->msg ? z->msg : "preset dictionary");
    return TG_OK;
}

/* Takes input in pieces that fit zlib's counters. */
static void feed(z_stream *z, const struct tg_map *m, size_t *given)
{
    if (z->avail_in > 0 || *given == m->size)
        return;
    size_t n = m->size - *given < (1u << 30) ? m->size - *given : (1u << 30);
    z->next_in = (unsigned char *)m->data + *given;
    z->avail_in = (unsigned)n;
    *given += n;
}

static bool all_zero(const struct tg_map *m, size_t from)
{
    while (from < m->size && m->data[from] == 0)
        from++;
    return from == m->size;
}

/* All members one after another, as gzip does; zero bytes may follow the last. */
static int gunzip(const struct tg_map *m, const char *path, struct sink *s, struct tg_err *err)
{
    z_stream z = {0};
    size_t given = 0;
    int rc = TG_OK, state = Z_OK;
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return fail_memory(path, err);
    for (;;) {
        feed(&z, m, &given);
        rc = inflate_some(&z, s, path, &state, err);
        if (rc != TG_OK)
            break;
        if (state != Z_STREAM_END)
            continue;
        if (all_zero(m, given - z.avail_in))
            break;
        if (inflateReset(&z) != Z_OK) {
            rc = fail_memory(path, err);
            break;
        }
    }
    inflateEnd(&z);
    return rc;
}

int tg_bytes_read(const char *path, size_t max, char **bytes, size_t *len, struct tg_err *err)
{
    struct tg_map m;
    struct sink s = {.max = max < SIZE_MAX / 2 ? max : SIZE_MAX / 2};
    int rc = tg_map_open(&m, path, err);
    if (rc != TG_OK)
        return rc;
    if (m.size >= 2 && m.data[0] == 0x1F && m.data[1] == 0x8B) {
        rc = gunzip(&m, path, &s, err);
    } else if (m.size > s.max) {
        rc = fail_large(path, s.max, err);
    } else if (!(s.text = tg_alloc(m.size + 1))) {
        rc = fail_memory(path, err);
    } else {
        if (m.size)
            memcpy(s.text, m.data, m.size);
        s.len = m.size;
    }
    tg_map_close(&m);
    if (rc == TG_OK && s.len == 0)
        rc = tg_fail(err, TG_ERR_VALUE, "%s: the text is empty", path);
    if (rc != TG_OK) {
        tg_free(s.text);
        return rc;
    }
    s.text[s.len] = '\0';
    *bytes = s.text;
    *len = s.len;
    return TG_OK;
}

int tg_text_read_raw(const char *path, size_t max, char **text, size_t *len, struct tg_err *err)
{
    int rc = tg_bytes_read(path, max, text, len, err);
    size_t good = rc == TG_OK ? tg_utf8_check(*text, *len) : 0;
    if (rc != TG_OK || good == *len)
        return rc;
    tg_free(*text);
    *text = NULL;
    return tg_fail(err, TG_ERR_FORMAT, "%s: not valid UTF-8 at byte %zu", path, good);
}

bool tg_text_is_jsonl(const char *path)
{
    static const char *const ends[] = {".jsonl", ".jsonl.gz"};
    size_t n = strlen(path);
    for (size_t i = 0; i < 2; i++) {
        size_t e = strlen(ends[i]);
        if (n >= e && strcmp(path + n - e, ends[i]) == 0)
            return true;
    }
    return false;
}

static int one_line(const char *line, size_t n, size_t number, const char *path, tg_text_fn fn,
                    void *ud, struct tg_err *err)
{
    struct tg_json_doc *doc;
    int rc = tg_json_parse(&doc, line, n, path, 0, err);
    if (rc != TG_OK) {
        tg_err_prefix(err, "line %zu", number);
        return rc;
    }
    struct tg_json text = tg_json_key(tg_json_root(doc), "text");
    if (!tg_json_is_string(text))
        rc = tg_fail(err, TG_ERR_FORMAT, "%s: line %zu: not an object with a string \"text\"", path,
                     number);
    else
        rc = fn(ud, tg_json_string(text), strlen(tg_json_string(text)), err);
    tg_json_free(doc);
    return rc;
}

int tg_text_each(const char *path, const char *text, size_t len, tg_text_fn fn, void *ud,
                 struct tg_err *err)
{
    int rc = TG_OK;
    size_t number = 0;
    for (const char *at = text, *end = text + len; at < end && rc == TG_OK;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        number++;
        if (strspn(at, " \t\r") < n)
            rc = one_line(at, n, number, path, fn, ud, err);
        at += n + (stop != NULL);
    }
    return rc;
}

/* Documents take at most as many bytes as their JSON: they are joined in its place. */
struct join {
    char *text;
    size_t len;
};

static int join_one(void *ud, const char *text, size_t len, struct tg_err *err)
{
    struct join *j = ud;
    (void)err;
    memcpy(j->text + j->len, text, len);
    j->len += len;
    return TG_OK;
}

int tg_text_read(const char *path, size_t max, char **text, size_t *len, struct tg_err *err)
{
    int rc = tg_text_read_raw(path, max, text, len, err);
    if (rc != TG_OK || !tg_text_is_jsonl(path))
        return rc;
    struct join j = {.text = *text};
    rc = tg_text_each(path, *text, *len, join_one, &j, err);
    if (rc == TG_OK && j.len == 0)
        rc = tg_fail(err, TG_ERR_VALUE, "%s: the text is empty", path);
    if (rc != TG_OK) {
        tg_free(*text);
        *text = NULL;
        return rc;
    }
    j.text[j.len] = '\0';
    *len = j.len;
    return TG_OK;
}
