/* Text generation with a cache: greedy or sampled, many sequences at a time. */
#ifndef TG_LINEARIZE_GENERATE_H
#define TG_LINEARIZE_GENERATE_H

#include "linearize/model/model.h"

struct tg_sampling {
    double temperature; /* 0: greedy (first of equal maxima) */
    size_t top_k;       /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;      /* sequence i draws from stream i */
};
/* Continues each prompt by at most `count` tokens; out [B,count], made[b] = how many were made
 * (fewer when an eos id came and stop_at_eos). Sequence b's draws depend on seed and b only, not on
 * the others. on_token (may be NULL) sees each token; non-zero stops. */
typedef int (*tg_token_fn)(void *ud, size_t sequence, int32_t id);
int tg_generate(struct tg_model *m, const int32_t *const *prompts, const size_t *prompt_len,
                size_t sequences, size_t count, const struct tg_sampling *s, bool stop_at_eos,
                int32_t *out, size_t *made, tg_token_fn on_token, void *ud, struct tg_err *err);

#endif
