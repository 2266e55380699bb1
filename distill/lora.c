/* LoRA (Hu et al., arXiv:2106.09685). */
#include "distill/lora.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "distill/keys.h"
#include "linearize/kernels/gemm.h"

enum { LORA_STREAM = 0x6c6f7261 };

bool tg_lora_takes(const struct tg_param *p)
{
    return p->layer >= 0 && p->rank == 2 && !p->is_new;
}

static size_t lay_out(struct tg_lora *l, float *base)
{
    struct tg_carve c = {base, 0};
    for (size_t i = 0; i < l->count; i++) {
        struct tg_lora_item *it = &l->items[i];
        it->w0 = tg_carve(&c, it->n * it->k);
        it->a = tg_carve(&c, l->rank * it->k);
        it->b = tg_carve(&c, it->n * l->rank);
        it->da = tg_carve(&c, l->rank * it->k);
        it->db = tg_carve(&c, it->n * l->rank);
    }
    return c.used;
}

int tg_lora_init(struct tg_lora *l, const struct tg_model *m, size_t rank, uint64_t seed,
                 struct tg_err *err)
{
    *l = (struct tg_lora){.rank = rank, .scale = 2};
    l->items = tg_alloc_array(m->params.count, sizeof *l->items);
    if (!l->items)
        return tg_fail(err, TG_ERR_NOMEM, "lora: no memory");
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        if (tg_lora_takes(p))
            l->items[l->count++] = (struct tg_lora_item){
                .param = i, .n = (size_t)p->shape[0], .k = (size_t)p->shape[1]};
    }
    l->block = tg_alloc_array(lay_out(l, NULL), sizeof *l->block);
    if (!l->block) {
        tg_lora_release(l);
        return tg_fail(err, TG_ERR_NOMEM, "lora: no memory for factors of rank %zu", rank);
    }
    lay_out(l, l->block);
    for (size_t i = 0; i < l->count; i++) {
        struct tg_lora_item *it = &l->items[i];
        struct tg_rng rng = tg_rng_make(tg_key(seed, LORA_STREAM, 0), it->param);
        double bound = 1 / sqrt((double)it->k);
        memcpy(it->w0, m->data + m->params.items[it->param].offset, it->n * it->k * sizeof *it->w0);
        for (size_t j = 0; j < rank * it->k; j++)
            it->a[j] = (float)(bound * (2 * tg_rng_uniform(&rng) - 1));
    }
    return TG_OK;
}

void tg_lora_release(struct tg_lora *l)
{
    tg_free(l->items);
    tg_free(l->block);
    *l = (struct tg_lora){0};
}

void tg_lora_merge(const struct tg_lora *l, struct tg_model *m)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct tg_lora_item *it = &l->items[i];
        float *w = m->data + m->params.items[it->param].offset;
        memcpy(w, it->w0, it->n * it->k * sizeof *w);
        tg_gemm(&m->ctx, false, false, it->n, it->k, l->rank, l->scale, it->b, l->rank, it->a,
                it->k, 1, w, it->k);
    }
}

void tg_lora_backward(const struct tg_lora *l, const struct tg_model *m, const float *grads)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct tg_lora_item *it = &l->items[i];
        const float *dw = grads + m->params.items[it->param].offset;
        tg_gemm(&m->ctx, true, false, l->rank, it->k, it->n, l->scale, it->b, l->rank, dw, it->k, 0,
                it->da, it->k);
        tg_gemm(&m->ctx, false, true, it->n, l->rank, it->k, l->scale, dw, it->k, it->a, it->k, 0,
                it->db, l->rank);
    }
}
