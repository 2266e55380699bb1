/* Pre-tokenizers: how text is cut into the words that the model sees. Split, Digits, ByteLevel, and
 * sequences of them. */
#include <string.h>

#include "base/mem.h"
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

/* The next match at or after *from, as Oniguruma's iterator gives them: an empty one right behind a
 * match is passed over. 1 found, 0 none, negative on error. */
static int next_match(struct tg_encoder *e, const struct tg_pretok *s, const char *text, size_t len,
                      size_t *from, size_t *last, size_t *begin, size_t *end)
{
    while (*from < len || (*from == len && !s->scan)) {
        size_t n;
        if (s->scan) {
            *begin = *from;
            *end = *from = s->scan(e->t->classes, text, *from, len);
            return 1;
        }
        int rc = tg_regex_find(s->regex, &e->regex_run, text, len, *from, begin, end, e->err);
        if (rc <= 0)
            return rc;
        if (*begin < *end || *begin != *last) {
            *from = *last = *end;
            return 1;
        }
        if (*end >= len)
            return 0;
        tg_char_at(text + *end, &n);
        *from = *end + n;
    }
    return 0;
}

/* Isolated and Removed need no list of the spans. */
static int run_stream(struct tg_encoder *e, size_t step, const char *text, size_t len)
{
    const struct tg_pretok *s = &e->t->steps[step];
    bool keep_match = s->behavior == TG_SPLIT_ISOLATED || s->invert;
    bool keep_other = s->behavior == TG_SPLIT_ISOLATED || !s->invert;
    size_t from = 0, last = SIZE_MAX, done = 0, begin, end;
    int rc = TG_OK, found;
    while ((found = next_match(e, s, text, len, &from, &last, &begin, &end)) == 1) {
        if (keep_other && begin > done)
            rc = tg_pieces_emit(e, step + 1, text + done, begin - done);
        if (rc == TG_OK && keep_match && end > begin)
            rc = tg_pieces_emit(e, step + 1, text + begin, end - begin);
        if (rc != TG_OK)
            return rc;
        done = end;
    }
    if (found < 0)
        return found;
    return keep_other && done < len ? tg_pieces_emit(e, step + 1, text + done, len - done) : TG_OK;
}

static bool add_span(struct spans *l, size_t begin, size_t end, bool match)
{
    if (!tg_grow(&l->list, &l->cap, l->count + 1, sizeof *l->list))
        return false;
    l->list[l->count++] = (struct span){begin, end, match};
    return true;
}

static int all_spans(struct tg_encoder *e, const struct tg_pretok *s, const char *text, size_t len,
                     struct spans *l)
{
    size_t from = 0, last = SIZE_MAX, done = 0, begin, end;
    int found;
    while ((found = next_match(e, s, text, len, &from, &last, &begin, &end)) == 1) {
        if ((begin > done && !add_span(l, done, begin, s->invert)) ||
            !add_span(l, begin, end, !s->invert))
            return out_of_memory(e);
        done = end;
    }
    if (found < 0)
        return found;
    return done < len && !add_span(l, done, len, s->invert) ? out_of_memory(e) : TG_OK;
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

static int run_joined(struct tg_encoder *e, size_t step, const char *text, size_t len)
{
    const struct tg_pretok *s = &e->t->steps[step];
    struct spans l = {0};
    int rc = all_spans(e, s, text, len, &l);
    if (rc == TG_OK && l.count)
        join_spans(&l, s->behavior);
    for (size_t i = 0; i < l.count && rc == TG_OK; i++)
        if (l.list[i].end > l.list[i].begin)
            rc = tg_pieces_emit(e, step + 1, text + l.list[i].begin,
                                l.list[i].end - l.list[i].begin);
    tg_free(l.list);
    return rc;
}

/* A space before text that has none. */
static int run_prefix(struct tg_encoder *e, size_t step, const char *text, size_t len)
{
    struct tg_text *t = &e->prefixed[step];
    if (len && text[0] == ' ')
        return tg_pieces_emit(e, step + 1, text, len);
    t->len = 0;
    if (!tg_text_add(t, " ", 1) || !tg_text_add(t, text, len))
        return out_of_memory(e);
    return tg_pieces_emit(e, step + 1, t->data, t->len);
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

static int add_split(struct tg_tokenizer *t, const char *pattern, bool literal,
                     enum tg_behavior behavior, bool invert, struct tg_err *err)
{
    struct tg_pretok *s = NULL;
    int rc = new_step(t, &s, err);
    if (rc != TG_OK)
        return rc;
    bool stream = behavior == TG_SPLIT_ISOLATED || behavior == TG_SPLIT_REMOVED;
    s->run = stream ? run_stream : run_joined;
    s->behavior = behavior;
    s->invert = invert;
    s->scan = literal ? NULL : tg_scan_for(pattern);
    return s->scan ? TG_OK : tg_regex_compile(&s->regex, pattern, literal, t->name, err);
}

static int load_split(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    struct tg_json pattern = tg_json_key(o, "pattern");
    const char *behavior, *text;
    bool invert = false, literal = tg_json_has(tg_json_key(pattern, "String"));
    int rc = tg_json_get_str(o, "behavior", &behavior, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(o, "invert", &invert, err);
    if (rc == TG_OK)
        rc = tg_json_get_str(pattern, literal ? "String" : "Regex", &text, err);
    if (rc != TG_OK)
        return rc;
    for (int i = 0; i < 5; i++)
        if (strcmp(behavior, names[i]) == 0)
            return add_split(t, text, literal, (enum tg_behavior)i, invert, err);
    return tg_unsupported(t, err, "pre_tokenizer.behavior", behavior);
}

static int load_digits(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    bool individual = false;
    int rc = tg_json_get_bool_or(o, "individual_digits", &individual, err);
    return rc != TG_OK
               ? rc
               : add_split(t, "\\p{N}", false, individual ? TG_SPLIT_ISOLATED : TG_SPLIT_CONTIGUOUS,
                           false, err);
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
        rc = add_split(t, tg_gpt2_pattern, false, TG_SPLIT_ISOLATED, false, err);
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

int tg_pieces_emit(struct tg_encoder *e, size_t step, const char *text, size_t len)
{
    if (step == e->t->step_count)
        return e->t->model->encode(e, text, len);
    return e->t->steps[step].run(e, step, text, len);
}
