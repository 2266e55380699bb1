#include "formats/pickle.h"

#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "base/utf8.h"

struct tg_pickle_cell {
    uint32_t node, next; /* next 0: the last */
};

/* The machine. Stack and memo hold indices of nodes; a mark is a height of the stack, and nothing
 * below the last mark can be reached. */
struct machine {
    struct tg_pickle *p;
    const struct tg_pickle_global *globals;
    struct tg_cursor c;
    uint32_t *stack, *memo;
    size_t *marks;
    size_t height, stack_cap, memo_cap, mark_count, mark_cap;
    size_t at; /* of the opcode, for messages */
    bool stopped;
    struct tg_err *err;
};

static int fail(const struct machine *m, const char *what)
{
    return tg_fail(m->err, TG_ERR_FORMAT, "%s: pickle, byte %zu: %s", m->p->file, m->at, what);
}

static int fail_memory(const struct machine *m)
{
    return tg_fail(m->err, TG_ERR_NOMEM, "%s: out of memory", m->p->file);
}

static size_t floor_of(const struct machine *m)
{
    return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

static int need(const struct machine *m, size_t n)
{
    return m->height - floor_of(m) >= n ? TG_OK : fail(m, "the stack holds too few objects");
}

static struct tg_pickle_node *top(const struct machine *m, size_t below)
{
    return &m->p->nodes[m->stack[m->height - 1 - below]];
}

static int push(struct machine *m, uint32_t node)
{
    if (!tg_grow(&m->stack, &m->stack_cap, m->height + 1, sizeof *m->stack))
        return fail_memory(m);
    m->stack[m->height++] = node;
    return TG_OK;
}

static int push_node(struct machine *m, struct tg_pickle_node n)
{
    struct tg_pickle *p = m->p;
    if (!tg_grow(&p->nodes, &p->node_cap, p->count + 1, sizeof *p->nodes))
        return fail_memory(m);
    p->nodes[p->count] = n;
    return push(m, (uint32_t)p->count++);
}

static int push_kind(struct machine *m, enum tg_pickle_kind kind)
{
    return push_node(m, (struct tg_pickle_node){.kind = kind});
}

static int push_int(struct machine *m, enum tg_pickle_kind kind, int64_t v)
{
    return push_node(m, (struct tg_pickle_node){.kind = kind, .u.integer = v});
}

static int add_item(struct machine *m, uint32_t container, uint32_t node)
{
    struct tg_pickle *p = m->p;
    if (p->cell_count / 2 > m->c.len) /* pairs of one list, made a dictionary again and again */
        return fail(m, "the containers hold more items than the pickle has bytes");
    if (!tg_grow(&p->cells, &p->cell_cap, p->cell_count + 1, sizeof *p->cells))
        return fail_memory(m);
    const uint32_t cell = (uint32_t)p->cell_count++;
    struct tg_pickle_node *n = &p->nodes[container];
    p->cells[cell] = (struct tg_pickle_cell){node, 0};
    if (n->last)
        p->cells[n->last].next = cell;
    else
        n->first = cell;
    n->last = cell;
    n->count++;
    return TG_OK;
}

/* Moves the top n of the stack into the container. */
static int take(struct machine *m, uint32_t container, size_t n)
{
    int rc = TG_OK;
    for (size_t i = 0; i < n && rc == TG_OK; i++)
        rc = add_item(m, container, m->stack[m->height - n + i]);
    m->height -= n;
    return rc;
}

static int make_tuple(struct machine *m, size_t n)
{
    int rc = need(m, n);
    if (rc == TG_OK)
        rc = push_kind(m, TG_PICKLE_TUPLE);
    if (rc != TG_OK)
        return rc;
    const uint32_t tuple = m->stack[--m->height];
    rc = take(m, tuple, n);
    return rc == TG_OK ? push(m, tuple) : rc;
}

static int set_mark(struct machine *m)
{
    if (!tg_grow(&m->marks, &m->mark_cap, m->mark_count + 1, sizeof *m->marks))
        return fail_memory(m);
    m->marks[m->mark_count++] = m->height;
    return TG_OK;
}

/* The objects above the last mark, which is removed. */
static int pop_mark(struct machine *m, size_t *n)
{
    if (!m->mark_count)
        return fail(m, "no mark is set");
    *n = m->height - m->marks[--m->mark_count];
    return TG_OK;
}

/* The n objects on top go into the container below them. */
static int extend(struct machine *m, size_t n, enum tg_pickle_kind kind)
{
    int rc = need(m, n + 1);
    if (rc != TG_OK)
        return rc;
    if (top(m, n)->kind != kind)
        return fail(m, kind == TG_PICKLE_LIST ? "items are appended to what is no list"
                                              : "items are set in what is no dictionary");
    if (kind == TG_PICKLE_DICT && n % 2)
        return fail(m, "a key without a value");
    return take(m, m->stack[m->height - 1 - n], n);
}

static int extend_marked(struct machine *m, enum tg_pickle_kind kind)
{
    size_t n = 0;
    int rc = pop_mark(m, &n);
    return rc == TG_OK ? extend(m, n, kind) : rc;
}

static int push_text(struct machine *m, size_t n)
{
    const char *text = (const char *)tg_cursor_bytes(&m->c, n);
    if (!text)
        return fail(m, "a string ends after the pickle");
    if (tg_utf8_check(text, n) != n)
        return fail(m, "a string is not UTF-8");
    return push_node(
        m, (struct tg_pickle_node){.kind = TG_PICKLE_TEXT, .count = (uint32_t)n, .u.text = text});
}

static int push_long(struct machine *m)
{
    const size_t n = tg_cursor_u8(&m->c);
    const uint8_t *bytes = tg_cursor_bytes(&m->c, n);
    if (!bytes)
        return fail(m, "an integer ends after the pickle");
    if (n > 8)
        return push_node(m, (struct tg_pickle_node){.kind = TG_PICKLE_LONG,
                                                    .count = (uint32_t)n,
                                                    .u.text = (const char *)bytes});
    uint64_t v = n && bytes[n - 1] & 0x80 ? ~(uint64_t)0 : 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | bytes[i];
    return push_int(m, TG_PICKLE_INT, (int64_t)v);
}

static int push_float(struct machine *m)
{
    const uint8_t *bytes = tg_cursor_bytes(&m->c, 8);
    uint64_t v = 0;
    double d;
    for (size_t i = 0; bytes && i < 8; i++)
        v = v << 8 | bytes[i];
    memcpy(&d, &v, 8);
    return push_node(m, (struct tg_pickle_node){.kind = TG_PICKLE_FLOAT, .u.number = d});
}

static int read_line(struct machine *m, const char **text, size_t *n)
{
    const uint8_t *begin = m->c.data + m->c.at;
    const size_t left = m->c.len - m->c.at;
    const uint8_t *end = left ? memchr(begin, '\n', left) : NULL;
    if (!end)
        return fail(m, "a global's name ends after the pickle");
    *text = (const char *)begin;
    *n = (size_t)(end - begin);
    m->c.at += *n + 1;
    return TG_OK;
}

/* Names come from the file: what a terminal would not show is replaced. */
static void add_name(char *buf, size_t size, const char *text, size_t n)
{
    size_t at = strlen(buf);
    for (size_t i = 0; i < n && at + 1 < size; i++)
        buf[at++] = text[i] > ' ' && text[i] < 0x7F ? text[i] : '?';
    buf[at] = '\0';
}

static int push_global(struct machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t module_len = 0, name_len = 0;
    char full[256] = "";
    int rc = read_line(m, &module, &module_len);
    if (rc == TG_OK)
        rc = read_line(m, &name, &name_len);
    if (rc != TG_OK)
        return rc;
    if (module_len == 11 && !memcmp(module, "__builtin__", 11)) /* Python 2's name of it */
        add_name(full, sizeof full, "builtins", 8);
    else
        add_name(full, sizeof full, module, module_len);
    add_name(full, sizeof full, ".", 1);
    add_name(full, sizeof full, name, name_len);
    for (const struct tg_pickle_global *g = m->globals; g->name; g++)
        if (!strcmp(g->name, full))
            return push_node(m, (struct tg_pickle_node){.kind = TG_PICKLE_GLOBAL, .u.global = g});
    return tg_fail(m->err, TG_ERR_UNSUPPORTED,
                   "%s: pickle, byte %zu: global '%s' is none of those that weights need; it is "
                   "not imported",
                   m->p->file, m->at, full);
}

/* OrderedDict() or OrderedDict([[key, value], ...]), as Python 2 wrote it. */
static int call_dict(struct machine *m, const struct tg_pickle_node *args)
{
    const struct tg_pickle_node *pairs = tg_pickle_item(m->p, args, 0), *pair;
    const uint32_t dict = (uint32_t)m->p->count;
    struct tg_pickle_iter i = {0};
    if (args->count > 1 || (pairs && pairs->kind != TG_PICKLE_LIST))
        return fail(m, "an OrderedDict is made of something else than a list of pairs");
    if (pairs)
        i = tg_pickle_items(pairs);
    int rc = push_kind(m, TG_PICKLE_DICT);
    while (rc == TG_OK && (pair = tg_pickle_next(m->p, &i)) != NULL) {
        if ((pair->kind != TG_PICKLE_LIST && pair->kind != TG_PICKLE_TUPLE) || pair->count != 2)
            return fail(m, "an OrderedDict is made of something else than a list of pairs");
        const struct tg_pickle_cell first = m->p->cells[pair->first];
        const uint32_t value = m->p->cells[first.next].node;
        rc = add_item(m, dict, first.node);
        if (rc == TG_OK)
            rc = add_item(m, dict, value);
    }
    return rc;
}

static int call(struct machine *m)
{
    int rc = need(m, 2);
    if (rc != TG_OK)
        return rc;
    const struct tg_pickle_node *args = top(m, 0), *callee = top(m, 1);
    if (callee->kind != TG_PICKLE_GLOBAL || args->kind != TG_PICKLE_TUPLE)
        return fail(m, "a call of what is no global, or without a tuple of arguments");
    m->height -= 2;
    if (callee->u.global->is_dict)
        return call_dict(m, args);
    return push_node(m, (struct tg_pickle_node){.kind = TG_PICKLE_OBJECT,
                                                .first = m->stack[m->height],
                                                .last = m->stack[m->height + 1]});
}

static int build(struct machine *m)
{
    int rc = need(m, 2);
    if (rc != TG_OK)
        return rc;
    struct tg_pickle_node *n = top(m, 1);
    if (n->kind != TG_PICKLE_OBJECT && n->kind != TG_PICKLE_DICT)
        return fail(m, "state is given to what has none");
    n->state = m->stack[--m->height];
    return TG_OK;
}

static int persistent(struct machine *m)
{
    int rc = need(m, 1);
    if (rc != TG_OK)
        return rc;
    if (top(m, 0)->kind != TG_PICKLE_TUPLE)
        return fail(m, "a persistent id is not a tuple");
    m->height--;
    return push_node(
        m, (struct tg_pickle_node){.kind = TG_PICKLE_PERSID, .last = m->stack[m->height]});
}

static int put(struct machine *m, size_t i)
{
    int rc = need(m, 1);
    if (rc != TG_OK)
        return rc;
    if (i >= m->c.len) /* a pickle of n bytes has no use for so many */
        return tg_fail(m->err, TG_ERR_FORMAT,
                       "%s: pickle, byte %zu: memo %zu is beyond the pickle's %zu bytes",
                       m->p->file, m->at, i, m->c.len);
    if (!tg_grow(&m->memo, &m->memo_cap, i + 1, sizeof *m->memo))
        return fail_memory(m);
    m->memo[i] = m->stack[m->height - 1];
    return TG_OK;
}

static int get(struct machine *m, size_t i)
{
    if (i >= m->memo_cap || !m->memo[i])
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: pickle, byte %zu: memo %zu holds nothing",
                       m->p->file, m->at, i);
    return push(m, m->memo[i]);
}

