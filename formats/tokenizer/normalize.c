/* Normalizers: Unicode forms and case through utf8proc, replacements, SentencePiece's maps of
 * characters, and sequences of them. */
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/charsmap.h"
#include "formats/tokenizer/pipeline.h"
#include "formats/tokenizer/sentencepiece.h"

static int out_of_memory(struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "normalizer: out of memory");
}

/* Length of the first character of text[0..len). */
static size_t first_char(const char *text, size_t len)
{
    size_t n = 0;
    if (len)
        tg_char_at(text, &n);
    return n;
}

/* ---- Unicode forms ---- */

static const struct {
    const char *type;
    int options;
} forms[] = {
    {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

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
                 : out_of_memory(err);
}

/* ASCII is a boundary in every form: it decomposes into itself and composes with nothing before it.
 * So text is cut into runs of other characters, each with the ASCII character before it, and only
 * runs that need it are normalised. Characters that HF's forms do not know cut runs too. */
static int run_form(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    const char *text = w->text;
    const uint8_t *classes = w->t->classes;
    bool composes = f->options == forms[0].options;
    size_t at = 0, begin = 0, done = 0, len = w->len, from = w->out->len, n = 0;
    while (at < len) {
        if (!((unsigned char)text[at] & 0x80)) {
            begin = at++;
            continue;
        }
        bool plain = composes;
        for (; at < len && (unsigned char)text[at] & 0x80; at += n) {
            uint32_t c = tg_char_at(text + at, &n);
            if (classes[c] & TG_CHAR_U)
                break;
            plain = plain && plain_in_nfc(c);
        }
        if (!plain && at > begin) {
            if (!tg_text_add(w->out, text + done, begin - done))
                return out_of_memory(w->err);
            int rc = normalize_piece(text + begin, at - begin, f->options, w->out, w->err);
            if (rc != TG_OK)
                return rc;
            done = at;
        }
        if (at < len && (unsigned char)text[at] & 0x80)
            at += n; /* the unknown one */
        begin = at;
    }
    if (!tg_text_add(w->out, text + done, len - done))
        return out_of_memory(w->err);
    if (w->origin)
        w->origin = first_char(w->out->data + from, w->out->len - from);
    return TG_OK;
}

/* ---- one character at a time ---- */

/* The only character whose lower case is two. */
enum { CAPITAL_I_WITH_DOT = 0x130 };

static int run_lowercase(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    (void)f;
    size_t from = w->out->len, origin = w->origin, n;
    for (size_t i = 0; i < w->len; i += n) {
        uint32_t c = tg_char_at(w->text + i, &n);
        char s[4];
        size_t k = tg_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), s);
        bool ok = c == CAPITAL_I_WITH_DOT ? tg_text_add(w->out, "i\xCC\x87", 3)
                                          : tg_text_add(w->out, s, k);
        if (!ok)
            return out_of_memory(w->err);
        if (i + n <= origin)
            w->origin = w->out->len - from;
    }
    return TG_OK;
}

/* All marks, not only accents. */
static int run_strip_accents(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    (void)f;
    size_t from = w->out->len, origin = w->origin, n;
    w->origin = 0;
    for (size_t i = 0; i < w->len; i += n) {
        if (w->t->classes[tg_char_at(w->text + i, &n)] & TG_CHAR_A)
            continue;
        if (!tg_text_add(w->out, w->text + i, n))
            return out_of_memory(w->err);
        if (i + n <= origin)
            w->origin = w->out->len - from;
    }
    return TG_OK;
}

static int run_strip(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    const uint8_t *classes = w->t->classes;
    size_t begin = 0, end = 0, n;
    bool leading = f->left;
    for (size_t i = 0; i < w->len; i += n) {
        bool space = classes[tg_char_at(w->text + i, &n)] & TG_CHAR_S;
        leading = leading && space;
        begin = leading ? i + n : begin;
        end = space && f->right ? end : i + n;
    }
    end = end < begin ? begin : end;
    w->origin = w->origin > begin ? w->origin - begin : 0;
    return tg_text_add(w->out, w->text + begin, end - begin) ? TG_OK : out_of_memory(w->err);
}

