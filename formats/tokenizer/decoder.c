/* Decoders: steps over the list of token strings; what is left at the end is joined. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/byte_level.h"
#include "formats/tokenizer/pipeline.h"

bool tg_pieces_add(struct tg_pieces *p, const char *s, size_t n)
{
    if (!tg_text_add(&p->text, s, n) || !tg_grow(&p->ends, &p->cap, p->count + 1, sizeof *p->ends))
        return false;
    p->ends[p->count++] = p->text.len;
    return true;
}

void tg_pieces_release(struct tg_pieces *p)
{
    tg_text_release(&p->text);
    tg_free(p->ends);
    *p = (struct tg_pieces){0};
}

/* A token whose every character stands for a byte becomes those bytes, any other stays as it is.
 * Shrinks in place: no character is shorter than its byte. */
static size_t token_bytes(char *to, const char *s, size_t n)
{
    size_t len = 0, step;
    for (size_t i = 0; i < n; i += step)
        if (tg_byte_of_char(tg_char_at(s + i, &step)) < 0) {
            memmove(to, s, n);
            return n;
        }
    for (size_t i = 0; i < n; i += step)
        to[len++] = (char)tg_byte_of_char(tg_char_at(s + i, &step));
    return len;
}

/* Length of the valid sequence at s, or 0 and in *skip how many bytes one U+FFFD stands for: the
 * longest beginning of a valid sequence, at least one byte (Unicode 3.9, table 3-7; Rust's
 * String::from_utf8_lossy). */
static size_t valid_sequence(const unsigned char *s, size_t n, size_t *skip)
{
    unsigned char lo = 0x80, hi = 0xBF;
    size_t len = s[0] < 0x80                   ? 1
                 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                               : 0;
    *skip = 1;
    if (len == 0)
        return 0;
    if (s[0] == 0xE0)
        lo = 0xA0;
    else if (s[0] == 0xF0)
        lo = 0x90;
    else if (s[0] == 0xED)
        hi = 0x9F;
    else if (s[0] == 0xF4)
        hi = 0x8F;
    for (size_t i = 1; i < len; i++) {
        *skip = i;
        if (i >= n || s[i] < lo || s[i] > hi)
            return 0;
        lo = 0x80, hi = 0xBF;
    }
    return len;
}

size_t tg_char_length(const char *s, size_t n)
{
    size_t skip;
    return valid_sequence((const unsigned char *)s, n, &skip);
}

static bool add_lossy(struct tg_text *out, const char *text, size_t len)
{
    size_t done = 0, at = 0, skip;
    while (at < len) {
        size_t n = valid_sequence((const unsigned char *)text + at, len - at, &skip);
        at += n;
        if (n)
            continue;
        if (!tg_text_add(out, text + done, at - done) || !tg_text_add(out, "\xEF\xBF\xBD", 3))
            return false;
        done = at += skip;
    }
    return tg_text_add(out, text + done, len - done);
}

/* What a decoder has made takes the place of what it was given. */
static int replaced(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_pieces *out,
                    bool ok, struct tg_err *err)
{
    if (!ok) {
        tg_pieces_release(out);
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    }
    tg_pieces_release(p);
    *p = *out;
    return TG_OK;
}

/* All tokens become one text. */
int tg_decode_byte_level(const struct tg_tokenizer *t, const struct tg_decoder *d,
                         struct tg_pieces *p, struct tg_err *err)
{
    struct tg_pieces out = {0};
    size_t from = 0, len = 0;
    (void)d;
    for (size_t i = 0; i < p->count; i++) {
        len += token_bytes(p->text.data + len, p->text.data + from, p->ends[i] - from);
        from = p->ends[i];
    }
    bool ok = add_lossy(&out.text, p->text.data, len) && tg_pieces_add(&out, "", 0);
    return replaced(t, p, &out, ok, err);
}

int tg_decode_fuse(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                   struct tg_err *err)
{
    (void)d;
    if (p->count == 0)
        return tg_pieces_add(p, "", 0) ? TG_OK
                                       : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    p->ends[0] = p->text.len;
    p->count = 1;
    return TG_OK;
}

