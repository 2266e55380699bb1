/* Elementwise recurrences over time, what their gates are made of, and the step sizes of
 * state-space mixers. */
#ifndef TG_LINEARIZE_SCAN_H
#define TG_LINEARIZE_SCAN_H

#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

/* h_t = a_t h_{t-1} + u_t for each of D channels (HGRN, RG-LRU). a, u, h [rows,D]; states [D]. */
void tg_lru_fwd(const struct tg_ctx *ctx, size_t D, const struct tg_batch *batch, const float *a,
                const float *u, float *h, struct tg_states states);
/* dh [rows,D] is overwritten by du; da [rows,D] is written. dstates: in: the gradient of the end,
 * out: of the start; starts: the states before the first rows. */
void tg_lru_bwd(const struct tg_ctx *ctx, size_t D, const struct tg_batch *batch, const float *a,
                const float *h, struct tg_states starts, float *dh, float *da,
                struct tg_states dstates);

/* Selective scan of Mamba-1 (Gu and Dao 2023, arXiv 2312.00752), a state [N] for each channel:
 *
 *   h_t = e^{-e^{A_log} dt_t} h_{t-1} + dt_t x_t B_t,  y_t = h_t . C_t + skip x_t
 *
 * x, dt, y [rows,D]; A_log [D,N]; B, C [rows,N], rows ld apart; skip [D]. */
struct tg_ssm1 {
    size_t D, N, ld;
};
struct tg_ssm1_in {
    const float *x, *dt, *A_log, *B, *C, *skip;
};
/* x, dt, B and C (rows ld apart) are written, A_log and skip accumulated (NULL: not wanted) */
struct tg_ssm1_grads {
    float *x, *dt, *A_log, *B, *C, *skip;
};
/* Floats that fwd keeps for bwd: the states every few rows; scratch of bwd */
size_t tg_ssm1_saved(const struct tg_ssm1 *s, const struct tg_batch *batch);
size_t tg_ssm1_bwd_work(const struct tg_ssm1 *s, const struct tg_batch *batch);
/* states [D,N] of each sequence; saved NULL: no backward follows */
void tg_ssm1_fwd(const struct tg_ctx *ctx, const struct tg_ssm1 *s, const struct tg_batch *batch,
                 const struct tg_ssm1_in *in, float *y, struct tg_states states, float *saved);
/* dy [rows,D]; the end states are not used */
void tg_ssm1_bwd(const struct tg_ctx *ctx, const struct tg_ssm1 *s, const struct tg_batch *batch,
                 const struct tg_ssm1_in *in, const float *saved, const float *dy,
                 const struct tg_ssm1_grads *d, float *work);
/* Double reference: one sequence of n rows from h [D,N] on (updated), dense */
void tg_ssm1_ref(const struct tg_ssm1 *s, size_t n, const double *x, const double *dt,
                 const double *A_log, const double *B, const double *C, const double *skip,
                 double *h, double *y);

/* Step sizes and decays of H heads with n channels each:
 *
 *   dt = min(max(softplus(a + bias), low), high),  g = -e^{A_log[h]} dt
 *
 * a [rows,H,n], rows ld apart; bias [H,n]; dt, g [rows,H,n] dense. */
struct tg_decay {
    size_t H, n, ld; /* ld 0: dense */
    float low, high; /* 0 and infinity: no limit */
};
/* dt NULL: not wanted */
void tg_decay_fwd(const struct tg_ctx *ctx, const struct tg_decay *d, size_t rows, const float *a,
                  const float *bias, const float *A_log, float *dt, float *g);
/* dg, and ddt unless NULL, are the gradients; da (rows ld apart) is written, dbias and dA_log are
 * accumulated (NULL: not wanted) */
void tg_decay_bwd(const struct tg_ctx *ctx, const struct tg_decay *d, size_t rows, const float *a,
                  const float *bias, const float *A_log, const float *dg, const float *ddt,
                  float *da, float *dbias, float *dA_log);

#endif
