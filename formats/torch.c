/* PyTorch's files of tensors: a zip archive (1.6 and later) or concatenated pickles (before), each
 * with one pickle of dictionaries whose leaves are views of numbered storages. What torch.load
 * accepts with weights_only=True is read, without running anything: torch_read.c finds the tensors
 * of the pickle, this file the bytes of the storages. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "formats/torch_read.h"

struct state {
    struct tg_zip zip;
    struct tg_torch_source source;
    unsigned char *pickle; /* of a deflated data.pkl */
    char *pickle_name;     /* for messages */
    pthread_mutex_t lock;  /* of the inflated entry */
    const struct tg_zip_entry *inflated;
    unsigned char *content; /* its bytes */
};

static int fail_memory(const struct tg_format_file *f, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", f->path);
}

/* zip */

/* "mixed/data.pkl": the archive's one folder. */
static int find_root(const struct tg_format_file *f, const struct state *s, const char **root,
                     size_t *len, struct tg_err *err)
{
    static const char tail[] = "/data.pkl";
    *root = NULL;
    for (size_t i = 0; i < s->zip.count; i++) {
        const char *name = s->zip.entries[i].name, *slash = strchr(name, '/');
        if (!slash || strcmp(slash, tail) != 0)
            continue;
        if (*root)
            return tg_fail(err, TG_ERR_FORMAT, "%s: both '%.*s%s' and '%s' are there", f->path,
                           (int)*len, *root, tail, name);
        *root = name;
        *len = (size_t)(slash - name);
    }
    if (!*root)
        return tg_fail(err, TG_ERR_FORMAT, "%s: the archive has no entry '<name>/data.pkl'",
                       f->path);
    return TG_OK;
}

/* "<root>/<name>", NULL when it is not there; err is set only if memory is exhausted. */
static int find_record(const struct tg_format_file *f, const struct state *s, const char *root,
                       size_t root_len, const char *name, size_t name_len,
                       const struct tg_zip_entry **e, struct tg_err *err)
{
    char *path = tg_alloc(root_len + name_len + 2);
    if (!path)
        return fail_memory(f, err);
    memcpy(path, root, root_len);
    path[root_len] = '/';
    memcpy(path + root_len + 1, name, name_len);
    *e = memchr(name, '\0', name_len) ? NULL : tg_zip_find(&s->zip, path);
    tg_free(path);
    return TG_OK;
}

static int check_order(const struct tg_format_file *f, const struct state *s, const char *root,
                       size_t root_len, struct tg_err *err)
{
    const struct tg_zip_entry *e = NULL;
    char order[8] = "";
    int rc = find_record(f, s, root, root_len, "constants.pkl", 13, &e, err);
    if (rc == TG_OK && e)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: entry '%s': a TorchScript archive, not a file of tensors", f->path,
                       e->name);
    if (rc == TG_OK)
        rc = find_record(f, s, root, root_len, "byteorder", 9, &e, err);
    if (rc != TG_OK || !e) /* files before 2.1 do not say it: little */
        return rc;
    if (e->size >= sizeof order)
        return tg_fail(err, TG_ERR_FORMAT, "%s: entry '%s': %zu bytes are no byte order", f->path,
                       e->name, e->size);
    rc = tg_zip_extract(&s->zip, e, order, err);
    if (rc == TG_OK && !strcmp(order, "big"))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: entry '%s': byte order 'big' is not supported",
                       f->path, e->name);
    if (rc == TG_OK && strcmp(order, "little") != 0)
        return tg_fail(err, TG_ERR_FORMAT, "%s: entry '%s': byte order '%s' is not 'little'",
                       f->path, e->name, order);
    return rc;
}

/* The bytes of every storage: in place where they are stored, CRC checked now, because nobody asks
 * before using them; deflated ones when they are read. */
static int find_storages(const struct tg_format_file *f, struct state *s, const char *root,
                         size_t root_len, struct tg_err *err)
{
    for (size_t i = 0; i < s->source.storage_count; i++) {
        struct tg_torch_storage *st = &s->source.storages[i];
        char key[512];
        const int n = snprintf(key, sizeof key, "data/%.*s", (int)st->key_len, st->key);
        int rc = TG_OK;
        if (n == (int)st->key_len + 5 && n < (int)sizeof key)
            rc = find_record(f, s, root, root_len, key, (size_t)n, &st->entry, err);
        if (rc != TG_OK)
            return rc;
        if (!st->entry)
            return tg_fail(err, TG_ERR_FORMAT, "%s: the archive has no entry '%.*s/%s'", f->path,
                           (int)root_len, root, key);
        if (st->entry->size != st->bytes)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: entry '%s' has %zu bytes, the storage of %zu elements needs %zu",
                           f->path, st->entry->name, st->entry->size, st->elements, st->bytes);
        if (st->entry->deflated)
            continue;
        rc = tg_zip_check(&s->zip, st->entry, err);
        if (rc != TG_OK)
            return rc;
        st->data = st->entry->data;
    }
    return TG_OK;
}

