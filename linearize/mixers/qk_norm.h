/* Norms of q and k before the rotary, of the model's norm kind (kernels.h: struct tg_norm): each
 * head alone with one weight for all (HEAD) or its own (EACH), or all heads as one row (WIDE). */
#ifndef TG_LINEARIZE_QK_NORM_H
#define TG_LINEARIZE_QK_NORM_H

#include "linearize/mixers/mixer.h"

struct tg_qk_norm_job {
    const struct tg_ctx *ctx;
    size_t rows, vectors, n; /* vectors of n in each row of x [rows, vectors, n] */
    struct tg_norm norm;     /* weights of the first vector */
    size_t stride;           /* from one vector's weights to the next one's: n for EACH, else 0 */
    size_t weights;          /* floats of the whole weight */
};
/* Of q (heads = H) or k (heads = G); "q_norm" or "k_norm" is `name` */
struct tg_qk_norm_job tg_qk_norm_of(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows,
                                    size_t heads, const char *weight, const char *bias);
/* floats of the statistics that forward keeps, and of backward's scratch */
size_t tg_qk_norm_stats(const struct tg_qk_norm_job *j);
size_t tg_qk_norm_work(const struct tg_qk_norm_job *j);
/* In place. stats NULL: no backward follows. */
void tg_qk_norm_fwd(const struct tg_qk_norm_job *j, float *x, float *stats);
/* raw: x before the norm. dx comes in as the gradient of the result and leaves as that of raw; dw,
 * db accumulate (NULL: not wanted). */
void tg_qk_norm_bwd(const struct tg_qk_norm_job *j, const float *raw, const float *stats, float *dx,
                    float *dw, float *db, float *work);

#endif