static int stop(struct machine *m)
{
    if (m->height != 1 || m->mark_count)
        return fail(m, "the end comes with more or less than one object on the stack");
    m->p->root = top(m, 0);
    m->stopped = true;
    return TG_OK;
}

static int tuple_marked(struct machine *m)
{
    size_t n = 0;
    int rc = pop_mark(m, &n);
    return rc == TG_OK ? make_tuple(m, n) : rc;
}

static int fail_opcode(const struct machine *m, uint8_t op)
{
    return tg_fail(m->err, TG_ERR_UNSUPPORTED,
                   "%s: pickle, byte %zu: opcode 0x%02X is none of those that weights need",
                   m->p->file, m->at, op);
}

/* One line for each opcode, so it is longer than a screen. */
static int step(struct machine *m)
{
    m->at = m->c.at;
    const uint8_t op = tg_cursor_u8(&m->c);
    if (m->c.failed)
        return fail(m, "ends before its STOP");
    switch (op) {
    case 0x80: /* PROTO */
        return tg_cursor_u8(&m->c) <= 5 ? TG_OK : fail(m, "protocol above 5");
    case '.': /* STOP */
        return stop(m);
    case '(': /* MARK */
        return set_mark(m);
    case 'N':
        return push_kind(m, TG_PICKLE_NONE);
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        return push_int(m, TG_PICKLE_BOOL, op == 0x88);
    case 'K': /* BININT1 */
        return push_int(m, TG_PICKLE_INT, tg_cursor_u8(&m->c));
    case 'M': /* BININT2 */
        return push_int(m, TG_PICKLE_INT, tg_cursor_u16(&m->c));
    case 'J': /* BININT */
        return push_int(m, TG_PICKLE_INT, (int32_t)tg_cursor_u32(&m->c));
    case 0x8A: /* LONG1 */
        return push_long(m);
    case 'G': /* BINFLOAT */
        return push_float(m);
    case 'X': /* BINUNICODE */
        return push_text(m, tg_cursor_u32(&m->c));
    case 'U': /* SHORT_BINSTRING */
        return push_text(m, tg_cursor_u8(&m->c));
    case ')': /* EMPTY_TUPLE */
        return push_kind(m, TG_PICKLE_TUPLE);
    case ']': /* EMPTY_LIST */
        return push_kind(m, TG_PICKLE_LIST);
    case '}': /* EMPTY_DICT */
        return push_kind(m, TG_PICKLE_DICT);
    case 0x8F: /* EMPTY_SET */
        return push_kind(m, TG_PICKLE_SET);
    case 't': /* TUPLE */
        return tuple_marked(m);
    case 0x85: /* TUPLE1 to TUPLE3 */
    case 0x86:
    case 0x87:
        return make_tuple(m, op - 0x84u);
    case 'a': /* APPEND */
        return extend(m, 1, TG_PICKLE_LIST);
    case 'e': /* APPENDS */
        return extend_marked(m, TG_PICKLE_LIST);
    case 's': /* SETITEM */
        return extend(m, 2, TG_PICKLE_DICT);
    case 'u': /* SETITEMS */
        return extend_marked(m, TG_PICKLE_DICT);
    case 'c': /* GLOBAL */
        return push_global(m);
    case 'R':  /* REDUCE */
    case 0x81: /* NEWOBJ */
        return call(m);
    case 'b': /* BUILD */
        return build(m);
    case 'Q': /* BINPERSID */
        return persistent(m);
    case 'q': /* BINPUT */
        return put(m, tg_cursor_u8(&m->c));
    case 'r': /* LONG_BINPUT */
        return put(m, tg_cursor_u32(&m->c));
    case 'h': /* BINGET */
        return get(m, tg_cursor_u8(&m->c));
    case 'j': /* LONG_BINGET */
        return get(m, tg_cursor_u32(&m->c));
    default:
        return fail_opcode(m, op);
    }
}