int tg_decode_replace(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                      struct tg_err *err)
{
    struct tg_pieces out = {0};
    struct tg_regex_run run = {0};
    size_t from = 0;
    int rc = TG_OK;
    bool ok = true;
    for (size_t i = 0; i < p->count && ok && rc == TG_OK; from = p->ends[i++]) {
        rc = tg_replace_run(&d->replace, &run, p->text.data + from, p->ends[i] - from, &out.text,
                            NULL, false, t->name, err);
        ok = rc != TG_OK || tg_pieces_add(&out, "", 0);
    }
    tg_regex_run_release(&run);
    if (rc != TG_OK) {
        tg_pieces_release(&out);
        return rc;
    }
    return replaced(t, p, &out, ok, err);
}

/* The byte of a token like "<0x0A>", or -1. */
int tg_byte_of_token(const char *s, size_t n)
{
    int byte = 0;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        /* Rust's parser takes a sign before one digit. */
        if (digit < 0 && !(i == 3 && c == '+'))
            return -1;
        byte = byte * 16 + (digit < 0 ? 0 : digit);
    }
    return byte;
}

/* Bytes that are waiting: their text, or one U+FFFD for each of them. */
static bool add_bytes(struct tg_pieces *out, const char *bytes, size_t n)
{
    bool ok = true;
    if (n && tg_utf8_check(bytes, n) == n)
        return tg_pieces_add(out, bytes, n);
    for (size_t i = 0; i < n && ok; i++)
        ok = tg_pieces_add(out, "\xEF\xBF\xBD", 3);
    return ok;
}

int tg_decode_bytes(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                    struct tg_err *err)
{
    struct tg_pieces out = {0};
    struct tg_text waiting = {0};
    size_t from = 0;
    bool ok = true;
    (void)d;
    for (size_t i = 0; i < p->count && ok; from = p->ends[i++]) {
        const char *s = p->text.data + from;
        int byte = tg_byte_of_token(s, p->ends[i] - from);
        if (byte >= 0) {
            ok = tg_text_add(&waiting, (char[]){(char)byte}, 1);
            continue;
        }
        ok =
            add_bytes(&out, waiting.data, waiting.len) && tg_pieces_add(&out, s, p->ends[i] - from);
        waiting.len = 0;
    }
    ok = ok && add_bytes(&out, waiting.data, waiting.len);
    tg_text_release(&waiting);
    return replaced(t, p, &out, ok, err);
}

/* Up to `start` and `stop` characters `content` fall off the ends of each token. */
int tg_decode_strip(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                    struct tg_err *err)
{
    struct tg_pieces out = {0};
    size_t from = 0, k = strlen(d->content);
    bool ok = true;
    for (size_t i = 0; i < p->count && ok; from = p->ends[i++]) {
        const char *s = p->text.data + from;
        size_t n = p->ends[i] - from, begin = 0;
        for (size_t j = 0; j < d->start && n - begin >= k && !memcmp(s + begin, d->content, k); j++)
            begin += k;
        for (size_t j = 0; j < d->stop && n - begin >= k && !memcmp(s + n - k, d->content, k); j++)
            n -= k;
        ok = tg_pieces_add(&out, s + begin, n - begin);
    }
    return replaced(t, p, &out, ok, err);
}

/* The mark becomes a space, in the first token nothing if a mark was put before the text. */
static int decode_metaspace(const struct tg_tokenizer *t, const struct tg_decoder *d,
                            struct tg_pieces *p, struct tg_err *err)
{
    struct tg_pieces out = {0};
    size_t from = 0, k = strlen(d->content);
    bool ok = true;
    for (size_t i = 0; i < p->count && ok; from = p->ends[i++]) {
        const char *s = p->text.data + from;
        size_t n = p->ends[i] - from, step;
        for (size_t j = 0; j < n && ok; j += step) {
            step = n - j >= k && memcmp(s + j, d->content, k) == 0 ? k : 1;
            if (step < k || (k == 1 && s[j] != d->content[0]))
                ok = tg_text_add(&out.text, s + j, 1);
            else if (i || !d->drop_first)
                ok = tg_text_add(&out.text, " ", 1);
        }
        ok = ok && tg_pieces_add(&out, "", 0);
    }
    return replaced(t, p, &out, ok, err);
}

