#include "formats/torch_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    NAME_LIMIT = 1024, /* bytes of a tensor's name */
    DEPTH_LIMIT = 64,
    BAD_NAME = NAME_LIMIT + 1, /* length of a name that no tensor may have */
};
static const size_t repeat_limit = (size_t)1 << 30; /* bytes of a view larger than its storage */

static int fail_memory(const struct tg_torch_source *s, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", s->file);
}

/* storages */

static bool is_storage(int what)
{
    return what == TG_TORCH_UNTYPED ||
           (what >= TG_TORCH_STORAGE && what < TG_TORCH_STORAGE + TG_DTYPE_COUNT);
}

static enum tg_dtype dtype_of_storage(int what)
{
    return what == TG_TORCH_UNTYPED ? TG_U8 : (enum tg_dtype)(what - TG_TORCH_STORAGE);
}

static int fail_id(const struct tg_torch_source *s, struct tg_err *err, const char *what)
{
    return tg_fail(err, TG_ERR_FORMAT, "%s: the persistent id of a storage: %s", s->file, what);
}

/* ("storage", class, key, location, elements), in legacy files also a view, which is None but in
 * files of 2017 and before. */
static int read_id(const struct tg_torch_source *s, const struct tg_pickle_node *n, bool legacy,
                   struct tg_torch_storage *st, struct tg_err *err)
{
    const struct tg_pickle *p = &s->pickle;
    const struct tg_pickle_node *args = tg_pickle_args(p, n), *type = tg_pickle_item(p, args, 1),
                                *key = tg_pickle_item(p, args, 2),
                                *elements = tg_pickle_item(p, args, 4),
                                *view = tg_pickle_item(p, args, 5);
    if (args->count != (legacy ? 6 : 5) ||
        !tg_pickle_is_text(tg_pickle_item(p, args, 0), "storage"))
        return fail_id(s, err, "is not ('storage', class, key, location, elements)");
    if (type->kind != TG_PICKLE_GLOBAL || key->kind != TG_PICKLE_TEXT ||
        elements->kind != TG_PICKLE_INT || elements->u.integer < 0)
        return fail_id(s, err, "class, key or elements are of the wrong type");
    if (!is_storage(type->u.global->what))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: storage '%.*s': class %s is not supported",
                       s->file, (int)key->count, key->u.text, type->u.global->name);
    if (view && view->kind != TG_PICKLE_NONE)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: storage '%.*s': views of storages are not supported", s->file,
                       (int)key->count, key->u.text);
    *st = (struct tg_torch_storage){.key = key->u.text,
                                    .key_len = key->count,
                                    .elements = (size_t)elements->u.integer,
                                    .what = type->u.global->what};
    if (!tg_dtype_bytes(dtype_of_storage(st->what), st->elements, &st->bytes))
        return fail_id(s, err, "its bytes overflow");
    return TG_OK;
}

static int by_key(const void *a, const void *b)
{
    const struct tg_torch_storage *x = a, *y = b;
    const size_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
    const int order = n ? memcmp(x->key, y->key, n) : 0;
    return order ? order : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

/* Each tensor names its storage in full: those of one key must say the same. */
static int merge(struct tg_torch_source *s, struct tg_err *err)
{
    struct tg_torch_storage *st = s->storages;
    size_t kept = 0;
    if (s->storage_count > 1)
        qsort(st, s->storage_count, sizeof *st, by_key);
    for (size_t i = 0; i < s->storage_count; i++) {
        if (kept == 0 || by_key(&st[kept - 1], &st[i]) != 0) {
            st[kept++] = st[i];
            continue;
        }
        if (st[kept - 1].what != st[i].what || st[kept - 1].elements != st[i].elements)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: storage '%.*s' has %zu elements for one tensor, %zu for another, "
                           "or two classes",
                           s->file, (int)st[i].key_len, st[i].key, st[kept - 1].elements,
                           st[i].elements);
    }
    s->storage_count = kept;
    return TG_OK;
}

int tg_torch_storages(struct tg_torch_source *s, bool legacy, struct tg_err *err)
{
    const struct tg_pickle *p = &s->pickle;
    size_t count = 0;
    for (size_t i = 1; i < p->count; i++)
        count += p->nodes[i].kind == TG_PICKLE_PERSID;
    s->storages = tg_alloc_array(count, sizeof *s->storages);
    if (!s->storages)
        return fail_memory(s, err);
    for (size_t i = 1; i < p->count; i++) {
        if (p->nodes[i].kind != TG_PICKLE_PERSID)
            continue;
        int rc = read_id(s, &p->nodes[i], legacy, &s->storages[s->storage_count++], err);
        if (rc != TG_OK)
            return rc;
    }
    return merge(s, err);
}

