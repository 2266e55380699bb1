/* What the recall tasks draw from: names (common capitalised words of the text), words (single
 * tokens, for associations in token ids) and prose (text in which a needle is the only one). */
#include "distill/recall.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    DECODED_IDS = 1 << 21, /* names are counted in at most this much text */
    NAMES_MAX = 512,
    NAMES_MIN = 96, /* below it the built-in names are added */
    NAME_SHORTEST = 4,
    NAME_LONGEST = 12,
    WORDS_MAX = 4096,
    PROSE_IDS = 1 << 22, /* prose is looked for in at most this much text */
    PROSE_BLOCK = 64,
    PROSE_MIN = 2048,
};
enum { DIGIT = 1, SPECIAL = 2 }; /* kinds of tokens */

static const char *const builtin_names[] = {
    "Albert",    "Alice",    "Amsterdam", "Andrew",    "Anna",    "Antony",  "April",    "Arthur",
    "August",    "Baker",    "Barbara",   "Berlin",    "Bishop",  "Boston",  "Bristol",  "Bruce",
    "Captain",   "Carol",    "Charles",   "Chester",   "Chicago", "Clara",   "Colonel",  "Cooper",
    "Daniel",    "David",    "December",  "Denmark",   "Diana",   "Dublin",  "Duncan",   "East",
    "Edinburgh", "Edward",   "Egypt",     "Elizabeth", "Emma",    "England", "Fisher",   "Florence",
    "France",    "Frank",    "Friday",    "George",    "Germany", "Grace",   "Grant",    "Greece",
    "Hamilton",  "Harold",   "Helen",     "Henry",     "Holland", "Howard",  "Hunter",   "India",
    "Ireland",   "Isaac",    "Italy",     "Jack",      "James",   "Jane",    "January",  "Japan",
    "John",      "Joseph",   "Julia",     "July",      "June",    "Kate",    "King",     "Lake",
    "Laura",     "Leonard",  "Lewis",     "London",    "Lucy",    "Madrid",  "Margaret", "Maria",
    "Mark",      "Martin",   "Mary",      "Michael",   "Monday",  "Nelson",  "Norway",   "October",
    "Oliver",    "Oxford",   "Paris",     "Parker",    "Paul",    "Peter",   "Philip",   "Prince",
    "Queen",     "Rachel",   "Richard",   "Robert",    "Rome",    "Rose",    "Russia",   "Samuel",
    "Sarah",     "Scotland", "Simon",     "Smith",     "Spain",   "Spring",  "Stephen",  "Stone",
    "Sunday",    "Susan",    "Sweden",    "Taylor",    "Thomas",  "Turner",  "Victor",   "Vienna",
    "Virginia",  "Walter",   "Warren",    "Water",     "West",    "William", "Winter",   "York",
};

struct counted {
    const char *text;
    int32_t id;
    size_t count;
};
static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
static int by_count(const void *a, const void *b)
{
    const struct counted *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    if (x->text && y->text)
        return strcmp(x->text, y->text);
    return (x->id > y->id) - (x->id < y->id);
}
static bool is_upper(unsigned char c)
{
    return c >= 'A' && c <= 'Z';
}
static bool is_lower(unsigned char c)
{
    return c >= 'a' && c <= 'z';
}
/* Anything that may be part of a longer word; bytes of other scripts count as such. */
static bool in_word(unsigned char c)
{
    return is_upper(c) || is_lower(c) || (c >= '0' && c <= '9') || c == '_' || c >= 0x80;
}

