/* The choice of experts and its weights, and back; for linearize/model alone. Equations as
 * transformers' routers: SOFTMAX_TOP is Mixtral's and Qwen3's, TOP_SOFTMAX gpt-oss's, SIGMOID
 * DeepSeek V3's. */
#ifndef TG_LINEARIZE_ROUTER_H
#define TG_LINEARIZE_ROUTER_H

#include "convert/spec.h"
#include "linearize/kernels/kernels.h"

/* s [rows,E]: scores in, probabilities out (TOP_SOFTMAX: unchanged). choice, weight [rows,k]: the
 * experts of each row, best first, the lower number first among equals. scratch [threads,2E]. */
void tg_router_fwd(const struct tg_ctx *ctx, const struct tg_moe_spec *moe, const float *correction,
                   float *s, uint32_t *choice, float *weight, float *scratch, size_t rows);
/* dweight [rows,k] -> ds [rows,E] (written); p is what s became */
void tg_router_bwd(const struct tg_ctx *ctx, const struct tg_moe_spec *moe, const float *p,
                   const uint32_t *choice, const float *weight, const float *dweight, float *ds,
                   size_t rows);

#endif
