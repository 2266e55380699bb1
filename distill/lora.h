/* Low-rank adaptation of a model's inherited projections, outside the model: it runs with the
 * effective weight W = W0 + s B A, and gradients of A [R,k] and B [n,R] follow from that of W
 * [n,k]. Internal to distill. */
#ifndef TG_DISTILL_LORA_H
#define TG_DISTILL_LORA_H

#include "linearize/model/model.h"

struct tg_lora {
    struct tg_lora_item {
        size_t param, n, k;     /* W [n,k] */
        float *w0;              /* [n,k] */
        float *a, *b, *da, *db; /* [R,k], [n,R] */
    } * items;                  /* owned */
    size_t count, rank;
    float scale;  /* s = alpha / R with alpha = 2 R */
    float *block; /* owned: everything above */
};
/* Does parameter p get factors? The projections q, k, v, o, gate, up, down of every layer:
 * inherited matrices. */
bool tg_lora_takes(const struct tg_param *p);
/* W0 from the model's data, A random (uniform within 1/sqrt(k)), B zero: the model is unchanged. */
int tg_lora_init(struct tg_lora *l, const struct tg_model *m, size_t rank, uint64_t seed,
                 struct tg_err *err);
void tg_lora_release(struct tg_lora *l);
void tg_lora_merge(const struct tg_lora *l, struct tg_model *m); /* W = W0 + s B A */
/* da = s B^T dW, db = s dW A^T from grads (layout of params) */
void tg_lora_backward(const struct tg_lora *l, const struct tg_model *m, const float *grads);

#endif
