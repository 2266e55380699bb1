/* Decoders: steps over the list of token strings; what is left at the end is joined. */
#include <string.h>

#include "base/mem.h"
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

/* All tokens become one text. */
static int decode_byte_level(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err)
{
    struct tg_pieces out = {0};
    size_t from = 0, len = 0;
    for (size_t i = 0; i < p->count; i++) {
        len += token_bytes(p->text.data + len, p->text.data + from, p->ends[i] - from);
        from = p->ends[i];
    }
    if (!add_lossy(&out.text, p->text.data, len) || !tg_pieces_add(&out, "", 0)) {
        tg_pieces_release(&out);
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    }
    tg_pieces_release(p);
    *p = out;
    return TG_OK;
}

static int decode_fuse(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err)
{
    (void)t, (void)err;
    if (p->count) {
        p->ends[0] = p->text.len;
        p->count = 1;
    }
    return TG_OK;
}

int tg_decoder_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    static const struct {
        const char *type;
        tg_decoder_fn run;
    } known[] = {{"ByteLevel", decode_byte_level}, {"Fuse", decode_fuse}};
    const char *type = tg_type_of(o);
    int rc = TG_OK;
    if (!tg_json_has(o))
        return TG_OK;
    if (strcmp(type, "Sequence") == 0) {
        struct tg_json list = tg_json_key(o, "decoders");
        if (!tg_json_is_array(list))
            return tg_fail(err, TG_ERR_FORMAT, "%s: decoder.decoders is not an array", t->name);
        for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
            rc = tg_decoder_load(t, c, err);
        return rc;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(type, known[i].type) != 0)
            continue;
        if (t->decoder_count == TG_MAX_STEPS)
            return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: more than %d decoders", t->name,
                           TG_MAX_STEPS);
        t->decoders[t->decoder_count++] = known[i].run;
        return TG_OK;
    }
    return tg_unsupported(t, err, "decoder.type", type);
}

int tg_decoder_run(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err)
{
    int rc = TG_OK;
    for (size_t i = 0; i < t->decoder_count && rc == TG_OK; i++)
        rc = t->decoders[i](t, p, err);
    return rc;
}