/* Capitalised words of text, each cut off by a NUL written after it. */
static int find_names(char *text, size_t len, char ***found, size_t *count, struct tg_err *err)
{
    char **at = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < len;) {
        unsigned char before = i ? (unsigned char)text[i - 1] : ' ';
        if (!is_upper((unsigned char)text[i]) || in_word(before)) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < len && is_lower((unsigned char)text[end]))
            end++;
        bool whole = end == len || !in_word((unsigned char)text[end]);
        if (whole && end - i >= NAME_SHORTEST && end - i <= NAME_LONGEST) {
            if (!tg_grow(&at, &cap, n + 1, sizeof *at)) {
                tg_free(at);
                return tg_fail(err, TG_ERR_NOMEM, "recall: no memory for %zu words", n + 1);
            }
            at[n++] = text + i;
            text[end] = '\0'; /* text has room for one more byte than len */
            end++;
        }
        i = end;
    }
    *found = at;
    *count = n;
    return TG_OK;
}

static bool add_name(struct tg_recall_source *s, const char *name)
{
    for (size_t i = 0; i < s->name_count; i++)
        if (strcmp(s->names[i], name) == 0)
            return true;
    s->names[s->name_count] = tg_strdup(name);
    return s->names[s->name_count] != NULL && ++s->name_count;
}

static int collect_names(struct tg_recall_source *s, struct tg_err *err)
{
    size_t builtins = sizeof builtin_names / sizeof *builtin_names, len = 0, n = 0, kinds = 0;
    size_t take = s->text_count < DECODED_IDS ? s->text_count : DECODED_IDS;
    char *text = NULL, **found = NULL;
    struct counted *ranked = NULL;
    int status = tg_tokenizer_decode(s->tok, s->text, take, true, &text, &len, err);
    if (status == TG_OK)
        status = find_names(text, len, &found, &n, err);
    if (status != TG_OK)
        goto out;
    s->names = tg_alloc_array(NAMES_MAX + builtins, sizeof *s->names);
    ranked = tg_alloc_array(n + 1, sizeof *ranked);
    if (!s->names || !ranked) {
        status = tg_fail(err, TG_ERR_NOMEM, "recall: no memory for %zu words", n);
        goto out;
    }
    if (n)
        qsort(found, n, sizeof *found, by_text);
    for (size_t i = 0; i < n; i++) {
        if (kinds == 0 || strcmp(ranked[kinds - 1].text, found[i]) != 0)
            ranked[kinds++] = (struct counted){.text = found[i]};
        ranked[kinds - 1].count++;
    }
    qsort(ranked, kinds, sizeof *ranked, by_count);
    bool ok = true;
    for (size_t i = 0; i < kinds && i < NAMES_MAX && ranked[i].count >= 2 && ok; i++)
        ok = add_name(s, ranked[i].text);
    for (size_t i = 0; i < builtins && s->name_count < NAMES_MIN && ok; i++)
        ok = add_name(s, builtin_names[i]);
    if (!ok)
        status = tg_fail(err, TG_ERR_NOMEM, "recall: no memory for %zu names", s->name_count);
out:
    tg_free(ranked);
    tg_free(found);
    tg_free(text);
    return status;
}

/* A token of at least three bytes: letters after at most one space. */
static bool plain_word(const char *text, size_t len)
{
    if (len && text[0] == ' ')
        text++, len--;
    if (len < 3)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_lower((unsigned char)text[i]) && !(i == 0 && is_upper((unsigned char)text[i])))
            return false;
    return true;
}

