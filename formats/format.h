/* A file format of named tensors: one row of formats.def, one file that exports one const struct.
 * tensors.c finds the row that a file belongs to and puts shards together; tensor_writer.c checks a
 * plan, cuts it into files and lets the row write each. */
#ifndef TG_FORMATS_FORMAT_H
#define TG_FORMATS_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "formats/tensors.h"

struct tg_tensor_list {
    struct tg_tensor *items; /* owned: tg_free */
    size_t count, cap;
};

/* One file that is being read. */
struct tg_format_file {
    const char *path;  /* for messages; borrowed, outlives the tensors */
    const void *bytes; /* the whole file, mapped; borrowed likewise */
    size_t len;
    void *state; /* the format's own; `release` frees it. Tensors may borrow from it */
};

/* One file that is being written. */
struct tg_format_out {
    struct tg_out *out;
    const char *path;
    const struct tg_tensor_plan *const *tensors; /* [count], in the order in which data will come */
    size_t count;
    size_t part, parts; /* this is file `part` (from 0) of `parts` */
    size_t total;       /* tensors in all parts */
    const struct tg_write_options *options;
    void *state; /* the format's own; `close` frees it */
};

struct tg_format {
    const char *name;   /* "safetensors" */
    const char *ext;    /* ".safetensors" */
    const char *single; /* the name of the only file in a model's directory */
    const char *shard;  /* printf pattern of the name of file i of n (two size_t, from 1) */
    const char *index;  /* name of the JSON index that lists the shards; NULL: files that are parts
                           say so themselves (`siblings`) */

    /* Does the file begin like one of this format? Looks at the first bytes (all of `len` at most),
     * never fails. */
    bool (*probe)(const void *bytes, size_t len);
    /* Appends the tensors of f to the list: names, dtypes, shapes, sizes, and where their data are.
     * On failure what was appended is dropped by the caller; state is released all the same. */
    int (*parse)(struct tg_format_file *f, struct tg_tensor_list *list, struct tg_err *err);
    void (*release)(struct tg_format_file *f); /* accepts a NULL state */
    const char *(*meta)(const struct tg_format_file *f,
                        const char *key); /* a string of the file's metadata, or NULL */
    /* A parsed file of a set without an index: the paths of all its files, in order (owned by the
     * caller: tg_names_free); count 0: it stands alone. NULL: the format has no such sets. */
    int (*siblings)(const struct tg_format_file *f, char ***paths, size_t *count,
                    struct tg_err *err);
    /* A set whose files have all been parsed, in the order of `siblings`: what only the whole
     * shows. NULL: nothing. */
    int (*check_set)(const struct tg_tensors *t, struct tg_err *err);

    /* Writing; all NULL: the format is only read. */
    bool (*holds)(enum tg_dtype t);
    /* The format's own rules for names and shapes. NULL: none */
    int (*accepts)(const struct tg_tensor_plan *p, const char *path, struct tg_err *err);
    /* Order of the data in a file, < 0, 0, > 0; what is equal keeps the plan's order. NULL: the
     * plan's. */
    int (*order)(const struct tg_tensor_plan *a, const struct tg_tensor_plan *b);
    int (*begin)(struct tg_format_out *f, struct tg_err *err); /* everything before the data */
    int (*before)(struct tg_format_out *f, size_t i, struct tg_err *err); /* NULL: nothing */
    int (*write)(struct tg_format_out *f, const void *bytes, size_t n,
                 struct tg_err *err); /* a piece of tensor i's data; NULL: as it comes */
    int (*after)(struct tg_format_out *f, size_t i, struct tg_err *err); /* NULL: nothing */
    int (*end)(struct tg_format_out *f, struct tg_err *err);             /* NULL: nothing */
    void (*close)(struct tg_format_out *f); /* frees state; NULL: none. Called on every path */
};
extern const struct tg_format
    *const tg_formats[]; /* NULL-terminated, in the order of formats.def */
const struct tg_format *tg_format_find(const char *name); /* NULL if unknown */

#define TG_FORMAT(name) extern const struct tg_format tg_format_##name;
#include "formats/formats.def"
#undef TG_FORMAT

/* For the formats' own accessors: format and i-th file of an open set */
const struct tg_format *tg_tensors_format(const struct tg_tensors *t);
const struct tg_format_file *tg_tensors_part(const struct tg_tensors *t, size_t i);

/* elements and bytes from dtype, rank and shape; false when they overflow, a size is negative, or
 * the elements are no whole number of blocks. */
bool tg_tensor_measure(enum tg_dtype dtype, int rank, const int64_t *shape, size_t *elements,
                       size_t *bytes);

#endif