static int read_pickle_entry(const struct tg_format_file *f, struct state *s,
                             const struct tg_zip_entry *e, struct tg_err *err)
{
    const uint8_t *bytes = e->data;
    struct tg_pickle *p = &s->source.pickle;
    int rc = TG_OK;
    if (e->size > TG_PICKLE_MAX)
        return tg_fail(err, TG_ERR_FORMAT, "%s: entry '%s': %zu bytes are above the limit of %d",
                       f->path, e->name, e->size, TG_PICKLE_MAX);
    const size_t name_size = strlen(f->path) + strlen(e->name) + 3;
    s->pickle_name = tg_alloc(name_size);
    if (!s->pickle_name)
        return fail_memory(f, err);
    snprintf(s->pickle_name, name_size, "%s: %s", f->path, e->name);
    if (e->deflated) {
        bytes = s->pickle = tg_alloc(e->size);
        rc = bytes ? tg_zip_extract(&s->zip, e, s->pickle, err) : fail_memory(f, err);
    } else {
        rc = tg_zip_check(&s->zip, e, err);
    }
    if (rc == TG_OK)
        rc = tg_pickle_read(p, bytes, e->size, tg_torch_globals, s->pickle_name, err);
    if (rc == TG_OK && p->end != e->size)
        rc = tg_fail(err, TG_ERR_FORMAT, "%s: %zu bytes after the end of the pickle",
                     s->pickle_name, e->size - p->end);
    return rc;
}

static int parse_zip(struct tg_format_file *f, struct state *s, struct tg_err *err)
{
    const struct tg_zip_entry *e = NULL;
    const char *root = NULL;
    size_t root_len = 0;
    int rc = tg_zip_read(&s->zip, f->bytes, f->len, f->path, err);
    if (rc == TG_OK)
        rc = find_root(f, s, &root, &root_len, err);
    if (rc == TG_OK)
        rc = check_order(f, s, root, root_len, err);
    if (rc == TG_OK)
        rc = find_record(f, s, root, root_len, "data.pkl", 8, &e, err);
    if (rc == TG_OK)
        rc = read_pickle_entry(f, s, e, err);
    if (rc == TG_OK)
        rc = tg_torch_storages(&s->source, false, err);
    return rc == TG_OK ? find_storages(f, s, root, root_len, err) : rc;
}

/* Before 1.6: the pickles of a magic number, a protocol version, a dictionary about the system, the
 * objects and the list of keys; then for each key the number of elements (64 bits) and the data. */

static const char magic[] = "\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19"; /* LONG1 of 10 bytes */
enum { PROTOCOL = 1001 };

static int next_pickle(const struct tg_format_file *f, struct tg_cursor *c, struct tg_pickle *p,
                       struct tg_err *err)
{
    int rc = tg_pickle_read(p, c->data + c->at, c->len - c->at, tg_torch_globals, f->path, err);
    c->at += p->end;
    return rc;
}

static int check_head(const struct tg_format_file *f, const struct tg_pickle *p, int i,
                      struct tg_err *err)
{
    const struct tg_pickle_node *n = p->root;
    if (i == 0 && (n->kind != TG_PICKLE_LONG || n->count != 10 || memcmp(n->u.text, magic, 10)))
        return tg_fail(err, TG_ERR_FORMAT, "%s: a pickle without PyTorch's magic number", f->path);
    if (i == 1 && (n->kind != TG_PICKLE_INT || n->u.integer != PROTOCOL))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: protocol version is not %d", f->path,
                       PROTOCOL);
    const struct tg_pickle_node *little = i == 2 ? tg_pickle_key(p, n, "little_endian") : NULL;
    if (i == 2 && little && (little->kind != TG_PICKLE_BOOL || !little->u.integer))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: little_endian is not True: byte order 'big' is not supported", f->path);
    return TG_OK;
}

static int take_storage(const struct tg_format_file *f, struct state *s, struct tg_cursor *c,
                        const struct tg_pickle_node *key, struct tg_err *err)
{
    if (key->kind != TG_PICKLE_TEXT)
        return tg_fail(err, TG_ERR_FORMAT, "%s: a key of the list of storages is no string",
                       f->path);
    struct tg_torch_storage *st =
        tg_torch_storage_find(&s->source, key->u.text, (size_t)key->count);
    if (!st || st->data)
        return tg_fail(err, TG_ERR_FORMAT, "%s: storage '%.*s' %s", f->path, (int)key->count,
                       key->u.text, st ? "stands twice" : "belongs to no tensor");
    const uint64_t elements = tg_cursor_u64(c);
    if (!c->failed && elements != st->elements)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: storage '%.*s' has %llu elements, its tensors say %zu", f->path,
                       (int)key->count, key->u.text, (unsigned long long)elements, st->elements);
    st->data = tg_cursor_bytes(c, st->bytes);
    if (!st->data)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: storage '%.*s' of %zu bytes ends after the file's %zu bytes", f->path,
                       (int)key->count, key->u.text, st->bytes, c->len);
    return TG_OK;
}