struct tg_torch_storage *tg_torch_storage_find(const struct tg_torch_source *s, const char *key,
                                               size_t len)
{
    const struct tg_torch_storage want = {.key = key, .key_len = len};
    return s->storage_count ? bsearch(&want, s->storages, s->storage_count, sizeof want, by_key)
                            : NULL;
}

/* one tensor */

/* What its call says, by name */
struct call {
    const struct tg_pickle_node *storage, *offset, *size, *stride;
    const struct tg_pickle_node *dtype;    /* NULL: the storage's */
    const struct tg_pickle_node *metadata; /* NULL: none */
};

struct walk {
    const struct tg_torch_source *s;
    const struct tg_pickle *p;
    char name[NAME_LIMIT + 1];
    size_t steps;
    size_t tensors, name_bytes;  /* found, or filled */
    struct tg_tensor_list *list; /* NULL: only count */
    void *owner;
    int (*make)(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                struct tg_err *err);
    struct tg_err *err;
};

static int refuse(const struct walk *w, const char *name, const char *what)
{
    return tg_fail(w->err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s", w->s->file, name, what);
}

static int fail_tensor(const struct walk *w, const char *name, const char *what)
{
    return tg_fail(w->err, TG_ERR_FORMAT, "%s: tensor '%s': %s", w->s->file, name, what);
}

static int fail_call(const struct walk *w, const char *name, const struct tg_pickle_global *g)
{
    return tg_fail(w->err, TG_ERR_UNSUPPORTED,
                   "%s: tensor '%s': %s makes a tensor that is not supported", w->s->file, name,
                   g->name);
}

static int read_args(const struct walk *w, const char *name, const struct tg_pickle_global *g,
                     const struct tg_pickle_node *args, struct call *c)
{
    const bool v3 = g->what == TG_TORCH_TENSOR_V3;
    const size_t least = g->what == TG_TORCH_TENSOR ? 4
                         : v3                       ? 7
                                                    : 6,
                 most = g->what == TG_TORCH_TENSOR ? 4 : least + 1;
    if (args->count < least || args->count > most)
        return fail_tensor(w, name, "its call has the wrong number of arguments");
    c->storage = tg_pickle_item(w->p, args, 0);
    c->offset = tg_pickle_item(w->p, args, 1);
    c->size = tg_pickle_item(w->p, args, 2);
    c->stride = tg_pickle_item(w->p, args, 3);
    c->dtype = v3 ? tg_pickle_item(w->p, args, 6) : NULL;
    c->metadata = args->count > least ? tg_pickle_item(w->p, args, least) : NULL;
    return TG_OK;
}

/* Through Parameter(tensor) and _rebuild_from_type_v2(function, type, arguments, state) to the call
 * that has the storage. */
static int read_call(const struct walk *w, const char *name, const struct tg_pickle_node *n,
                     struct call *c)
{
    for (int depth = 0; depth < 4; depth++) {
        const struct tg_pickle_node *callee = tg_pickle_callee(w->p, n),
                                    *args = tg_pickle_args(w->p, n);
        const struct tg_pickle_global *g = callee->u.global;
        if (tg_pickle_state(w->p, n))
            return refuse(w, name, "state is set on it after it is made");
        if (g->what == TG_TORCH_FROM_TYPE) {
            const struct tg_pickle_node *func = tg_pickle_item(w->p, args, 0),
                                        *type = tg_pickle_item(w->p, args, 1);
            if (args->count != 4 || func->kind != TG_PICKLE_GLOBAL ||
                type->kind != TG_PICKLE_GLOBAL || type->u.global->what != TG_TORCH_CLASS)
                return fail_call(w, name, g);
            g = func->u.global;
            args = tg_pickle_item(w->p, args, 2);
            if (args->kind != TG_PICKLE_TUPLE)
                return fail_call(w, name, g);
        }
        if (g->what >= TG_TORCH_TENSOR && g->what <= TG_TORCH_TENSOR_V3)
            return read_args(w, name, g, args, c);
        if (g->what != TG_TORCH_PARAMETER)
            return fail_call(w, name, g);
        n = tg_pickle_item(w->p, args, 0);
        if (!n || n->kind != TG_PICKLE_OBJECT)
            return fail_tensor(w, name, "a parameter of what is no tensor");
    }
    return fail_tensor(w, name, "a parameter of a parameter of a parameter");
}

/* A tuple of sizes, or torch.Size of one. */
static int read_sizes(const struct walk *w, const char *name, const struct tg_pickle_node *n,
                      int64_t out[TG_MAX_RANK], int *rank)
{
    const struct tg_pickle_node *item;
    if (n->kind == TG_PICKLE_OBJECT && tg_pickle_callee(w->p, n)->u.global->what == TG_TORCH_SIZE)
        n = tg_pickle_item(w->p, tg_pickle_args(w->p, n), 0);
    if (!n || (n->kind != TG_PICKLE_TUPLE && n->kind != TG_PICKLE_LIST))
        return fail_tensor(w, name, "size or stride is no tuple");
    if (n->count > TG_MAX_RANK)
        return tg_fail(w->err, TG_ERR_UNSUPPORTED,
                       "%s: tensor '%s': %u dimensions, at most %d are supported", w->s->file, name,
                       n->count, TG_MAX_RANK);
    *rank = 0;
    for (struct tg_pickle_iter i = tg_pickle_items(n); (item = tg_pickle_next(w->p, &i)) != NULL;) {
        if (item->kind != TG_PICKLE_INT || item->u.integer < 0)
            return fail_tensor(w, name, "size or stride holds what is no integer from 0 on");
        out[(*rank)++] = item->u.integer;
    }
    return TG_OK;
}

/* Conjugated and negated views are marked, not computed: their bytes are not their values. */
static int check_metadata(const struct walk *w, const char *name, const struct tg_pickle_node *n)
{
    const struct tg_pickle_node *item;
    if (!n || n->kind == TG_PICKLE_NONE)
        return TG_OK;
    if (n->kind != TG_PICKLE_DICT)
        return fail_tensor(w, name, "its metadata are no dictionary");
    for (struct tg_pickle_iter i = tg_pickle_items(n); (item = tg_pickle_next(w->p, &i)) != NULL;) {
        item = tg_pickle_next(w->p, &i);
        if (item->kind != TG_PICKLE_BOOL || item->u.integer)
            return refuse(w, name, "a conjugated or negated view is not supported");
    }
    return TG_OK;
}

static int read_dtype(const struct walk *w, const struct tg_pickle_node *n,
                      const struct tg_torch_storage *st, struct tg_tensor *t)
{
    t->dtype = dtype_of_storage(st->what);
    if (!n)
        return TG_OK;
    if (n->kind != TG_PICKLE_GLOBAL)
        return fail_tensor(w, t->name, "its dtype is no global");
    const int what = n->u.global->what;
    if (what < TG_TORCH_DTYPE || what >= TG_TORCH_DTYPE + TG_DTYPE_COUNT)
        return tg_fail(w->err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': dtype %s is not supported",
                       w->s->file, t->name, n->u.global->name);
    t->dtype = (enum tg_dtype)(what - TG_TORCH_DTYPE);
    return TG_OK;
}

/* Every element lies in the storage, which has room for `room` of them. */
static int check_bounds(const struct walk *w, const struct tg_tensor *t,
                        const struct tg_torch_view *v, size_t room)
{
    size_t last = v->offset;
    bool inside = true;
    for (int i = 0; i < t->rank && inside && t->elements; i++) {
        size_t far;
        inside = tg_mul_size(&far, (size_t)t->shape[i] - 1, v->stride[i]) &&
                 tg_add_size(&last, last, far);
    }
    if (t->elements && (!inside || last >= room)) {
        char shape[200];
        return tg_fail(w->err, TG_ERR_FORMAT,
                       "%s: tensor '%s': %s from element %zu on does not lie in its storage '%.*s' "
                       "of %zu elements",
                       w->s->file, t->name, tg_shape_text(t->shape, t->rank, shape, sizeof shape),
                       v->offset, (int)v->storage->key_len, v->storage->key, room);
    }
    if (t->elements > room && t->bytes > repeat_limit)
        return tg_fail(w->err, TG_ERR_UNSUPPORTED,
                       "%s: tensor '%s': a view that repeats its storage has %zu bytes, at most "
                       "%zu are supported",
                       w->s->file, t->name, t->bytes, repeat_limit);
    return TG_OK;
}

static bool is_contiguous(const struct tg_tensor *t, const struct tg_torch_view *v)
{
    size_t step = 1;
    for (int i = t->rank; i-- > 0;) {
        if (t->shape[i] != 1 && v->stride[i] != step)
            return false;
        step *= (size_t)t->shape[i];
    }
    return true;
}

static int read_view(const struct walk *w, const struct call *c, struct tg_tensor *t,
                     struct tg_torch_view *v)
{
    int64_t stride[TG_MAX_RANK];
    int strides = 0;
    if (c->storage->kind != TG_PICKLE_PERSID || c->offset->kind != TG_PICKLE_INT ||
        c->offset->u.integer < 0)
        return fail_tensor(w, t->name, "its storage or offset is of the wrong type");
    const struct tg_pickle_node *key = tg_pickle_item(w->p, tg_pickle_args(w->p, c->storage), 2);
    v->storage = tg_torch_storage_find(w->s, key->u.text, key->count);
    v->offset = (size_t)c->offset->u.integer;
    int rc = read_sizes(w, t->name, c->size, t->shape, &t->rank);
    if (rc == TG_OK)
        rc = read_sizes(w, t->name, c->stride, stride, &strides);
    if (rc == TG_OK && strides != t->rank)
        rc = fail_tensor(w, t->name, "size and stride differ in length");
    if (rc == TG_OK)
        rc = read_dtype(w, c->dtype, v->storage, t);
    if (rc == TG_OK)
        rc = check_metadata(w, t->name, c->metadata);
    if (rc != TG_OK)
        return rc;
    for (int i = 0; i < t->rank; i++)
        v->stride[i] = (size_t)stride[i];
    if (!tg_tensor_measure(t->dtype, t->rank, t->shape, &t->elements, &t->bytes))
        return fail_tensor(w, t->name, "its size overflows");
    return check_bounds(w, t, v, v->storage->bytes / tg_dtype_info(t->dtype)->block_bytes);
}

static int fill_tensor(struct walk *w, const char *name, const struct tg_pickle_node *n,
                       struct tg_tensor *t, struct tg_torch_view *v)
{
    struct call c = {0};
    *t = (struct tg_tensor){.name = name, .file = w->s->file};
    v->owner = w->owner;
    int rc = read_call(w, name, n, &c);
    if (rc == TG_OK)
        rc = read_view(w, &c, t, v);
    if (rc != TG_OK)
        return rc;
    if (!t->elements)
        t->data = w->s->file; /* no bytes of anything */
    else if (v->storage->data && is_contiguous(t, v))
        t->data = v->storage->data + v->offset * tg_dtype_info(t->dtype)->block_bytes;
    t->make = w->make;
    t->source = v;
    return TG_OK;
}

void tg_torch_gather(const struct tg_tensor *t, const uint8_t *storage, size_t first, size_t count,
                     unsigned char *dst)
{
    const struct tg_torch_view *v = t->source;
    const size_t size = tg_dtype_info(t->dtype)->block_bytes;
    size_t index[TG_MAX_RANK] = {0}, rest = first, at = v->offset;
    for (int d = t->rank; d-- > 0;) {
        index[d] = rest % (size_t)t->shape[d];
        rest /= (size_t)t->shape[d];
        at += index[d] * v->stride[d];
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(dst + i * size, storage + at * size, size);
        for (int d = t->rank; d-- > 0;) { /* on to the next index */
            at += v->stride[d];
            if (++index[d] < (size_t)t->shape[d])
                break;
            at -= index[d] * v->stride[d];
            index[d] = 0;
        }
    }
}

/* names */

/* Puts ".piece" behind the first len bytes of the name; the new length, BAD_NAME if a tensor cannot
 * be called so. */
static size_t append(struct walk *w, size_t len, bool top, const char *piece, size_t n)
{
    if (len == BAD_NAME || n > NAME_LIMIT || len + !top + n > NAME_LIMIT || memchr(piece, 0, n))
        return BAD_NAME;
    if (!top)
        w->name[len++] = '.';
    memcpy(w->name + len, piece, n);
    return len + n;
}

static size_t append_key(struct walk *w, size_t len, bool top, const struct tg_pickle_node *key)
{
    char digits[24];
    if (key->kind == TG_PICKLE_TEXT)
        return append(w, len, top, key->u.text, key->count);
    if (key->kind != TG_PICKLE_INT)
        return BAD_NAME;
    snprintf(digits, sizeof digits, "%lld", (long long)key->u.integer);
    return append(w, len, top, digits, strlen(digits));
}

static int found_tensor(struct walk *w, const struct tg_pickle_node *n, size_t len)
{
    if (len == BAD_NAME)
        return tg_fail(w->err, TG_ERR_UNSUPPORTED,
                       "%s: the keys that lead to a tensor ('%.100s...') are longer than %d bytes, "
                       "hold a NUL, or are neither str nor int",
                       w->s->file, w->name, NAME_LIMIT);
    if (w->list) {
        char *name = w->s->names + w->name_bytes;
        memcpy(name, w->name, len);
        name[len] = '\0';
        struct tg_tensor *t = &w->list->items[w->list->count++];
        int rc = fill_tensor(w, name, n, t, &w->s->views[w->tensors]);
        if (rc != TG_OK)
            return rc;
    }
    w->tensors++;
    w->name_bytes += len + 1;
    return TG_OK;
}

static bool makes_tensor(const struct walk *w, const struct tg_pickle_node *n)
{
    const int what = tg_pickle_callee(w->p, n)->u.global->what;
    return what != TG_TORCH_DATA && what != TG_TORCH_SIZE;
}

/* Tensors in dictionaries, lists and tuples. Parts may be shared, and contain themselves: depth and
 * steps are limited. An item that is visited costs the pickle a byte or more where it is not
 * shared. */
static int visit(struct walk *w, const struct tg_pickle_node *n, size_t len, int depth)
{
    const struct tg_pickle_node *item;
    int rc = TG_OK;
    if (depth > DEPTH_LIMIT)
        return tg_fail(w->err, TG_ERR_FORMAT,
                       "%s: containers are nested deeper than %d, or contain themselves",
                       w->s->file, DEPTH_LIMIT);
    if (++w->steps > w->p->end)
        return tg_fail(w->err, TG_ERR_FORMAT,
                       "%s: containers contain themselves, or are shared so often that they have "
                       "more items than the pickle has bytes (%zu)",
                       w->s->file, w->p->end);
    if (n->kind == TG_PICKLE_OBJECT)
        return makes_tensor(w, n) ? found_tensor(w, n, len) : TG_OK;
    if (n->kind != TG_PICKLE_DICT && n->kind != TG_PICKLE_LIST && n->kind != TG_PICKLE_TUPLE)
        return TG_OK;
    struct tg_pickle_iter i = tg_pickle_items(n);
    for (size_t at = 0; rc == TG_OK && (item = tg_pickle_next(w->p, &i)) != NULL; at++) {
        const struct tg_pickle_node index = {.kind = TG_PICKLE_INT, .u.integer = (int64_t)at};
        const struct tg_pickle_node *key = n->kind == TG_PICKLE_DICT ? item : &index;
        const size_t longer = append_key(w, len, depth == 0, key);
        if (n->kind == TG_PICKLE_DICT)
            item = tg_pickle_next(w->p, &i);
        rc = visit(w, item, longer, depth + 1);
    }
    return rc;
}

/* Training checkpoints keep the weights under one key beside other things. */
static bool is_wrapper(const struct tg_pickle_node *key)
{
    return tg_pickle_is_text(key, "state_dict") || tg_pickle_is_text(key, "model") ||
           tg_pickle_is_text(key, "module");
}

/* The dictionary whose keys are the names: the pickle's, or the one under the wrapper key when
 * nothing beside it holds a tensor. */
static int find_names(struct walk *w, const struct tg_pickle_node **root)
{
    const struct tg_pickle_node *top = w->p->root, *key, *value, *inner = NULL;
    size_t holders = 0;
    int rc = TG_OK;
    *root = top;
    if (top->kind != TG_PICKLE_DICT)
        return tg_fail(w->err, TG_ERR_UNSUPPORTED,
                       "%s: holds one object of type %s, not a dictionary of tensors", w->s->file,
                       top->kind == TG_PICKLE_OBJECT ? tg_pickle_callee(w->p, top)->u.global->name
                                                     : tg_pickle_kind_name(top->kind));
    struct tg_pickle_iter i = tg_pickle_items(top);
    while (rc == TG_OK && (key = tg_pickle_next(w->p, &i)) != NULL) {
        const size_t before = w->tensors;
        value = tg_pickle_next(w->p, &i);
        rc = visit(w, value, append_key(w, 0, true, key), 1);
        if (w->tensors == before)
            continue;
        holders++;
        inner = is_wrapper(key) && value->kind == TG_PICKLE_DICT ? value : NULL;
    }
    if (rc == TG_OK && holders == 1 && inner)
        *root = inner;
    return rc;
}

static int read_texts(struct tg_torch_source *s, const struct tg_pickle_node *root,
                      struct tg_err *err);

int tg_torch_tensors(struct tg_torch_source *s, void *owner,
                     int (*make)(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                                 struct tg_err *err),
                     struct tg_tensor_list *list, struct tg_err *err)
{
    struct walk w = {.s = s, .p = &s->pickle, .owner = owner, .make = make, .err = err};
    const struct tg_pickle_node *root = NULL;
    int rc = find_names(&w, &root);
    if (rc != TG_OK)
        return rc;
    s->views = tg_alloc_array(w.tensors, sizeof *s->views);
    s->names = tg_alloc(w.name_bytes); /* those without the wrapper are shorter */
    if (!s->views || !s->names ||
        !tg_grow(&list->items, &list->cap, list->count + w.tensors, sizeof *list->items))
        return fail_memory(s, err);
    w.steps = w.tensors = w.name_bytes = 0;
    w.list = list;
    rc = visit(&w, root, 0, 0);
    return rc == TG_OK ? read_texts(s, root, err) : rc;
}

/* metadata */

static bool is_line(const struct tg_pickle_node *key, const struct tg_pickle_node *value)
{
    return key->kind == TG_PICKLE_TEXT && value->kind == TG_PICKLE_TEXT &&
           !memchr(key->u.text, 0, key->count) && !memchr(value->u.text, 0, value->count);
}

/* Strings of one dictionary: counts them and their bytes, and copies them when there is room. */
static void take_texts(struct tg_torch_source *s, const struct tg_pickle_node *dict, size_t *count,
                       size_t *bytes)
{
    const struct tg_pickle_node *key;
    if (!dict || dict->kind != TG_PICKLE_DICT)
        return;
    for (struct tg_pickle_iter i = tg_pickle_items(dict);
         (key = tg_pickle_next(&s->pickle, &i)) != NULL;) {
        const struct tg_pickle_node *value = tg_pickle_next(&s->pickle, &i);
        if (!is_line(key, value))
            continue;
        if (s->text) {
            char *to = s->text + *bytes;
            memcpy(to, key->u.text, key->count);
            memcpy(to + key->count + 1, value->u.text, value->count);
            s->texts[*count] = (struct tg_torch_text){to, to + key->count + 1};
        }
        *count += 1;
        *bytes += (size_t)key->count + value->count + 2;
    }
}

/* Strings at the top of the pickle, and those of the attribute "metadata" of the dictionary of
 * tensors, where tg_torch_begin puts them. */
static int read_texts(struct tg_torch_source *s, const struct tg_pickle_node *root,
                      struct tg_err *err)
{
    const struct tg_pickle_node *state = tg_pickle_state(&s->pickle, root),
                                *own = state ? tg_pickle_key(&s->pickle, state, "metadata") : NULL;
    size_t count = 0, bytes = 0;
    take_texts(s, own, &count, &bytes);
    take_texts(s, s->pickle.root, &count, &bytes);
    if (bytes / 8 > s->pickle.end) /* one long string under many keys */
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: its strings have %zu bytes, which a pickle of %zu cannot hold", s->file,
                       bytes, s->pickle.end);
    s->texts = tg_alloc_array(count, sizeof *s->texts);
    s->text = tg_alloc(bytes);
    if (!s->texts || !s->text)
        return fail_memory(s, err);
    s->text_count = count;
    count = bytes = 0;
    take_texts(s, own, &count, &bytes);
    take_texts(s, s->pickle.root, &count, &bytes);
    return TG_OK;
}

const char *tg_torch_meta(const struct tg_torch_source *s, const char *key)
{
    for (size_t i = 0; i < s->text_count; i++)
        if (!strcmp(s->texts[i].key, key))
            return s->texts[i].value;
    return NULL;
}

void tg_torch_source_release(struct tg_torch_source *s)
{
    tg_pickle_release(&s->pickle);
    tg_free(s->storages);
    tg_free(s->views);
    tg_free(s->names);
    tg_free(s->texts);
    tg_free(s->text);
    *s = (struct tg_torch_source){0};
}
