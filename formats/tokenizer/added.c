/* Added tokens: those that are not normalised are found in the text as it is, the others after the
 * normalizer. Of the tokens that begin at a place the longest counts, as in HF tokenizers
 * (Aho-Corasick, leftmost-longest). */
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/pipeline.h"

static int load_one(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_added a = {0};
    const char *content;
    int64_t id;
    int rc = tg_json_get_int(o, "id", 0, TG_MAX_ID - 1, &id, err);
    if (rc == TG_OK)
        rc = tg_json_get_str(o, "content", &content, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(o, "special", &a.special, err);
    a.normalized = !a.special;
    const struct {
        const char *key;
        bool *to;
    } flags[] = {{"single_word", &a.single_word},
                 {"lstrip", &a.lstrip},
                 {"rstrip", &a.rstrip},
                 {"normalized", &a.normalized}};
    for (size_t i = 0; i < 4 && rc == TG_OK; i++)
        rc = tg_json_get_bool_or(o, flags[i].key, flags[i].to, err);
    if (rc != TG_OK)
        return rc;
    if (!*content)
        return tg_fail(err, TG_ERR_FORMAT, "%s: added_tokens: the token of id %lld is empty",
                       t->name, (long long)id);
    int32_t known = tg_strmap_find(&t->by_name, t->pool.data, content, strlen(content));
    if (known >= 0 && known != id)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: added_tokens: '%s' has id %lld here and id %d elsewhere", t->name,
                       content, (long long)id, (int)known);
    if (known < 0 && (rc = tg_token_add(t, content, strlen(content), id, err)) != TG_OK)
        return rc;
    a.id = (int32_t)id;
    return tg_added_push(t, a, err);
}

int tg_added_push(struct tg_tokenizer *t, struct tg_added a, struct tg_err *err)
{
    if (!tg_grow(&t->added, &t->added_cap, t->added_count + 1, sizeof *t->added))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    t->tokens[a.id].special = t->tokens[a.id].special || a.special;
    t->added[t->added_count++] = a;
    return TG_OK;
}

int tg_added_load(struct tg_tokenizer *t, struct tg_json list, struct tg_err *err)
{
    int rc = TG_OK;
    if (tg_json_has(list) && !tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: added_tokens is not an array", t->name);
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = load_one(t, c, err);
    return rc;
}

/* ---- the tries ---- */

/* A normalised token is decoded to its normalised text, and is then no longer the special one of
 * the list, as in HF tokenizers 0.23. */
static bool set_decoded(struct tg_tokenizer *t, struct tg_token *k, const struct tg_text *text)
{
    size_t at = t->pool.len;
    if (text->len == k->len && memcmp(text->data, t->pool.data + k->off, k->len) == 0)
        return true;
    if (at + text->len > UINT32_MAX || !tg_text_add(&t->pool, text->data, text->len))
        return false;
    *k = (struct tg_token){.off = (uint32_t)at, .len = (uint32_t)text->len, .used = true};
    return true;
}

/* Texts of the tokens of one trie. */
struct texts {
    struct tg_text all;       /* owned */
    struct tg_trie_key *keys; /* owned; s is an offset into `all` until all are there */
    size_t *begins;           /* owned */
    size_t count;
};

static int add_text(struct tg_tokenizer *t, int32_t i, struct tg_text *buf, struct texts *to,
                    struct tg_err *err)
{
    const struct tg_added *a = &t->added[i];
    const char *s = t->pool.data + t->tokens[a->id].off;
    size_t len = t->tokens[a->id].len, origin = 0;
    if (a->normalized && t->normalizer_count) {
        struct tg_regex_run run = {0};
        int rc = tg_normalizer_run(t, &run, s, len, &origin, buf, err);
        tg_regex_run_release(&run);
        if (rc != TG_OK)
            return rc;
        if (!set_decoded(t, &t->tokens[a->id], buf))
            return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
        s = buf->data;
        len = buf->len;
    }
    if (len == 0)
        return TG_OK; /* nothing of it is left to be found */
    to->begins[to->count] = to->all.len;
    to->keys[to->count++] = (struct tg_trie_key){NULL, len, i};
    return tg_text_add(&to->all, s, len) ? TG_OK
                                         : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
}

static int index_kind(struct tg_tokenizer *t, bool normalized, struct tg_matcher *m,
                      struct tg_err *err)
{
    struct tg_text buf = {0};
    struct texts k = {.keys = tg_alloc_array(t->added_count + 1, sizeof *k.keys),
                      .begins = tg_alloc_array(t->added_count + 1, sizeof *k.begins)};
    int rc = k.keys && k.begins ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (size_t i = 0; i < t->added_count && rc == TG_OK; i++)
        if (t->added[i].normalized == normalized)
            rc = add_text(t, (int32_t)i, &buf, &k, err);
    for (size_t i = 0; i < k.count && rc == TG_OK; i++) {
        k.keys[i].s = k.all.data + k.begins[i];
        m->first[(unsigned char)*k.keys[i].s] = true;
    }
    if (rc == TG_OK && !tg_trie_build(&m->trie, k.keys, k.count))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    tg_text_release(&buf);
    tg_text_release(&k.all);
    tg_free(k.keys);
    tg_free(k.begins);
    return rc;
}

/* Of two tokens of the same text the first counts; HF looks at special tokens first. */
static bool special_first(struct tg_tokenizer *t)
{
    struct tg_added *sorted = tg_alloc_array(t->added_count + 1, sizeof *sorted);
    size_t n = 0;
    if (!sorted)
        return false;
    for (int special = 1; special >= 0; special--)
        for (size_t i = 0; i < t->added_count; i++)
            if (t->added[i].special == special)
                sorted[n++] = t->added[i];
    tg_free(t->added);
    t->added = sorted;
    t->added_cap = t->added_count + 1;
    return true;
}

int tg_added_index(struct tg_tokenizer *t, struct tg_err *err)
{
    if (!special_first(t))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    int rc = index_kind(t, false, &t->raw, err);
    return rc == TG_OK ? index_kind(t, true, &t->normalized, err) : rc;
}

/* ---- matching ---- */

/* Alphabetic, marks, decimal digits, connectors, joiners. Alphabetic beyond
 * letters, letter numbers and marks is circled and squared Latin. */
bool tg_char_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
               (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
               (c >= 0x1F170 && c <= 0x1F189);
    }
}

