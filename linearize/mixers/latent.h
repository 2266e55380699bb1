/* How small the latent of keys and values may be (latent.c). */
#ifndef TG_LINEARIZE_LATENT_H
#define TG_LINEARIZE_LATENT_H

#include "linearize/mixers/mixer.h"

/* The smallest rank, at least 1, by which the keys' and values' weights W = [Wk; Wv] of a softmax
 * or window layer lose no more than `error`: |W - W_rank| / |W| <= error in the Frobenius norm.
 * Needs memory for W in double. TG_ERR_VALUE if weights are not finite, TG_ERR_NOMEM. */
int tg_latent_rank(const struct tg_mixer *from, double error, size_t *rank, struct tg_err *err);

#endif
