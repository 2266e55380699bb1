/* Pre-tokenizers: how text is cut into the words that the model sees. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/pipeline.h"

/* A stretch of text, and whether the pattern matched it. */
struct span {
    size_t begin, end;
    bool match;
};
struct spans {
    struct span *list;
    size_t count, cap;
};

static int out_of_memory(struct tg_encoder *e)
{
    return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
}

/* ---- matches ---- */

/* The next character that the step's pattern is. */
static int next_char(struct tg_encoder *e, const struct tg_pretok *s, struct tg_piece p,
                     struct tg_regex_walk *walk, size_t *begin, size_t *end)
{
    for (size_t at = walk->from, n; at < p.len; at += n) {
        uint32_t c = tg_char_at(p.text + at, &n);
        if (!(e->t->classes[c] & s->classes) && c != s->delimiter)
            continue;
        *begin = at;
        *end = walk->from = at + n;
        return 1;
    }
    return 0;
}

/* The next match: 1 found, 0 none, negative on error. */
static int next_match(struct tg_encoder *e, const struct tg_pretok *s, struct tg_piece p,
                      struct tg_regex_walk *walk, size_t *begin, size_t *end)
{
    if (s->by_char)
        return next_char(e, s, p, walk, begin, end);
    if (!s->scan)
        return tg_regex_next(s->regex, &e->regex_run, p.text, p.len, walk, begin, end, e->err);
    if (walk->from >= p.len)
        return 0;
    *begin = walk->from;
    *end = walk->from = s->scan(e->t->classes, p.text, walk->from, p.len);
    return 1;
}

/* Isolated and Removed need no list of the spans. */
static int run_stream(struct tg_encoder *e, size_t step, struct tg_piece p)
{
    const struct tg_pretok *s = &e->t->steps[step];
    bool keep_match = s->behavior == TG_SPLIT_ISOLATED || s->invert;
    bool keep_other = s->behavior == TG_SPLIT_ISOLATED || !s->invert;
    struct tg_regex_walk walk = tg_regex_walk_from(0);
    size_t done = 0, begin, end;
    int rc = TG_OK, found;
    while ((found = next_match(e, s, p, &walk, &begin, &end)) == 1) {
        if (keep_other && begin > done)
            rc = tg_pieces_emit(e, step + 1, tg_piece_part(p, done, begin));
        if (rc == TG_OK && keep_match && end > begin)
            rc = tg_pieces_emit(e, step + 1, tg_piece_part(p, begin, end));
        if (rc != TG_OK)
            return rc;
        done = end;
    }
    if (found < 0)
        return found;
    return keep_other && done < p.len ? tg_pieces_emit(e, step + 1, tg_piece_part(p, done, p.len))
                                      : TG_OK;
}

static bool add_span(struct spans *l, size_t begin, size_t end, bool match)
{
    if (!tg_grow(&l->list, &l->cap, l->count + 1, sizeof *l->list))
        return false;
    l->list[l->count++] = (struct span){begin, end, match};
    return true;
}

static int all_spans(struct tg_encoder *e, const struct tg_pretok *s, struct tg_piece p,
                     struct spans *l)
{
    struct tg_regex_walk walk = tg_regex_walk_from(0);
    size_t done = 0, begin, end;
    int found;
    while ((found = next_match(e, s, p, &walk, &begin, &end)) == 1) {
        if ((begin > done && !add_span(l, done, begin, s->invert)) ||
            !add_span(l, begin, end, !s->invert))
            return out_of_memory(e);
        done = end;
    }
    if (found < 0)
        return found;
    return done < p.len && !add_span(l, done, p.len, s->invert) ? out_of_memory(e) : TG_OK;
}

/* Joins spans in place, from the left (next: from the right): contiguous ones of the same kind, or
 * each match with its neighbour unless that one was a match. */
static void join_spans(struct spans *l, enum tg_behavior behavior)
{
    size_t kept = 0;
    bool before = false, next = behavior == TG_SPLIT_NEXT;
    for (size_t i = 0; i < l->count; i++) {
        struct span s = l->list[next ? l->count - 1 - i : i];
        struct span *to = kept ? &l->list[next ? l->count - kept : kept - 1] : NULL;
        bool join = behavior == TG_SPLIT_CONTIGUOUS ? s.match == before : s.match && !before;
        before = s.match;
        if (to && join) {
            *(next ? &to->begin : &to->end) = next ? s.begin : s.end;
            continue;
        }
        l->list[next ? l->count - 1 - kept : kept] = s;
        kept++;
    }
    if (next)
        memmove(l->list, l->list + (l->count - kept), kept * sizeof *l->list);
    l->count = kept;
}