/* Start of the character that ends at text[at], at > 0. */
static size_t char_before(const char *text, size_t at)
{
    do
        at--;
    while (at && ((unsigned char)text[at] & 0xC0) == 0x80);
    return at;
}

static bool stands_alone(const char *text, size_t len, size_t begin, size_t end)
{
    size_t n;
    return (begin == 0 || !tg_char_is_word(tg_char_at(text + char_before(text, begin), &n))) &&
           (end == len || !tg_char_is_word(tg_char_at(text + end, &n)));
}

static size_t spaces_before(const uint8_t *classes, const char *text, size_t at, size_t from)
{
    size_t n;
    while (at > from) {
        size_t c = char_before(text, at);
        if (!(classes[tg_char_at(text + c, &n)] & TG_CHAR_S))
            break;
        at = c;
    }
    return at;
}

static size_t spaces_after(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    size_t n;
    while (at < len && classes[tg_char_at(text + at, &n)] & TG_CHAR_S)
        at += n;
    return at;
}

int tg_added_split(struct tg_encoder *e, const struct tg_matcher *m, struct tg_piece whole,
                   tg_piece_fn piece)
{
    const uint8_t *classes = e->t->classes;
    const char *text = whole.text;
    size_t at = 0, done = 0, len = whole.len;
    int rc = TG_OK;
    while (m->trie.nodes && at < len) {
        int32_t found = -1;
        size_t n = m->first[(unsigned char)text[at]]
                       ? tg_trie_longest(&m->trie, text + at, len - at, &found)
                       : 0;
        if (n == 0) {
            at++;
            continue;
        }
        const struct tg_added *a = &e->t->added[found];
        size_t begin = at, end = at + n;
        at = end;
        if (a->single_word && !stands_alone(text, len, begin, end))
            continue;
        if (a->lstrip)
            begin = spaces_before(classes, text, begin, done);
        if (a->rstrip)
            end = spaces_after(classes, text, end, len);
        if (begin > done)
            rc = piece(e, tg_piece_part(whole, done, begin), -1);
        if (rc == TG_OK)
            rc = piece(e, tg_piece_part(whole, end, end), a->id);
        if (rc != TG_OK)
            return rc;
        done = end;
    }
    return done < len ? piece(e, tg_piece_part(whole, done, len), -1) : TG_OK;
}
