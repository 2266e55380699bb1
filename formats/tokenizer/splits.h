/* How GGUF files of kind "gpt2" say where text is cut: by the name of a pre-tokenizer,
 * tokenizer.ggml.pre. */
#ifndef TG_FORMATS_SPLITS_H
#define TG_FORMATS_SPLITS_H

#include <stdbool.h>

enum { TG_SPLIT_PATTERNS = 5 };
struct tg_split {
    const char *name;
    /* Run one after another, each on the pieces that the one before has left; NULL behind the last
     */
    const char *patterns[TG_SPLIT_PATTERNS];
    bool ignore_merges;
    bool add_bos; /* unless the file says something else */
};
/* Ended by a row without a name. Of several with the same patterns the first has the name that is
 * written. */
extern const struct tg_split tg_splits[];
const struct tg_split *tg_split_find(const char *name); /* NULL if unknown */

#endif
