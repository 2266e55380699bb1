/* What the reader, the writer and the metadata of GGUF share; private to them. */
#ifndef TG_FORMATS_GGUF_FILE_H
#define TG_FORMATS_GGUF_FILE_H

#include "base/cursor.h"
#include "formats/format.h"
#include "formats/gguf.h"

enum {
    TG_GGUF_VERSION = 3,
    TG_GGUF_ALIGNMENT = 32, /* when general.alignment is absent */
    TG_GGUF_MAX_DIMS = 4,
    TG_GGUF_NAME_SIZE = 64,      /* of a tensor's name, with its NUL */
    TG_GGUF_MAX_COUNT = 1 << 30, /* bytes of a string, elements of an array */
};

/* How a type of metadata is stored */
enum tg_gguf_kind { TG_GGUF_UNSIGNED, TG_GGUF_SIGNED, TG_GGUF_FLOAT, TG_GGUF_TRUTH, TG_GGUF_OTHER };
struct tg_gguf_type_info {
    const char *name;
    size_t size; /* bytes; 0 if they vary */
    enum tg_gguf_kind kind;
};
const struct tg_gguf_type_info *tg_gguf_type_info(uint32_t type); /* NULL if there is none */

/* ggml's types of tensors. removed: once in use, its number is never given again. */
struct tg_ggml_type {
    const char *name;
    int dtype; /* enum tg_dtype, or -1: known, but not read by Tegu */
    bool removed;
};
const struct tg_ggml_type *tg_ggml_type(uint32_t id); /* NULL if there is none */
int tg_ggml_type_of(enum tg_dtype t);                 /* its number, -1 if ggml has no such type */

/* State of a parsed file */
struct tg_gguf_file {
    struct tg_gguf_kv *kv;            /* [kvs], keys and scalar strings are owned */
    const struct tg_gguf_kv **sorted; /* [kvs], by key */
    size_t kvs;                       /* read so far */
    char (*names)[TG_GGUF_NAME_SIZE]; /* of the tensors */
    size_t alignment;
};
const struct tg_gguf_value *tg_gguf_file_find(const struct tg_gguf_file *g, const char *key);

/* One scalar that is not a string, at the cursor */
struct tg_gguf_value tg_gguf_scalar(struct tg_cursor *c, enum tg_gguf_type type);
bool tg_gguf_as_int(const struct tg_gguf_value *v, int64_t *out); /* false if it is none */

/* Sets of parts: formats/gguf_split.c */
int tg_gguf_siblings(const struct tg_format_file *f, char ***paths, size_t *count,
                     struct tg_err *err);
int tg_gguf_check_set(const struct tg_tensors *t, struct tg_err *err);

/* Writing: formats/gguf_write.c */
bool tg_gguf_holds(enum tg_dtype t);
int tg_gguf_accepts(const struct tg_tensor_plan *p, const char *path, struct tg_err *err);
int tg_gguf_begin(struct tg_format_out *f, struct tg_err *err);
int tg_gguf_after(struct tg_format_out *f, size_t i, struct tg_err *err);

#endif
