/* GGUF: typed metadata (keys and values) of files that are read or written. The tensors themselves
 * come through formats/tensors.h; docs/formats/gguf.md says what is refused. */
#ifndef TG_FORMATS_GGUF_H
#define TG_FORMATS_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/tensors.h"

/* Numbers as in the file */
enum tg_gguf_type {
    TG_GGUF_U8,
    TG_GGUF_I8,
    TG_GGUF_U16,
    TG_GGUF_I16,
    TG_GGUF_U32,
    TG_GGUF_I32,
    TG_GGUF_F32,
    TG_GGUF_BOOL,
    TG_GGUF_STRING,
    TG_GGUF_ARRAY,
    TG_GGUF_U64,
    TG_GGUF_I64,
    TG_GGUF_F64,
    TG_GGUF_TYPE_COUNT
};
const char *tg_gguf_type_name(enum tg_gguf_type t); /* "U32", "STRING"; "?" if there is none */

/* Any bytes; when read as a scalar, a NUL follows the last. */
struct tg_gguf_string {
    const char *text;
    size_t len;
};

struct tg_gguf_array {
    enum tg_gguf_type type; /* of the elements; never TG_GGUF_ARRAY */
    size_t count;
    /* STRING: const struct tg_gguf_string [count]. Others: packed little-endian elements as in the
     * file, perhaps unaligned: read them with tg_gguf_element. */
    const void *data;
};

struct tg_gguf_value {
    enum tg_gguf_type type; /* says which member counts */
    union {
        uint64_t u; /* U8 U16 U32 U64 */
        int64_t i;  /* I8 I16 I32 I64 */
        double f;   /* F32 F64 */
        bool b;
        struct tg_gguf_string s;
        struct tg_gguf_array array;
    };
};

struct tg_gguf_kv {
    const char *key;
    struct tg_gguf_value value;
};

/* Values for a list of struct tg_gguf_kv to be written */
static inline struct tg_gguf_value tg_gguf_u32(uint32_t x)
{
    return (struct tg_gguf_value){.type = TG_GGUF_U32, .u = x};
}
static inline struct tg_gguf_value tg_gguf_f32(float x)
{
    return (struct tg_gguf_value){.type = TG_GGUF_F32, .f = x};
}
static inline struct tg_gguf_value tg_gguf_bool(bool x)
{
    return (struct tg_gguf_value){.type = TG_GGUF_BOOL, .b = x};
}
static inline struct tg_gguf_value tg_gguf_text(const char *text, size_t len)
{
    return (struct tg_gguf_value){.type = TG_GGUF_STRING, .s = {text, len}};
}
static inline struct tg_gguf_value tg_gguf_array(enum tg_gguf_type type, const void *data,
                                                 size_t count)
{
    return (struct tg_gguf_value){.type = TG_GGUF_ARRAY, .array = {type, count, data}};
}

/* Metadata of an open set: that of its first part, in the order of the file. A set of another
 * format has none. Everything is borrowed from the set. */
size_t tg_gguf_count(const struct tg_tensors *t);
const struct tg_gguf_kv *tg_gguf_at(const struct tg_tensors *t, size_t i);
const struct tg_gguf_value *tg_gguf_find(const struct tg_tensors *t,
                                         const char *key); /* NULL if absent */
/* The keys for a file that gets this set's tensors: all but split.*, and if dtypes change
 * general.file_type, which names them. The list is the caller's (tg_free); what it points to is
 * borrowed. A set of another format gives none. */
int tg_gguf_keys(const struct tg_tensors *t, bool retyped, struct tg_gguf_kv **kv, size_t *count,
                 struct tg_err *err);
/* Element i of an array as a scalar; false when v is no array or has no element i. */
bool tg_gguf_element(const struct tg_gguf_value *v, size_t i, struct tg_gguf_value *out);

/* A value that must be there, be of the kind asked for and lie in its limits; else the message
 * names file, key, what stands there and what is wanted. Integers may have any integer type, floats
 * either float type; an array's elements have exactly `type`. */
int tg_gguf_get_int(const struct tg_tensors *t, const char *key, int64_t min, int64_t max,
                    int64_t *out, struct tg_err *err);
int tg_gguf_get_float(const struct tg_tensors *t, const char *key, double min, double max,
                      double *out, struct tg_err *err);
int tg_gguf_get_bool(const struct tg_tensors *t, const char *key, bool *out, struct tg_err *err);
int tg_gguf_get_string(const struct tg_tensors *t, const char *key, const char **out,
                       struct tg_err *err); /* refuses one with a NUL inside */
int tg_gguf_get_array(const struct tg_tensors *t, const char *key, enum tg_gguf_type type,
                      const struct tg_gguf_value **out, struct tg_err *err);

#endif
