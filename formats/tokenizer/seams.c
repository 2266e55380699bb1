#include "formats/tokenizer/seams.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/pipeline.h"

/* A merge, and the length of what it makes, which is greater than that of its parts. */
struct sized {
    const struct tg_merge *merge;
    size_t len;
};

static int by_length(const void *a, const void *b)
{
    size_t x = ((const struct sized *)a)->len, y = ((const struct sized *)b)->len;
    return (x > y) - (x < y);
}

/* The initial symbols with which a symbol begins and ends; -1: no text makes the symbol. */
struct ends {
    int32_t first, last;
};

/* false: the symbol can be made of different initial symbols, so its ends are not known. */
static bool follow(struct tg_seams *s, const struct tg_merge *g, struct ends *ends)
{
    struct ends a = ends[g->a], b = ends[g->b], *to = &ends[g->id];
    if (a.first < 0 || b.first < 0)
        return true;
    tg_merges_put(&s->joined, (struct tg_merge){a.last, b.first, 0, 0});
    if (to->first >= 0)
        return to->first == a.first && to->last == b.last;
    *to = (struct ends){a.first, b.last};
    return true;
}

bool tg_seams_make(struct tg_seams *s, const struct tg_tokenizer *t, const struct tg_merges *m,
                   const bool *initial, size_t symbols)
{
    size_t count = 0;
    for (size_t i = 0; i <= m->mask; i++)
        count += m->slots[i].a >= 0;
    struct sized *list = tg_alloc_array(count + 1, sizeof *list);
    struct ends *ends = tg_alloc_array(symbols + 1, sizeof *ends);
    bool ok = list && ends && tg_merges_init(&s->joined, count);
    count = 0;
    for (size_t i = 0; ok && i <= m->mask; i++)
        if (m->slots[i].a >= 0)
            list[count++] = (struct sized){&m->slots[i], t->tokens[m->slots[i].id].len};
    for (size_t i = 0; ok && i < symbols; i++)
        ends[i] = initial[i] ? (struct ends){(int32_t)i, (int32_t)i} : (struct ends){-1, -1};
    if (ok)
        qsort(list, count, sizeof *list, by_length);
    s->known = ok;
    for (size_t i = 0; i < count && s->known; i++)
        s->known = follow(s, list[i].merge, ends);
    tg_free(list);
    tg_free(ends);
    return ok;
}

void tg_seams_release(struct tg_seams *s)
{
    tg_merges_release(&s->joined);
}
