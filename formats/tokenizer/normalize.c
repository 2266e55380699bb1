/* Normalizers: the four Unicode forms, through utf8proc, and sequences of them. */
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "formats/tokenizer/pipeline.h"

static const struct {
    const char *type;
    int options;
} forms[] = {
    {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

int tg_normalizer_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    const char *type = tg_type_of(o);
    if (!tg_json_has(o))
        return TG_OK;
    if (strcmp(type, "Sequence") == 0) {
        struct tg_json list = tg_json_key(o, "normalizers");
        if (!tg_json_is_array(list))
            return tg_fail(err, TG_ERR_FORMAT, "%s: normalizer.normalizers is not an array",
                           t->name);
        for (struct tg_json c = tg_json_first(list); c.node; c = tg_json_next(c)) {
            int rc = tg_normalizer_load(t, c, err);
            if (rc != TG_OK)
                return rc;
        }
        return TG_OK;
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(type, forms[i].type) != 0)
            continue;
        if (t->normalizer_count == TG_MAX_STEPS)
            return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: more than %d normalizers", t->name,
                           TG_MAX_STEPS);
        t->normalizers[t->normalizer_count++].options = forms[i].options;
        return TG_OK;
    }
    return tg_unsupported(t, err, "normalizer.type", type);
}

/* Characters that stay as they are in NFC unless a mark or jamo outside these ranges follows:
 * nothing here composes with what stands before it, and none has a decomposition that NFC keeps. */
static bool plain_in_nfc(uint32_t c)
{
    return c < 0x300 || (c >= 0x400 && c < 0x483) || (c >= 0x2010 && c < 0x2060) ||
           (c >= 0x3041 && c < 0x3097) || (c >= 0x30A1 && c < 0x30FB) ||
           (c >= 0x4E00 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7A4);
}

/* One piece through utf8proc. */
static int normalize_piece(const char *text, size_t len, int options, struct tg_text *out,
                           struct tg_err *err)
{
    utf8proc_option_t how = (utf8proc_option_t)options;
    utf8proc_ssize_t n =
        utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, NULL, 0, how);
    utf8proc_int32_t *buf = n < 0 ? NULL : tg_alloc_array((size_t)n + 1, sizeof *buf);
    bool ok = buf != NULL;
    if (ok) {
        n = utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, buf, n, how);
        n = n < 0 ? n : utf8proc_reencode(buf, n, how);
        ok = n >= 0 && tg_text_add(out, (const char *)buf, (size_t)n);
    }
    tg_free(buf);
    if (ok)
        return TG_OK;
    return n < 0 ? tg_fail(err, TG_ERR_FORMAT, "normalizer: %s", utf8proc_errmsg(n))
                 : tg_fail(err, TG_ERR_NOMEM, "normalizer: out of memory");
}

/* ASCII is a boundary in every form: it decomposes into itself and composes with nothing before it.
 * So text is cut into runs of other characters, each with the ASCII character before it, and only
 * runs that need it are normalised. */
static int run_form(const char *text, size_t len, int options, struct tg_text *out,
                    struct tg_err *err)
{
    bool composes = options == forms[0].options;
    size_t at = 0, done = 0;
    while (at < len) {
        if (!((unsigned char)text[at] & 0x80)) {
            at++;
            continue;
        }
        size_t begin = at ? at - 1 : 0, n;
        bool plain = composes;
        while (at < len && (unsigned char)text[at] & 0x80) {
            plain = plain && plain_in_nfc(tg_char_at(text + at, &n));
            at += plain ? n : 1;
        }
        if (plain)
            continue;
        begin = begin < done ? done : begin;
        if (!tg_text_add(out, text + done, begin - done))
            return tg_fail(err, TG_ERR_NOMEM, "normalizer: out of memory");
        int rc = normalize_piece(text + begin, at - begin, options, out, err);
        if (rc != TG_OK)
            return rc;
        done = at;
    }
    if (!tg_text_add(out, text + done, len - done))
        return tg_fail(err, TG_ERR_NOMEM, "normalizer: out of memory");
    return TG_OK;
}

int tg_normalizer_run(const struct tg_tokenizer *t, const char *text, size_t len,
                      struct tg_text *out, struct tg_err *err)
{
    struct tg_text next = {0};
    int rc = TG_OK;
    out->len = 0;
    for (size_t i = 0; i < t->normalizer_count && rc == TG_OK; i++) {
        next.len = 0;
        rc = run_form(i ? out->data : text, i ? out->len : len, t->normalizers[i].options, &next,
                      err);
        struct tg_text old = *out;
        *out = next;
        next = old;
    }
    tg_text_release(&next);
    return rc;
}