int tg_pickle_read(struct tg_pickle *p, const void *bytes, size_t len,
                   const struct tg_pickle_global *globals, const char *file, struct tg_err *err)
{
    *p = (struct tg_pickle){.file = file, .count = 1, .cell_count = 1};
    struct machine m = {.p = p, .globals = globals, .c = tg_cursor_over(bytes, len), .err = err};
    int rc = TG_OK;
    if (len > TG_PICKLE_MAX)
        m.c.len = TG_PICKLE_MAX; /* what follows a pickle in its file may be long */
    if (!tg_grow(&p->nodes, &p->node_cap, 1, sizeof *p->nodes) ||
        !tg_grow(&p->cells, &p->cell_cap, 1, sizeof *p->cells))
        rc = fail_memory(&m);
    while (rc == TG_OK && !m.stopped) {
        rc = step(&m);
        if (rc == TG_OK && m.c.failed)
            rc = fail(&m, "ends inside an opcode");
    }
    p->end = m.c.at;
    tg_free(m.stack);
    tg_free(m.memo);
    tg_free(m.marks);
    return rc;
}

void tg_pickle_release(struct tg_pickle *p)
{
    tg_free(p->nodes);
    tg_free(p->cells);
    *p = (struct tg_pickle){0};
}

struct tg_pickle_iter tg_pickle_items(const struct tg_pickle_node *n)
{
    return (struct tg_pickle_iter){n->first};
}