static int run_prepend(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    size_t n = strlen(f->prepend);
    if (w->len == 0)
        return TG_OK;
    w->origin = w->origin ? n + w->origin : 0;
    return tg_text_add(w->out, f->prepend, n) && tg_text_add(w->out, w->text, w->len)
               ? TG_OK
               : out_of_memory(w->err);
}

static int run_replace(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    return tg_replace_run(&f->replace, w->regex_run, w->text, w->len, w->out, &w->origin, w->whole,
                          w->t->name, w->err);
}

/* ---- Precompiled ---- */

/* End of the grapheme cluster at `at`. */
static size_t grapheme_end(const char *text, size_t at, size_t len)
{
    utf8proc_int32_t state = 0;
    size_t n;
    uint32_t c = tg_char_at(text + at, &n);
    for (at += n; at < len; at += n) {
        uint32_t next = tg_char_at(text + at, &n);
        bool ends = c < 0x80 && next < 0x80
                        ? c != '\r' || next != '\n'
                        : utf8proc_grapheme_break_stateful((utf8proc_int32_t)c,
                                                           (utf8proc_int32_t)next, &state);
        if (ends)
            break;
        c = next;
    }
    return at;
}

/* Adds text[0..len), or what the map has for its beginning. */
static bool add_mapped(const struct tg_charsmap *map, const char *text, size_t len,
                       struct tg_text *out, bool *found)
{
    const char *to;
    size_t to_len;
    *found = tg_charsmap_match(map, text, len, false, &to, &to_len) > 0;
    return *found ? tg_text_add(out, to, to_len) : true;
}

/* As HF does it: a grapheme cluster below six bytes is replaced as a whole if a rule matches its
 * beginning; otherwise each character is looked up, and the shortest rule counts. */
static int run_precompiled(const struct tg_normalizer *f, struct tg_normal_work *w)
{
    size_t from = w->out->len, origin = w->origin;
    bool found, ok = true;
    w->origin = 0;
    for (size_t at = 0, end, n; at < w->len && ok; at = end) {
        end = grapheme_end(w->text, at, w->len);
        found = false;
        if (end - at < 6)
            ok = add_mapped(f->map, w->text + at, end - at, w->out, &found);
        for (size_t i = found ? end : at; ok && i < end; i += n) {
            tg_char_at(w->text + i, &n);
            ok = add_mapped(f->map, w->text + i, n, w->out, &found);
            ok = ok && (found || tg_text_add(w->out, w->text + i, n));
        }
        if (at == 0 && origin)
            w->origin = first_char(w->out->data + from, w->out->len - from);
    }
    return ok ? TG_OK : out_of_memory(w->err);
}

/* ---- loading ---- */

int tg_normalizer_new(struct tg_tokenizer *t, struct tg_normalizer **n, struct tg_err *err)
{
    if (t->normalizer_count == TG_MAX_STEPS)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: more than %d normalizers", t->name,
                       TG_MAX_STEPS);
    *n = &t->normalizers[t->normalizer_count++];
    **n = (struct tg_normalizer){0};
    return TG_OK;
}

static int load_replace(struct tg_tokenizer *t, struct tg_normalizer *n, struct tg_json o,
                        struct tg_err *err)
{
    n->run = run_replace;
    return tg_replace_load(&n->replace, o, t->name, err);
}

static int load_prepend(struct tg_tokenizer *t, struct tg_normalizer *n, struct tg_json o,
                        struct tg_err *err)
{
    const char *s;
    int rc = tg_json_get_str(o, "prepend", &s, err);
    return rc == TG_OK ? tg_normalizer_set_prepend(t, n, s, err) : rc;
}

int tg_normalizer_set_prepend(struct tg_tokenizer *t, struct tg_normalizer *n, const char *s,
                              struct tg_err *err)
{
    n->run = run_prepend;
    n->prepend = tg_strdup(s);
    return n->prepend ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
}

