/* GGUF models of tests/data/gguf/models with a key or a tensor changed. */
#ifndef TG_TESTS_GGUF_EDIT_H
#define TG_TESTS_GGUF_EDIT_H

#include "formats/gguf.h"

#define TG_GGUF_MODELS "tests/data/gguf/models/"

/* A copy of a model with one key set, added or (type COUNT) left out, and one tensor renamed (to
 * NULL: left out) */
struct tg_gguf_edit {
    const char *model;
    struct tg_gguf_kv kv;
    const char *tensor, *to;
};
/* The directory of the copy, in the program's scratch; caller frees with tg_free. max_shard: see
 * tg_write_options */
char *tg_gguf_edited(const struct tg_gguf_edit *e, uint64_t max_shard);

/* Initialisers of values */
#define TG_KV_U32(x)                                                                               \
    {                                                                                              \
        .type = TG_GGUF_U32, .u = (x)                                                              \
    }
#define TG_KV_F32(x)                                                                               \
    {                                                                                              \
        .type = TG_GGUF_F32, .f = (x)                                                              \
    }
#define TG_KV_TEXT(x)                                                                              \
    {                                                                                              \
        .type = TG_GGUF_STRING, .s = { x, sizeof x - 1 }                                           \
    }
#define TG_KV_NONE                                                                                 \
    {                                                                                              \
        .type = TG_GGUF_TYPE_COUNT                                                                 \
    }

#endif
