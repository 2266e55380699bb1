/* Which first symbols of a text merges can bring together: where two neighbours are not among them,
 * a text can be cut without changing what BPE makes of it, because every merged symbol that reached
 * over the cut would begin with a merge there. */
#ifndef TG_FORMATS_SEAMS_H
#define TG_FORMATS_SEAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/tokenizer/bpe.h"

struct tg_seams {
    bool known;              /* false: no text may be cut */
    struct tg_merges joined; /* owned; pairs of neighbours over which a merge can reach */
};
/* initial[symbols]: a text can hold the symbol before any merge. false: no memory. */
bool tg_seams_make(struct tg_seams *s, const struct tg_tokenizer *t, const struct tg_merges *m,
                   const bool *initial, size_t symbols);
void tg_seams_release(struct tg_seams *s);
static inline bool tg_seams_join(const struct tg_seams *s, int32_t a, int32_t b)
{
    return tg_merges_has(&s->joined, a, b);
}

#endif