static int run_joined(struct tg_encoder *e, size_t step, struct tg_piece p)
{
    const struct tg_pretok *s = &e->t->steps[step];
    struct spans l = {0};
    int rc = all_spans(e, s, p, &l);
    if (rc == TG_OK && l.count)
        join_spans(&l, s->behavior);
    for (size_t i = 0; i < l.count && rc == TG_OK; i++)
        if (l.list[i].end > l.list[i].begin)
            rc = tg_pieces_emit(e, step + 1, tg_piece_part(p, l.list[i].begin, l.list[i].end));
    tg_free(l.list);
    return rc;
}

/* Runs of word characters, and of others that are no space. */
static int run_whitespace(struct tg_encoder *e, size_t step, struct tg_piece p)
{
    enum { SPACE, WORD, OTHER } kind = SPACE, before = SPACE;
    size_t begin = 0;
    int rc = TG_OK;
    for (size_t at = 0, n; at < p.len && rc == TG_OK; at += n, before = kind) {
        uint32_t c = tg_char_at(p.text + at, &n);
        kind = tg_char_is_word(c) ? WORD : e->t->classes[c] & TG_CHAR_S ? SPACE : OTHER;
        if (kind == before)
            continue;
        if (before != SPACE)
            rc = tg_pieces_emit(e, step + 1, tg_piece_part(p, begin, at));
        begin = at;
    }
    if (rc == TG_OK && before != SPACE)
        rc = tg_pieces_emit(e, step + 1, tg_piece_part(p, begin, p.len));
    return rc;
}

/* A space before text that has none. */
static int run_prefix(struct tg_encoder *e, size_t step, struct tg_piece p)
{
    struct tg_text *t = &e->prefixed[step];
    if (p.len && p.text[0] == ' ')
        return tg_pieces_emit(e, step + 1, p);
    t->len = 0;
    if (!tg_text_add(t, " ", 1) || !tg_text_add(t, p.text, p.len))
        return out_of_memory(e);
    p = (struct tg_piece){t->data, t->len, p.origin ? p.origin + 1 : 0};
    return tg_pieces_emit(e, step + 1, p);
}

/* Each piece of the text begins with the replacement, but for the first. */
static int emit_metaspace(struct tg_encoder *e, size_t step, struct tg_piece p, const char *mark)
{
    size_t k = strlen(mark), begin = 0;
    int rc = TG_OK;
    for (size_t at = 1; at + k <= p.len && rc == TG_OK; at++) {
        if (p.text[at] != mark[0] || memcmp(p.text + at, mark, k) != 0)
            continue;
        rc = tg_pieces_emit(e, step + 1, tg_piece_part(p, begin, at));
        begin = at;
    }
    return rc == TG_OK ? tg_pieces_emit(e, step + 1, tg_piece_part(p, begin, p.len)) : rc;
}

/* Spaces become the replacement, which is also put before text that does not begin with it. */
static int run_metaspace(struct tg_encoder *e, size_t step, struct tg_piece p)
{
    const struct tg_pretok *s = &e->t->steps[step];
    struct tg_text *t = &e->prefixed[step];
    const char *mark = s->replacement;
    size_t k = strlen(mark), done = 0, origin = 0;
    bool has = p.len && (p.text[0] == ' ' || (p.len >= k && memcmp(p.text, mark, k) == 0));
    bool wanted =
        s->prepend == TG_PREPEND_ALWAYS || (s->prepend == TG_PREPEND_FIRST && p.origin > 0);
    t->len = 0;
    if (p.len && !has && wanted && !tg_text_add(t, mark, k))
        return out_of_memory(e);
    for (size_t at = 0; at <= p.len; at++) {
        if (at == p.origin)
            origin = at ? t->len + at - done : 0;
        if (at < p.len && p.text[at] != ' ')
            continue;
        if (!tg_text_add(t, p.text + done, at - done) || (at < p.len && !tg_text_add(t, mark, k)))
            return out_of_memory(e);
        done = at + 1;
    }
    p = (struct tg_piece){t->data, t->len, origin};
    return s->split ? emit_metaspace(e, step, p, mark) : tg_pieces_emit(e, step + 1, p);
}