const struct tg_pickle_node *tg_pickle_next(const struct tg_pickle *p, struct tg_pickle_iter *i)
{
    if (!i->cell)
        return NULL;
    const struct tg_pickle_cell *c = &p->cells[i->cell];
    i->cell = c->next;
    return &p->nodes[c->node];
}

const struct tg_pickle_node *tg_pickle_item(const struct tg_pickle *p,
                                            const struct tg_pickle_node *n, size_t i)
{
    struct tg_pickle_iter at = tg_pickle_items(n);
    const struct tg_pickle_node *item = tg_pickle_next(p, &at);
    while (item && i-- > 0)
        item = tg_pickle_next(p, &at);
    return item;
}

const struct tg_pickle_node *tg_pickle_callee(const struct tg_pickle *p,
                                              const struct tg_pickle_node *n)
{
    return &p->nodes[n->first];
}

const struct tg_pickle_node *tg_pickle_args(const struct tg_pickle *p,
                                            const struct tg_pickle_node *n)
{
    return &p->nodes[n->last];
}

const struct tg_pickle_node *tg_pickle_state(const struct tg_pickle *p,
                                             const struct tg_pickle_node *n)
{
    return n->state ? &p->nodes[n->state] : NULL;
}

bool tg_pickle_is_text(const struct tg_pickle_node *n, const char *text)
{
    return n && n->kind == TG_PICKLE_TEXT && n->count == strlen(text) &&
           !memcmp(n->u.text, text, n->count);
}

const struct tg_pickle_node *tg_pickle_key(const struct tg_pickle *p,
                                           const struct tg_pickle_node *n, const char *key)
{
    const struct tg_pickle_node *k;
    if (!n || n->kind != TG_PICKLE_DICT)
        return NULL;
    for (struct tg_pickle_iter i = tg_pickle_items(n); (k = tg_pickle_next(p, &i)) != NULL;) {
        const struct tg_pickle_node *value = tg_pickle_next(p, &i);
        if (tg_pickle_is_text(k, key))
            return value;
    }
    return NULL;
}

const char *tg_pickle_kind_name(enum tg_pickle_kind kind)
{
    static const char *const names[] = {"None",   "bool",   "int",          "long", "float",
                                        "str",    "tuple",  "list",         "dict", "set",
                                        "global", "object", "persistent id"};
    return names[kind];
}
