/* Splitters for the patterns of GPT-2, Llama 3, Qwen 2 and Qwen 3.5, each alternative in the order
 * of the pattern:
 *
 *   GPT-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   Llama 3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
 *            | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *
 * Qwen 2 takes single digits, Qwen 3.5 counts marks as letters. tests/test_tokenizers.c proves them
 * equal to the generic engine. Each looks ahead no further than its own match, so a text takes
 * linear time. */
#include "formats/tokenizer/chars.h"

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

uint8_t *tg_char_classes(void)
{
    static const struct {
        uint32_t bit, first, last;
    } ranges[] = {
#define TG_CHARS(c, first, last) {TG_CHAR_##c, first, last},
#include "formats/tokenizer/unicode.def"
#undef TG_CHARS
        {TG_CHAR_S, 9, 13},          {TG_CHAR_S, 0x20, 0x20},     {TG_CHAR_S, 0x85, 0x85},
        {TG_CHAR_S, 0xA0, 0xA0},     {TG_CHAR_S, 0x1680, 0x1680}, {TG_CHAR_S, 0x2000, 0x200A},
        {TG_CHAR_S, 0x2028, 0x2029}, {TG_CHAR_S, 0x202F, 0x202F}, {TG_CHAR_S, 0x205F, 0x205F},
        {TG_CHAR_S, 0x3000, 0x3000},
    };
    uint8_t *classes = tg_alloc(0x110000);
    if (!classes)
        return NULL;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        for (uint32_t c = ranges[i].first; c <= ranges[i].last; c++)
            classes[c] |= (uint8_t)ranges[i].bit;
    return classes;
}

/* Class of the character at `at` and, in *n, its length; at the end a class that nothing accepts.
 */
enum { AT_END = 0x80 };
static inline unsigned class_at(const uint8_t *classes, const char *text, size_t at, size_t len,
                                size_t *n)
{
    if (at >= len) {
        *n = 0;
        return AT_END;
    }
    return classes[tg_char_at(text + at, n)];
}

/* End of the run of characters with a bit of `want`. */
static inline size_t run_of(const uint8_t *classes, const char *text, size_t at, size_t len,
                            unsigned want)
{
    size_t n;
    while (class_at(classes, text, at, len, &n) & want)
        at += n;
    return at;
}

/* End of the run of characters with no bit of `avoid`. */
static inline size_t run_without(const uint8_t *classes, const char *text, size_t at, size_t len,
                                 unsigned avoid)
{
    size_t n;
    while (!(class_at(classes, text, at, len, &n) & (avoid | AT_END)))
        at += n;
    return at;
}

/* `\s+(?!\S)|\s+`: a run of spaces, without its last one if something follows and others remain. */
static size_t spaces(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    size_t end = at, last = at, n;
    while (class_at(classes, text, end, len, &n) & TG_CHAR_S) {
        last = end;
        end += n;
    }
    return end < len && last > at ? last : end;
}

/* Length of a contraction at text[at] == '\'', or 0. U+017F (long s) is an s without regard to
 * case. */
static size_t contraction(const char *text, size_t at, size_t len, bool any_case)
{
    unsigned char a = at + 1 < len ? (unsigned char)text[at + 1] : 0;
    unsigned char b = at + 2 < len ? (unsigned char)text[at + 2] : 0;
    if (any_case) {
        if (a == 0xC5 && b == 0xBF)
            return 3;
        a = a >= 'A' && a <= 'Z' ? (unsigned char)(a + 32) : a;
        b = b >= 'A' && b <= 'Z' ? (unsigned char)(b + 32) : b;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

static size_t scan_gpt2(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    size_t n, from = at;
    if (text[at] == '\'' && (n = contraction(text, at, len, false)))
        return at + n;
    unsigned c = class_at(classes, text, at, len, &n);
    if (text[at] == ' ') {
        from = at + 1;
        c = class_at(classes, text, from, len, &n);
    }
    if (c & TG_CHAR_L)
        return run_of(classes, text, from, len, TG_CHAR_L);
    if (c & TG_CHAR_N)
        return run_of(classes, text, from, len, TG_CHAR_N);
    if (!(c & (TG_CHAR_S | AT_END)))
        return run_without(classes, text, from, len, TG_CHAR_S | TG_CHAR_L | TG_CHAR_N);
    return spaces(classes, text, at, len);
}

static bool is_line_end(char c)
{
    return c == '\r' || c == '\n';
}

/* `\s*[\r\n]+`: to the last line end of the run of spaces, or 0. */
static size_t line_ends(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    size_t n, end = 0;
    while (class_at(classes, text, at, len, &n) & TG_CHAR_S) {
        at += n;
        if (is_line_end(text[at - n]))
            end = at;
    }
    return end;
}

static inline size_t scan_llama(const uint8_t *classes, const char *text, size_t at, size_t len,
                                unsigned letters, int max_digits)
{
    size_t n, next;
    if (text[at] == '\'' && (n = contraction(text, at, len, true)))
        return at + n;
    unsigned c = class_at(classes, text, at, len, &n);
    if (c & letters)
        return run_of(classes, text, at + n, len, letters);
    if (!(c & TG_CHAR_N) && !is_line_end(text[at]) &&
        class_at(classes, text, at + n, len, &next) & letters)
        return run_of(classes, text, at + n + next, len, letters);
    if (c & TG_CHAR_N) {
        for (int i = 0; i < max_digits && class_at(classes, text, at, len, &n) & TG_CHAR_N; i++)
            at += n;
        return at;
    }
    unsigned known = TG_CHAR_S | TG_CHAR_N | letters;
    size_t from = at + (text[at] == ' '), end = run_without(classes, text, from, len, known);
    if (end > from) {
        while (end < len && is_line_end(text[end]))
            end++;
        return end;
    }
    end = line_ends(classes, text, at, len);
    return end ? end : spaces(classes, text, at, len);
}

static size_t scan_llama3(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    return scan_llama(classes, text, at, len, TG_CHAR_L, 3);
}

static size_t scan_qwen2(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    return scan_llama(classes, text, at, len, TG_CHAR_L, 1);
}

static size_t scan_qwen3_5(const uint8_t *classes, const char *text, size_t at, size_t len)
{
    return scan_llama(classes, text, at, len, TG_CHAR_L | TG_CHAR_M, 1);
}

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const char tg_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

tg_scan_fn tg_scan_for(const char *pattern)
{
    static const struct {
        const char *pattern;
        tg_scan_fn scan;
    } known[] = {
        {tg_gpt2_pattern, scan_gpt2},
        {CONTRACTIONS
         "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES,
         scan_llama3},
        {CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES,
         scan_qwen2},
        {CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
                      "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES,
         scan_qwen3_5},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(pattern, known[i].pattern) == 0)
            return known[i].scan;
    return NULL;
}
