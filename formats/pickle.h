/* Python pickles, read as data: the opcodes and nothing but the opcodes of PyTorch's weights-only
 * unpickler (torch/_weights_only_unpickler.py), and the globals that the caller lists. Nothing is
 * executed: a call is a node that names its callee and holds its arguments.
 *
 * Every node costs at least one byte of the pickle, so memory is bounded by the pickle's size. The
 * nodes may form cycles and share parts (a list may hold itself): whoever walks them bounds depth
 * and steps. */
#ifndef TG_FORMATS_PICKLE_H
#define TG_FORMATS_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { TG_PICKLE_MAX = 1 << 26 }; /* bytes of a pickle that is read */

enum tg_pickle_kind {
    TG_PICKLE_NONE,
    TG_PICKLE_BOOL,
    TG_PICKLE_INT,
    TG_PICKLE_LONG, /* an integer outside int64: its bytes, little-endian, in text */
    TG_PICKLE_FLOAT,
    TG_PICKLE_TEXT,
    TG_PICKLE_TUPLE,
    TG_PICKLE_LIST,
    TG_PICKLE_DICT, /* keys and values in turn; also an OrderedDict */
    TG_PICKLE_SET,
    TG_PICKLE_GLOBAL,
    TG_PICKLE_OBJECT, /* callee(*args), not called */
    TG_PICKLE_PERSID, /* a persistent id: args */
};

struct tg_pickle_global {
    const char *name; /* "module.name" */
    int what;         /* the caller's */
    bool is_dict;     /* a call makes a dictionary, of no items or of a list of pairs */
};

struct tg_pickle_cell;
struct tg_pickle_node {
    uint8_t kind;         /* enum tg_pickle_kind */
    uint32_t count;       /* items of a container; bytes of text */
    uint32_t first, last; /* private: a container's cells; callee and args of a call */
    uint32_t state;       /* private: what BUILD set; 0: nothing */
    union {
        int64_t integer; /* INT, BOOL */
        double number;
        const char *text; /* TEXT: UTF-8, not terminated, borrowed from the pickle */
        const struct tg_pickle_global *global;
    } u;
};

struct tg_pickle {
    const char *file;             /* for messages; borrowed */
    struct tg_pickle_node *nodes; /* [count]; nodes[0] stands for "no node" */
    size_t count, node_cap;
    struct tg_pickle_cell *cells;
    size_t cell_count, cell_cap;
    const struct tg_pickle_node *root;
    size_t end; /* bytes read, with the STOP */
};

/* Reads one pickle at the beginning of bytes, which outlive p. `globals` ends with a NULL name and
 * outlives p too; any other global is an error that names it. Whatever comes back, p is to be
 * released. TG_ERR_FORMAT, TG_ERR_UNSUPPORTED (opcode, global), TG_ERR_NOMEM. */
int tg_pickle_read(struct tg_pickle *p, const void *bytes, size_t len,
                   const struct tg_pickle_global *globals, const char *file, struct tg_err *err);
void tg_pickle_release(struct tg_pickle *p);

/* The items of a container: tg_pickle_next gives them one by one, then NULL. */
struct tg_pickle_iter {
    uint32_t cell;
};
struct tg_pickle_iter tg_pickle_items(const struct tg_pickle_node *n);
const struct tg_pickle_node *tg_pickle_next(const struct tg_pickle *p, struct tg_pickle_iter *i);
/* Item i of a container, NULL when there is none */
const struct tg_pickle_node *tg_pickle_item(const struct tg_pickle *p,
                                            const struct tg_pickle_node *n, size_t i);
const struct tg_pickle_node *tg_pickle_callee(const struct tg_pickle *p,
                                              const struct tg_pickle_node *n);
const struct tg_pickle_node *tg_pickle_args(const struct tg_pickle *p,
                                            const struct tg_pickle_node *n);
const struct tg_pickle_node *tg_pickle_state(const struct tg_pickle *p,
                                             const struct tg_pickle_node *n); /* NULL: none */
bool tg_pickle_is_text(const struct tg_pickle_node *n, const char *text);
/* The value of a text key; NULL when n is no dictionary or has no such key */
const struct tg_pickle_node *tg_pickle_key(const struct tg_pickle *p,
                                           const struct tg_pickle_node *n, const char *key);
const char *tg_pickle_kind_name(enum tg_pickle_kind kind); /* "tuple", for messages */

#endif
