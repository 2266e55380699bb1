/* A trie over bytes with one bit for each child: longest and common prefixes of a vocabulary. */
#ifndef TG_FORMATS_TRIE_H
#define TG_FORMATS_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Children lie side by side in the order of their bytes, from `child` on. */
struct tg_trie_node {
    uint64_t bits[4];
    uint8_t before[4]; /* children in the words before */
    uint32_t child;
    int32_t value; /* of the key that ends here, or -1 */
};
struct tg_trie {
    struct tg_trie_node *nodes; /* owned; 0 is the root; NULL: no keys */
    size_t count, cap;
};

struct tg_trie_key {
    const char *s;
    size_t len;
    int32_t value; /* >= 0 */
};
/* Sorts keys in place; of equal ones the first counts. false: no memory. */
bool tg_trie_build(struct tg_trie *t, struct tg_trie_key *keys, size_t count);
void tg_trie_release(struct tg_trie *t);

static inline unsigned tg_bits_set(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
    return (unsigned)(x * 0x0101010101010101u >> 56);
}

/* The child of `node` by `byte`, or 0. */
static inline uint32_t tg_trie_step(const struct tg_trie *t, uint32_t node, unsigned char byte)
{
    const struct tg_trie_node *n = &t->nodes[node];
    uint64_t word = n->bits[byte >> 6], bit = (uint64_t)1 << (byte & 63);
    if (!(word & bit))
        return 0;
    return n->child + n->before[byte >> 6] + tg_bits_set(word & (bit - 1));
}

/* Length of the longest key at the beginning of s, and its value; 0: none. */
static inline size_t tg_trie_longest(const struct tg_trie *t, const char *s, size_t len,
                                     int32_t *value)
{
    size_t found = 0;
    uint32_t node = 0;
    if (!t->nodes)
        return 0;
    for (size_t i = 0; i < len && (node = tg_trie_step(t, node, (unsigned char)s[i])); i++)
        if (t->nodes[node].value >= 0) {
            *value = t->nodes[node].value;
            found = i + 1;
        }
    return found;
}

#endif