/* ---- loading ---- */

static int load_plain(struct tg_tokenizer *t, struct tg_decoder *d, struct tg_json o,
                      struct tg_err *err)
{
    (void)t, (void)d, (void)o, (void)err;
    return TG_OK;
}

static int load_replace(struct tg_tokenizer *t, struct tg_decoder *d, struct tg_json o,
                        struct tg_err *err)
{
    return tg_replace_load(&d->replace, o, t->name, err);
}

static int load_strip(struct tg_tokenizer *t, struct tg_decoder *d, struct tg_json o,
                      struct tg_err *err)
{
    int64_t start = 0, stop = 0;
    uint32_t c;
    (void)t;
    int rc = tg_char_of(o, "content", d->content, &c, err);
    if (rc == TG_OK)
        rc = tg_json_get_int(o, "start", 0, INT32_MAX, &start, err);
    if (rc == TG_OK)
        rc = tg_json_get_int(o, "stop", 0, INT32_MAX, &stop, err);
    d->start = (size_t)start;
    d->stop = (size_t)stop;
    return rc;
}

static int load_metaspace(struct tg_tokenizer *t, struct tg_decoder *d, struct tg_json o,
                          struct tg_err *err)
{
    enum tg_prepend scheme = TG_PREPEND_ALWAYS;
    uint32_t c;
    (void)t;
    int rc = tg_char_of(o, "replacement", d->content, &c, err);
    if (rc == TG_OK)
        rc = tg_prepend_scheme(o, &scheme, err);
    d->drop_first = scheme != TG_PREPEND_NEVER;
    return rc;
}

int tg_decoder_new(struct tg_tokenizer *t, struct tg_decoder **d, struct tg_err *err)
{
    if (t->decoder_count == TG_MAX_STEPS)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: more than %d decoders", t->name, TG_MAX_STEPS);
    *d = &t->decoders[t->decoder_count++];
    **d = (struct tg_decoder){0};
    return TG_OK;
}

static int load_sequence(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_json list = tg_json_key(o, "decoders");
    int rc = TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: decoder.decoders is not an array", t->name);
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = tg_decoder_load(t, c, err);
    return rc;
}

int tg_decoder_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    static const struct {
        const char *type;
        int (*run)(const struct tg_tokenizer *, const struct tg_decoder *, struct tg_pieces *,
                   struct tg_err *);
        int (*load)(struct tg_tokenizer *, struct tg_decoder *, struct tg_json, struct tg_err *);
    } known[] = {
        {"ByteLevel", tg_decode_byte_level, load_plain},
        {"Fuse", tg_decode_fuse, load_plain},
        {"ByteFallback", tg_decode_bytes, load_plain},
        {"Replace", tg_decode_replace, load_replace},
        {"Strip", tg_decode_strip, load_strip},
        {"Metaspace", decode_metaspace, load_metaspace},
    };
    const char *type = tg_type_of(o);
    struct tg_decoder *d = NULL;
    if (!tg_json_has(o))
        return TG_OK;
    if (strcmp(type, "Sequence") == 0)
        return load_sequence(t, o, err);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(type, known[i].type) != 0)
            continue;
        int rc = tg_decoder_new(t, &d, err);
        if (rc != TG_OK)
            return rc;
        d->run = known[i].run;
        return known[i].load(t, d, o, err);
    }
    return tg_unsupported(t, err, "decoder.type", type);
}

int tg_decoder_run(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err)
{
    int rc = TG_OK;
    for (size_t i = 0; i < t->decoder_count && rc == TG_OK; i++)
        rc = t->decoders[i].run(t, &t->decoders[i], p, err);
    return rc;
}
