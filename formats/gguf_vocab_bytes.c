/* Byte-level BPE as the kind "gpt2" of a GGUF file: which of llama.cpp's pre-tokenizers cuts as
 * this one does. */
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "base/utf8.h"
#include "base/mem.h"
#include "formats/gguf_vocab_file.h"
#include "formats/tokenizer/byte_level.h"
#include "formats/tokenizer/splits.h"

struct patterns {
    struct tg_strbuf text[TG_SPLIT_PATTERNS + 1];
    size_t count;
};

/* A pattern in the spelling of splits.c: line ends as escapes, other characters as \x{...} */
static int add_pattern(const struct tg_vocab_out *o, struct patterns *p, const char *pattern,
                       struct tg_err *err)
{
    if (p->count > TG_SPLIT_PATTERNS)
        return tg_vocab_out_refuse(o, err, "pre_tokenizer", "so many patterns");
    struct tg_strbuf *to = &p->text[p->count++];
    for (size_t n; *pattern; pattern += n) {
        uint32_t c = (unsigned char)*pattern;
        n = c < 0x80 ? 1 : tg_utf8_decode(pattern, strlen(pattern), &c);
        if (n == 0)
            return tg_vocab_out_refuse(o, err, "pre_tokenizer.pattern", "bytes that are no UTF-8");
        if (c == '\r' || c == '\n')
            tg_strbuf_puts(to, c == '\r' ? "\\r" : "\\n");
        else if (c < 0x80)
            tg_strbuf_add(to, pattern, 1);
        else
            tg_strbuf_printf(to, "\\x{%04x}", (unsigned)c);
    }
    return TG_OK;
}

static int split_pattern(const struct tg_vocab_out *o, struct tg_json s, struct patterns *p,
                         struct tg_err *err)
{
    const struct tg_json pattern = tg_json_key(s, "pattern"), regex = tg_json_key(pattern, "Regex");
    const char *behavior = tg_json_string(tg_json_key(s, "behavior"));
    if (!tg_json_is_string(regex))
        return tg_vocab_out_refuse(o, err, "pre_tokenizer.pattern", "String");
    if (strcmp(behavior, "Isolated") != 0 || tg_json_bool(tg_json_key(s, "invert")))
        return tg_vocab_out_refuse(o, err, "pre_tokenizer.behavior", behavior);
    return add_pattern(o, p, tg_json_string(regex), err);
}

