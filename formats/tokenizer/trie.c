#include "formats/tokenizer/trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static int by_bytes(const void *a, const void *b)
{
    const struct tg_trie_key *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int order = n ? memcmp(x->s, y->s, n) : 0;
    if (order)
        return order;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* The sorted keys that go through a node, and its depth. */
struct range {
    size_t begin, end, depth;
};
struct builder {
    struct tg_trie *t;
    struct range *ranges; /* owned; of each node */
    size_t cap;
};

static bool add_node(struct builder *b, struct range r)
{
    struct tg_trie *t = b->t;
    if (t->count >= UINT32_MAX || !tg_grow(&t->nodes, &t->cap, t->count + 1, sizeof *t->nodes) ||
        !tg_grow(&b->ranges, &b->cap, t->count + 1, sizeof *b->ranges))
        return false;
    t->nodes[t->count] = (struct tg_trie_node){.value = -1};
    b->ranges[t->count++] = r;
    return true;
}

/* Values and children of one node. */
static bool expand(struct builder *b, const struct tg_trie_key *keys, size_t at)
{
    struct range r = b->ranges[at];
    unsigned before = 0;
    if (keys[r.begin].len == r.depth)
        b->t->nodes[at].value = keys[r.begin].value;
    while (r.begin < r.end && keys[r.begin].len == r.depth)
        r.begin++;
    b->t->nodes[at].child = (uint32_t)b->t->count;
    while (r.begin < r.end) {
        unsigned char byte = (unsigned char)keys[r.begin].s[r.depth];
        size_t end = r.begin + 1;
        while (end < r.end && (unsigned char)keys[end].s[r.depth] == byte)
            end++;
        if (!add_node(b, (struct range){r.begin, end, r.depth + 1}))
            return false;
        b->t->nodes[at].bits[byte >> 6] |= (uint64_t)1 << (byte & 63);
        r.begin = end;
    }
    for (size_t i = 0; i < 4; i++) {
        b->t->nodes[at].before[i] = (uint8_t)before;
        before += tg_bits_set(b->t->nodes[at].bits[i]);
    }
    return true;
}

bool tg_trie_build(struct tg_trie *t, struct tg_trie_key *keys, size_t count)
{
    struct builder b = {.t = t};
    *t = (struct tg_trie){0};
    if (count == 0)
        return true;
    qsort(keys, count, sizeof *keys, by_bytes);
    bool ok = add_node(&b, (struct range){0, count, 0});
    for (size_t at = 0; ok && at < t->count; at++)
        ok = expand(&b, keys, at);
    tg_free(b.ranges);
    if (!ok)
        tg_trie_release(t);
    return ok;
}

void tg_trie_release(struct tg_trie *t)
{
    tg_free(t->nodes);
    *t = (struct tg_trie){0};
}