/* ---- loading ---- */

static int new_step(struct tg_tokenizer *t, struct tg_pretok **s, struct tg_err *err)
{
    if (t->step_count == TG_MAX_STEPS)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: more than %d pre_tokenizers", t->name,
                       TG_MAX_STEPS);
    *s = &t->steps[t->step_count++];
    return TG_OK;
}

static void set_behavior(struct tg_pretok *s, enum tg_behavior behavior)
{
    bool stream = behavior == TG_SPLIT_ISOLATED || behavior == TG_SPLIT_REMOVED;
    s->run = stream ? run_stream : run_joined;
    s->behavior = behavior;
}

int tg_pretok_add_split(struct tg_tokenizer *t, const char *pattern, bool literal,
                        enum tg_behavior behavior, bool invert, struct tg_err *err)
{
    struct tg_pretok *s = NULL;
    int rc = new_step(t, &s, err);
    if (rc != TG_OK)
        return rc;
    set_behavior(s, behavior);
    s->invert = invert;
    s->scan = literal ? NULL : tg_scan_for(pattern);
    return s->scan ? TG_OK : tg_regex_compile(&s->regex, pattern, literal, t->name, err);
}

/* A step that cuts at characters. */
static int add_char_split(struct tg_tokenizer *t, unsigned classes, enum tg_behavior behavior,
                          struct tg_pretok **to, struct tg_err *err)
{
    int rc = new_step(t, to, err);
    if (rc != TG_OK)
        return rc;
    set_behavior(*to, behavior);
    (*to)->by_char = true;
    (*to)->classes = classes;
    (*to)->delimiter = UINT32_MAX;
    return TG_OK;
}

static int read_behavior(const struct tg_tokenizer *t, const char *name, enum tg_behavior *to,
                         struct tg_err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *to = (enum tg_behavior)i;
            return TG_OK;
        }
    return tg_unsupported(t, err, "pre_tokenizer.behavior", name);
}

