/* Metadata of a GGUF file in the making: keys and values in order, with the memory that they point
 * to. A failure is remembered: look at `failed` once, at the end. */
#ifndef TG_FORMATS_GGUF_LIST_H
#define TG_FORMATS_GGUF_LIST_H

#include "formats/gguf.h"

struct tg_gguf_list {
    struct tg_gguf_kv *items; /* owned */
    size_t count, cap;
    void **owned; /* blocks that values and keys borrow from; owned */
    size_t owned_count, owned_cap;
    bool failed; /* out of memory */
};
void tg_gguf_put(struct tg_gguf_list *l, const char *key, struct tg_gguf_value v);
/* "ARCH.suffix" */
void tg_gguf_put_arch(struct tg_gguf_list *l, const char *arch, const char *suffix,
                      struct tg_gguf_value v);
/* A copy of text, and of count elements of `type` (of strings: their bytes too) */
void tg_gguf_put_text(struct tg_gguf_list *l, const char *key, const char *text);
void tg_gguf_put_array(struct tg_gguf_list *l, const char *key, enum tg_gguf_type type,
                       const void *data, size_t count);
/* Takes ownership of a block from tg_alloc; NULL counts as out of memory. */
void *tg_gguf_own(struct tg_gguf_list *l, void *block);
void tg_gguf_list_release(struct tg_gguf_list *l);

#endif
