/* Precompiled maps of characters, as SentencePiece stores them: a double-array trie (Darts-clone)
 * whose values are offsets into a blob of NUL-terminated replacements. */
#ifndef TG_FORMATS_CHARSMAP_H
#define TG_FORMATS_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tg_charsmap;

/* bytes: size of the trie (little endian, 4 bytes), its units, the blob. Copied. Offsets that lead
 * outside are found when they are followed, and then mean that nothing matches. */
int tg_charsmap_make(struct tg_charsmap **map, const uint8_t *bytes, size_t len, const char *name,
                     struct tg_err *err);
/* The same of base64, as in tokenizer.json. */
int tg_charsmap_parse(struct tg_charsmap **map, const char *base64, const char *name,
                      struct tg_err *err);
void tg_charsmap_free(struct tg_charsmap *map);

/* The rule at the beginning of s: the longest, or the shortest. Returns how many bytes of s it
 * replaces, 0: none; *to and *to_len its replacement. */
size_t tg_charsmap_match(const struct tg_charsmap *map, const char *s, size_t len, bool longest,
                         const char **to, size_t *to_len);

#endif