static int load_split(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_json pattern = tg_json_key(o, "pattern");
    const char *behavior, *text;
    enum tg_behavior b = TG_SPLIT_ISOLATED;
    bool invert = false, literal = tg_json_has(tg_json_key(pattern, "String"));
    int rc = tg_json_get_str(o, "behavior", &behavior, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(o, "invert", &invert, err);
    if (rc == TG_OK)
        rc = tg_json_get_str(pattern, literal ? "String" : "Regex", &text, err);
    if (rc == TG_OK)
        rc = read_behavior(t, behavior, &b, err);
    return rc == TG_OK ? tg_pretok_add_split(t, text, literal, b, invert, err) : rc;
}

static int load_digits(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    bool individual = false;
    struct tg_pretok *s = NULL;
    int rc = tg_json_get_bool_or(o, "individual_digits", &individual, err);
    return rc != TG_OK
               ? rc
               : add_char_split(t, TG_CHAR_N, individual ? TG_SPLIT_ISOLATED : TG_SPLIT_CONTIGUOUS,
                                &s, err);
}

static int load_punctuation(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    const char *name = "Isolated";
    enum tg_behavior behavior = TG_SPLIT_ISOLATED;
    struct tg_pretok *s = NULL;
    int rc = tg_json_get_str_or(o, "behavior", &name, err);
    if (rc == TG_OK)
        rc = read_behavior(t, name, &behavior, err);
    return rc == TG_OK ? add_char_split(t, TG_CHAR_P, behavior, &s, err) : rc;
}

static int load_whitespace_split(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_pretok *s = NULL;
    (void)o;
    return add_char_split(t, TG_CHAR_S, TG_SPLIT_REMOVED, &s, err);
}

static int load_whitespace(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_pretok *s = NULL;
    int rc = new_step(t, &s, err);
    (void)o;
    if (rc == TG_OK)
        s->run = run_whitespace;
    return rc;
}

int tg_char_of(struct tg_json o, const char *key, char to[5], uint32_t *c, struct tg_err *err)
{
    const char *s;
    int rc = tg_json_get_str(o, key, &s, err);
    if (rc != TG_OK)
        return rc;
    size_t n = tg_utf8_decode(s, strlen(s), c);
    if (n == 0 || s[n])
        return tg_json_fail(o, key, TG_ERR_FORMAT, err, "'%.200s' is not one character", s);
    memcpy(to, s, n + 1);
    return TG_OK;
}

static int load_delimiter(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_pretok *s = NULL;
    char text[5];
    int rc = add_char_split(t, 0, TG_SPLIT_REMOVED, &s, err);
    return rc == TG_OK ? tg_char_of(o, "delimiter", text, &s->delimiter, err) : rc;
}

int tg_prepend_scheme(struct tg_json o, enum tg_prepend *to, struct tg_err *err)
{
    static const char *const names[] = {"always", "first", "never"};
    const char *scheme = NULL;
    bool space = true;
    int rc = tg_json_get_str_or(o, "prepend_scheme", &scheme, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(o, "add_prefix_space", &space, err);
    if (rc != TG_OK)
        return rc;
    *to = TG_PREPEND_ALWAYS;
    for (int i = 0; i < 3; i++)
        if (scheme && strcmp(scheme, names[i]) == 0) {
            *to = (enum tg_prepend)i;
            scheme = NULL;
        }
    if (scheme)
        return tg_json_fail(o, "prepend_scheme", TG_ERR_UNSUPPORTED, err,
                            "'%.200s' is not supported", scheme);
    if (!space && *to != TG_PREPEND_NEVER)
        return tg_json_fail(o, "add_prefix_space", TG_ERR_FORMAT, err,
                            "false contradicts prepend_scheme '%s'", names[*to]);
    return TG_OK;
}

static int load_metaspace(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_pretok *s = NULL;
    uint32_t c;
    int rc = new_step(t, &s, err);
    if (rc != TG_OK)
        return rc;
    s->run = run_metaspace;
    s->split = true;
    rc = tg_char_of(o, "replacement", s->replacement, &c, err);
    if (rc == TG_OK)
        rc = tg_prepend_scheme(o, &s->prepend, err);
    return rc == TG_OK ? tg_json_get_bool_or(o, "split", &s->split, err) : rc;
}

/* The map from bytes to visible characters is the model's affair: it sees bytes. */
static int load_byte_level(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    bool prefix = true, use_regex = true;
    struct tg_pretok *s = NULL;
    int rc = tg_json_get_bool_or(o, "add_prefix_space", &prefix, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(o, "use_regex", &use_regex, err);
    if (rc == TG_OK && prefix && (rc = new_step(t, &s, err)) == TG_OK)
        s->run = run_prefix;
    if (rc == TG_OK && use_regex)
        rc = tg_pretok_add_split(t, tg_gpt2_pattern, false, TG_SPLIT_ISOLATED, false, err);
    t->byte_level = true;
    return rc;
}

static int load_sequence(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_json list = tg_json_key(o, "pretokenizers");
    int rc = TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: pre_tokenizer.pretokenizers is not an array",
                       t->name);
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = tg_pretok_load(t, c, err);
    return rc;
}

int tg_pretok_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    static const struct {
        const char *type;
        int (*load)(struct tg_tokenizer *, struct tg_json, struct tg_err *);
    } known[] = {
        {"Sequence", load_sequence},
        {"Split", load_split},
        {"Digits", load_digits},
        {"Punctuation", load_punctuation},
        {"Whitespace", load_whitespace},
        {"WhitespaceSplit", load_whitespace_split},
        {"CharDelimiterSplit", load_delimiter},
        {"Metaspace", load_metaspace},
        {"ByteLevel", load_byte_level},
    };
    const char *type = tg_type_of(o);
    if (!tg_json_has(o))
        return TG_OK;
    if (t->byte_level) /* it would see the visible characters, not the text */
        return tg_unsupported(t, err, "pre_tokenizer after ByteLevel", type);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(type, known[i].type) == 0)
            return known[i].load(t, o, err);
    return tg_unsupported(t, err, "pre_tokenizer.type", type);
}

int tg_pieces_emit(struct tg_encoder *e, size_t step, struct tg_piece p)
{
    if (p.len == 0)
        return TG_OK;
    if (step == e->t->step_count)
        return e->t->model->encode(e, p.text, p.len);
    return e->t->steps[step].run(e, step, p);
}