static int byte_level_pattern(const struct tg_vocab_out *o, struct tg_json s, struct patterns *p,
                              struct tg_err *err)
{
    bool prefix = true, use_regex = true;
    int rc = tg_json_get_bool_or(s, "add_prefix_space", &prefix, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(s, "use_regex", &use_regex, err);
    if (rc == TG_OK && prefix)
        rc = tg_vocab_out_refuse(o, err, "pre_tokenizer.add_prefix_space", "true");
    return rc == TG_OK && use_regex ? add_pattern(o, p, tg_gpt2_pattern, err) : rc;
}

static int collect(const struct tg_vocab_out *o, struct tg_json s, struct patterns *p,
                   struct tg_err *err)
{
    const char *type = tg_type_of(s);
    int rc = TG_OK;
    if (strcmp(type, "Split") == 0)
        return split_pattern(o, s, p, err);
    if (strcmp(type, "ByteLevel") == 0)
        return byte_level_pattern(o, s, p, err);
    if (strcmp(type, "Digits") == 0)
        return add_pattern(
            o, p, tg_json_bool(tg_json_key(s, "individual_digits")) ? "\\p{N}" : "\\p{N}+", err);
    if (strcmp(type, "Sequence") != 0)
        return tg_vocab_out_refuse(o, err, "pre_tokenizer.type", type);
    const struct tg_json list = tg_json_key(s, "pretokenizers");
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = collect(o, c, p, err);
    return rc;
}

static bool same_patterns(const struct tg_split *s, const struct patterns *p)
{
    for (size_t i = 0; i < TG_SPLIT_PATTERNS; i++) {
        const bool one = s->patterns[i] != NULL;
        if (one != (i < p->count) || (one && strcmp(s->patterns[i], p->text[i].text) != 0))
            return false;
    }
    return p->count <= TG_SPLIT_PATTERNS;
}

static int find_pre(struct tg_vocab_out *o, const struct patterns *p, struct tg_err *err)
{
    bool ignore = false;
    const struct tg_json model = tg_json_key(o->root, "model");
    int rc = tg_json_get_bool_or(model, "ignore_merges", &ignore, err);
    if (rc != TG_OK)
        return rc;
    for (const struct tg_split *s = tg_splits; s->name && !o->pre; s++)
        if (same_patterns(s, p) && s->ignore_merges == ignore)
            o->pre = s->name;
    if (o->pre)
        return TG_OK;
    struct tg_strbuf all;
    tg_strbuf_init(&all, 512);
    for (size_t i = 0; i < p->count; i++)
        tg_strbuf_printf(&all, "%s'%s'", i ? ", " : "", p->text[i].text);
    rc = tg_fail(err, TG_ERR_UNSUPPORTED,
                 "%s: pre_tokenizer: no pre-tokenizer of llama.cpp is known that cuts text as %s "
                 "with ignore_merges %s does, and another would give other tokens",
                 o->t->name, p->count ? all.text : "no pattern", ignore ? "true" : "false");
    tg_strbuf_release(&all);
    return rc;
}

/* Engines leave a byte without a token in its place, where it keeps others from merging. */
static int check_bytes(const struct tg_vocab_out *o, struct tg_err *err)
{
    bool has[256] = {false};
    char value[8];
    for (size_t id = 0; id < o->t->vocab; id++) {
        const struct tg_token *k = &o->t->tokens[id];
        uint32_t c;
        if (k->used && tg_utf8_decode(o->t->pool.data + k->off, k->len, &c) == k->len &&
            tg_byte_of_char(c) >= 0)
            has[tg_byte_of_char(c)] = true;
    }
    for (unsigned b = 0; b < 0xF5; b++) /* no UTF-8 has the others */
        if (!has[b] && b != 0xC0 && b != 0xC1) {
            snprintf(value, sizeof value, "0x%02X", b);
            return tg_vocab_out_refuse(o, err, "model.vocab without a token for the byte", value);
        }
    return TG_OK;
}

/* "a b", in their order */
static int put_merges(struct tg_vocab_out *o, struct tg_err *err)
{
    const struct tg_json list = tg_json_key(tg_json_key(o->root, "model"), "merges");
    const size_t count = tg_json_count(list);
    struct tg_gguf_string *merges =
        tg_gguf_own(o->keys, tg_alloc_array(count ? count : 1, sizeof *merges));
    struct tg_strbuf text;
    size_t i = 0;
    int rc = TG_OK;
    tg_strbuf_init(&text, SIZE_MAX / 2);
    for (struct tg_json m = tg_json_first(list); merges && m.node && rc == TG_OK;
         m = tg_json_next(m), i++) {
        const struct tg_json a = tg_json_first(m);
        const size_t from = text.len;
        tg_strbuf_puts(&text, tg_json_string(tg_json_is_string(m) ? m : a));
        if (!tg_json_is_string(m)) {
            tg_strbuf_puts(&text, " ");
            tg_strbuf_puts(&text, tg_json_string(tg_json_next(a)));
        }
        merges[i].len = text.len - from;
        if (!text.failed && memchr(text.text + from, ' ', merges[i].len) !=
                                memrchr(text.text + from, ' ', merges[i].len))
            rc = tg_vocab_out_refuse(o, err, "model.merges with a space in a token",
                                     text.text + from);
    }
    const char *at = tg_gguf_own(o->keys, tg_strbuf_take(&text));
    for (i = 0; at && merges && i < count; i++) {
        merges[i].text = at;
        at += merges[i].len;
    }
    tg_strbuf_release(&text);
    if (rc == TG_OK && at && merges)
        tg_gguf_put(o->keys, "tokenizer.ggml.merges", tg_gguf_array(TG_GGUF_STRING, merges, count));
    return rc;
}

/* Of normal forms NFC alone is passed over, as llama.cpp's own converter does. */
static int check_normalizer(const struct tg_vocab_out *o, struct tg_json n, struct tg_err *err)
{
    const char *type = tg_type_of(n);
    int rc = TG_OK;
    if (!tg_json_has(n) || strcmp(type, "NFC") == 0)
        return TG_OK;
    if (strcmp(type, "Sequence") != 0)
        return tg_vocab_out_refuse(o, err, "normalizer", type);
    const struct tg_json list = tg_json_key(n, "normalizers");
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = check_normalizer(o, c, err);
    return rc;
}

int tg_vocab_out_bytes(struct tg_vocab_out *o, struct tg_err *err)
{
    struct patterns p = {.count = 0};
    for (size_t i = 0; i <= TG_SPLIT_PATTERNS; i++)
        tg_strbuf_init(&p.text[i], 1 << 16);
    int rc = check_normalizer(o, tg_json_key(o->root, "normalizer"), err);
    if (rc == TG_OK)
        rc = collect(o, tg_json_key(o->root, "pre_tokenizer"), &p, err);
    for (size_t i = 0; i < p.count && rc == TG_OK; i++)
        if (p.text[i].failed)
            rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->t->name);
    if (rc == TG_OK)
        rc = find_pre(o, &p, err);
    if (rc == TG_OK)
        rc = check_bytes(o, err);
    if (rc == TG_OK && strcmp(tg_type_of(tg_json_key(o->root, "decoder")), "ByteLevel") != 0)
        rc = tg_vocab_out_refuse(o, err, "decoder", tg_type_of(tg_json_key(o->root, "decoder")));
    if (rc == TG_OK)
        rc = tg_vocab_out_added(o, err);
    if (rc == TG_OK)
        rc = put_merges(o, err);
    for (size_t i = 0; i <= TG_SPLIT_PATTERNS; i++)
        tg_strbuf_release(&p.text[i]);
    return rc;
}