int tg_normalizer_set_replace(struct tg_tokenizer *t, struct tg_normalizer *n, const char *literal,
                              const char *content, struct tg_err *err)
{
    n->run = run_replace;
    return tg_replace_set(&n->replace, literal, content, t->name, err);
}

static int load_strip(struct tg_tokenizer *t, struct tg_normalizer *n, struct tg_json o,
                      struct tg_err *err)
{
    (void)t;
    n->run = run_strip;
    int rc = tg_json_get_bool_or(o, "strip_left", &n->left, err);
    return rc == TG_OK ? tg_json_get_bool_or(o, "strip_right", &n->right, err) : rc;
}

static int load_lowercase(struct tg_tokenizer *t, struct tg_normalizer *n, struct tg_json o,
                          struct tg_err *err)
{
    (void)t, (void)o, (void)err;
    n->run = run_lowercase;
    return TG_OK;
}

static int load_strip_accents(struct tg_tokenizer *t, struct tg_normalizer *n, struct tg_json o,
                              struct tg_err *err)
{
    (void)t, (void)o, (void)err;
    n->run = run_strip_accents;
    return TG_OK;
}

static int load_precompiled(struct tg_tokenizer *t, struct tg_normalizer *n, struct tg_json o,
                            struct tg_err *err)
{
    const char *base64;
    n->run = run_precompiled;
    int rc = tg_json_get_str(o, "precompiled_charsmap", &base64, err);
    return rc == TG_OK ? tg_charsmap_parse(&n->map, base64, t->name, err) : rc;
}

static int load_sequence(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_json list = tg_json_key(o, "normalizers");
    int rc = TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: normalizer.normalizers is not an array", t->name);
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = tg_normalizer_load(t, c, err);
    return rc;
}

int tg_normalizer_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    static const struct {
        const char *type;
        int (*load)(struct tg_tokenizer *, struct tg_normalizer *, struct tg_json, struct tg_err *);
    } known[] = {
        {"Replace", load_replace},
        {"Prepend", load_prepend},
        {"Strip", load_strip},
        {"Lowercase", load_lowercase},
        {"Precompiled", load_precompiled},
        {"StripAccents", load_strip_accents},
    };
    const char *type = tg_type_of(o);
    struct tg_normalizer *n = NULL;
    if (!tg_json_has(o))
        return TG_OK;
    if (strcmp(type, "Sequence") == 0)
        return load_sequence(t, o, err);
    int rc = tg_normalizer_new(t, &n, err);
    if (rc != TG_OK)
        return rc;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (strcmp(type, forms[i].type) == 0) {
            n->run = run_form;
            n->options = forms[i].options;
            return TG_OK;
        }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(type, known[i].type) == 0)
            return known[i].load(t, n, o, err);
    return tg_unsupported(t, err, "normalizer.type", type);
}

void tg_normalizer_release(struct tg_normalizer *n)
{
    tg_free(n->prepend);
    tg_replace_release(&n->replace);
    tg_charsmap_free(n->map);
    tg_sentencepiece_spec_free(n->spec);
}

int tg_normalizer_run(const struct tg_tokenizer *t, struct tg_regex_run *run, const char *text,
                      size_t len, size_t *origin, struct tg_text *out, struct tg_err *err)
{
    struct tg_text next = {0};
    struct tg_normal_work w = {t, run, text, len, *origin, *origin > 0, &next, err};
    int rc = TG_OK;
    out->len = 0;
    for (size_t i = 0; i < t->normalizer_count && rc == TG_OK; i++) {
        next.len = 0;
        w.text = i ? out->data : text;
        w.len = i ? out->len : len;
        rc = t->normalizers[i].run(&t->normalizers[i], &w);
        struct tg_text old = *out;
        *out = next;
        next = old;
    }
    tg_text_release(&next);
    *origin = w.origin;
    return rc;
}
