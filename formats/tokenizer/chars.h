/* Classes of characters, and splitters by hand for the patterns that most tokenizers use. */
#ifndef TG_FORMATS_CHARS_H
#define TG_FORMATS_CHARS_H

#include <stddef.h>
#include <stdint.h>

/* Letters, numbers, marks, spaces; then what HF's older tables call punctuation and accents, and
 * what its normal forms do not know: see unicode.def. */
enum {
    TG_CHAR_L = 1,
    TG_CHAR_N = 2,
    TG_CHAR_M = 4,
    TG_CHAR_S = 8,
    TG_CHAR_P = 16,
    TG_CHAR_A = 32,
    TG_CHAR_U = 64,
};

/* One byte a code point, 0x110000 in all, from unicode.def; NULL: no memory. Freed with tg_free. */
uint8_t *tg_char_classes(void);

/* The character at s, of text that is known to be valid UTF-8; *n its length. */
static inline uint32_t tg_char_at(const char *text, size_t *n)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *n = 1;
        return s[0];
    }
    if (s[0] < 0xE0) {
        *n = 2;
        return (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu);
    }
    if (s[0] < 0xF0) {
        *n = 3;
        return (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
    }
    *n = 4;
    return (s[0] & 0x07u) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
}

/* End of the match that begins at `at` < len: these patterns match everywhere. text is valid UTF-8.
 */
typedef size_t (*tg_scan_fn)(const uint8_t *classes, const char *text, size_t at, size_t len);
/* The splitter that equals the pattern, by its exact text, or NULL. */
tg_scan_fn tg_scan_for(const char *pattern);

extern const char tg_gpt2_pattern[];

#endif