/* Plain words by frequency, and what kind each token of the text is (kind [vocab]). */
static int collect_words(struct tg_recall_source *s, size_t vocab, unsigned char *kind,
                         struct tg_err *err)
{
    size_t kinds = 0;
    struct counted *seen = tg_alloc_array(vocab, sizeof *seen);
    s->words = tg_alloc_array(WORDS_MAX, sizeof *s->words);
    if (!seen || !s->words) {
        tg_free(seen);
        return tg_fail(err, TG_ERR_NOMEM, "recall: no memory to count %zu tokens", vocab);
    }
    for (size_t i = 0; i < s->text_count; i++)
        if (s->text[i] >= 0 && (size_t)s->text[i] < vocab)
            seen[s->text[i]].count++;
    int status = TG_OK;
    for (size_t id = 0; id < vocab && status == TG_OK; id++) {
        int32_t token = (int32_t)id;
        char *text = NULL;
        size_t len = 0;
        if (!seen[id].count)
            continue;
        status = tg_tokenizer_decode(s->tok, &token, 1, true, &text, &len, err);
        for (size_t i = 0; i < len; i++)
            kind[id] |= text[i] >= '0' && text[i] <= '9' ? DIGIT : 0;
        kind[id] |= status == TG_OK && len == 0 ? SPECIAL : 0;
        if (status == TG_OK && plain_word(text, len))
            seen[kinds++] = (struct counted){.id = token, .count = seen[id].count};
        tg_free(text);
    }
    if (status == TG_OK) {
        qsort(seen, kinds, sizeof *seen, by_count);
        for (; s->word_count < kinds && s->word_count < WORDS_MAX; s->word_count++)
            s->words[s->word_count] = seen[s->word_count].id;
    }
    tg_free(seen);
    return status;
}

static bool holds(const int32_t *ids, size_t n, const struct tg_ids *part)
{
    for (size_t i = 0; part->count && i + part->count <= n; i++)
        if (memcmp(ids + i, part->data, part->count * sizeof *ids) == 0)
            return true;
    return false;
}

/* Blocks of the text with at most one token that has a digit, special tokens left out. The whole
 * text if that leaves next to nothing. */
static int collect_prose(struct tg_recall_source *s, size_t vocab, const unsigned char *kind,
                         struct tg_err *err)
{
    size_t take = s->text_count < PROSE_IDS ? s->text_count : PROSE_IDS;
    struct tg_ids pass_key = {0};
    int status = tg_tokenizer_encode(s->tok, " pass key", 9, false, &pass_key, err);
    s->prose = tg_alloc_array(take, sizeof *s->prose);
    if (status == TG_OK && !s->prose)
        status = tg_fail(err, TG_ERR_NOMEM, "recall: no memory for %zu tokens", take);
    for (size_t at = 0; at < take && status == TG_OK; at += PROSE_BLOCK) {
        size_t n = take - at < PROSE_BLOCK ? take - at : PROSE_BLOCK, digits = 0;
        const int32_t *ids = s->text + at;
        for (size_t i = 0; i < n; i++)
            digits += (size_t)ids[i] < vocab && kind[ids[i]] & DIGIT;
        if (digits > 1 || holds(ids, n, &pass_key))
            continue;
        for (size_t i = 0; i < n; i++)
            if ((size_t)ids[i] < vocab && !(kind[ids[i]] & SPECIAL))
                s->prose[s->prose_count++] = ids[i];
    }
    if (status == TG_OK && s->prose_count < PROSE_MIN && take) {
        memcpy(s->prose, s->text, take * sizeof *s->prose);
        s->prose_count = take;
    }
    tg_ids_release(&pass_key);
    return status;
}

int tg_recall_source_init(struct tg_recall_source *s, const struct tg_tokenizer *tok,
                          const int32_t *text, size_t count, struct tg_err *err)
{
    *s = (struct tg_recall_source){.tok = tok, .text = text, .text_count = count};
    size_t vocab = tg_tokenizer_vocab(tok);
    unsigned char *kind = tg_alloc(vocab);
    int status = kind ? collect_names(s, err)
                      : tg_fail(err, TG_ERR_NOMEM, "recall: no memory for %zu tokens", vocab);
    if (status == TG_OK)
        status = collect_words(s, vocab, kind, err);
    if (status == TG_OK)
        status = collect_prose(s, vocab, kind, err);
    tg_free(kind);
    if (status != TG_OK)
        tg_recall_source_release(s);
    return status;
}

void tg_recall_source_release(struct tg_recall_source *s)
{
    for (size_t i = 0; i < s->name_count; i++)
        tg_free(s->names[i]);
    tg_free(s->names);
    tg_free(s->words);
    tg_free(s->prose);
    *s = (struct tg_recall_source){0};
}