static int read_keys(const struct tg_format_file *f, struct state *s, struct tg_cursor *c,
                     struct tg_err *err)
{
    struct tg_pickle keys;
    const struct tg_pickle_node *key;
    int rc = next_pickle(f, c, &keys, err);
    if (rc == TG_OK && keys.root->kind != TG_PICKLE_LIST)
        rc = tg_fail(err, TG_ERR_FORMAT, "%s: the keys of storages are no list", f->path);
    if (rc == TG_OK) {
        struct tg_pickle_iter i = tg_pickle_items(keys.root);
        while (rc == TG_OK && (key = tg_pickle_next(&keys, &i)) != NULL)
            rc = take_storage(f, s, c, key, err);
    }
    tg_pickle_release(&keys);
    return rc;
}

static int parse_legacy(struct tg_format_file *f, struct state *s, struct tg_err *err)
{
    struct tg_cursor c = tg_cursor_over(f->bytes, f->len);
    int rc = TG_OK;
    for (int i = 0; i < 3 && rc == TG_OK; i++) {
        struct tg_pickle p;
        rc = next_pickle(f, &c, &p, err);
        if (rc == TG_OK)
            rc = check_head(f, &p, i, err);
        tg_pickle_release(&p);
    }
    if (rc == TG_OK)
        rc = next_pickle(f, &c, &s->source.pickle, err);
    if (rc == TG_OK)
        rc = tg_torch_storages(&s->source, true, err);
    if (rc == TG_OK)
        rc = read_keys(f, s, &c, err);
    for (size_t i = 0; i < s->source.storage_count && rc == TG_OK; i++) {
        const struct tg_torch_storage *st = &s->source.storages[i];
        if (!st->data)
            rc = tg_fail(err, TG_ERR_FORMAT, "%s: storage '%.*s' has no data", f->path,
                         (int)st->key_len, st->key);
    }
    if (rc == TG_OK && c.at != c.len)
        rc = tg_fail(err, TG_ERR_FORMAT, "%s: %zu bytes after the last storage", f->path,
                     c.len - c.at);
    return rc;
}

/* row */

static bool is_zip(const void *bytes, size_t len)
{
    return len >= 4 && !memcmp(bytes, "PK\3\4", 4);
}

/* A zip archive, or a pickle that begins with the magic number. */
static bool probe(const void *bytes, size_t len)
{
    const char *p = bytes;
    return is_zip(bytes, len) || (len >= 14 && p[0] == '\x80' && !memcmp(p + 2, "\x8A\x0A", 2) &&
                                  !memcmp(p + 4, magic, 10));
}

/* Elements of a tensor from its storage's inflated bytes, of which one entry is kept. */
static int make(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                struct tg_err *err)
{
    const struct tg_torch_view *v = t->source;
    struct state *s = v->owner;
    if (v->storage->data) {
        tg_torch_gather(t, v->storage->data, first, count, dst);
        return TG_OK;
    }
    const struct tg_zip_entry *e = v->storage->entry;
    int rc = TG_OK;
    pthread_mutex_lock(&s->lock);
    if (s->inflated != e) {
        tg_free(s->content);
        s->inflated = NULL;
        s->content = tg_alloc(e->size);
        rc = s->content ? tg_zip_extract(&s->zip, e, s->content, err)
                        : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->file);
        if (rc == TG_OK)
            s->inflated = e;
    }
    if (rc == TG_OK)
        tg_torch_gather(t, s->content, first, count, dst);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int parse(struct tg_format_file *f, struct tg_tensor_list *list, struct tg_err *err)
{
    struct state *s = tg_alloc(sizeof *s);
    if (!s)
        return fail_memory(f, err);
    f->state = s;
    s->source.file = f->path;
    pthread_mutex_init(&s->lock, NULL);
    int rc = is_zip(f->bytes, f->len) ? parse_zip(f, s, err) : parse_legacy(f, s, err);
    return rc == TG_OK ? tg_torch_tensors(&s->source, s, make, list, err) : rc;
}

static void release(struct tg_format_file *f)
{
    struct state *s = f->state;
    if (!s)
        return;
    tg_torch_source_release(&s->source);
    tg_zip_release(&s->zip);
    pthread_mutex_destroy(&s->lock);
    tg_free(s->pickle);
    tg_free(s->pickle_name);
    tg_free(s->content);
    tg_free(s);
    f->state = NULL;
}

static const char *meta(const struct tg_format_file *f, const char *key)
{
    const struct state *s = f->state;
    return tg_torch_meta(&s->source, key);
}

const struct tg_format tg_format_torch = {
    .name = "torch",
    .ext = ".bin",
    .single = "pytorch_model.bin",
    .shard = "pytorch_model-%05zu-of-%05zu.bin",
    .index = "pytorch_model.bin.index.json",
    .probe = probe,
    .parse = parse,
    .release = release,
    .meta = meta,
    .holds = tg_torch_holds,
    .begin = tg_torch_begin,
    .before = tg_torch_before,
    .write = tg_torch_write,
    .after = tg_torch_after,
    .end = tg_torch_end,
    .close = tg_torch_close,
};
