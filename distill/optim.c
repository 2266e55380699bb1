/* AdamW (Loshchilov and Hutter, arXiv:1711.05101). A parameter's update touches nothing else, and
 * the norm is summed over blocks of fixed size in double, so the bits do not depend on the number
 * of threads. */
#include "distill/optim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"

enum { BLOCK = 1 << 15 };

int tg_optim_add(struct tg_optim *o, const char *prefix, const char *name, float *p, float *g,
                 size_t count, struct tg_segment **out, struct tg_err *err)
{
    if (!tg_grow(&o->segments, &o->cap, o->count + 1, sizeof *o->segments))
        return tg_fail(err, TG_ERR_NOMEM, "optimizer: no memory for %zu parameters", o->count + 1);
    struct tg_segment *s = &o->segments[o->count++];
    *s = (struct tg_segment){.p = p, .g = g, .count = count, .moments = o->floats};
    snprintf(s->name, sizeof s->name, "%s%s", prefix, name);
    o->floats += (count + 15) & ~(size_t)15;
    *out = s;
    return TG_OK;
}

int tg_optim_init(struct tg_optim *o, struct tg_err *err)
{
    size_t blocks = 0, n = 0;
    o->groups = 1;
    for (size_t i = 0; i < o->count; i++) {
        blocks += (o->segments[i].count + BLOCK - 1) / BLOCK;
        if (o->segments[i].group >= o->groups)
            o->groups = o->segments[i].group + 1;
    }
    o->m = tg_alloc_array(o->floats, sizeof *o->m);
    o->v = tg_alloc_array(o->floats, sizeof *o->v);
    o->sums = tg_alloc_array(blocks, sizeof *o->sums);
    o->norms = tg_alloc_array(o->groups, sizeof *o->norms);
    o->blocks = tg_alloc_array(blocks, sizeof *o->blocks);
    if (!o->m || !o->v || !o->sums || !o->norms || !o->blocks)
        return tg_fail(err, TG_ERR_NOMEM, "optimizer: no memory for %zu parameters", o->floats);
    for (size_t i = 0; i < o->count; i++) {
        struct tg_segment *s = &o->segments[i];
        s->m = o->m + s->moments;
        s->v = o->v + s->moments;
        for (size_t from = 0; from < s->count; from += BLOCK)
            o->blocks[n++] =
                (struct tg_optim_block){i, from, s->count - from < BLOCK ? s->count - from : BLOCK};
    }
    o->block_count = n;
    return TG_OK;
}

void tg_optim_release(struct tg_optim *o)
{
    tg_free(o->segments);
    tg_free(o->m);
    tg_free(o->v);
    tg_free(o->sums);
    tg_free(o->norms);
    tg_free(o->blocks);
    *o = (struct tg_optim){0};
}

struct norm_job {
    struct tg_optim *o;
    const struct tg_kernels *kern;
};
static void norm_block(void *ud, size_t i, int worker)
{
    (void)worker;
    const struct norm_job *j = ud;
    const struct tg_optim_block *b = &j->o->blocks[i];
    j->o->sums[i] = j->kern->sum_squares(j->o->segments[b->segment].g + b->from, b->count);
}

double tg_optim_norm(struct tg_optim *o, const struct tg_ctx *ctx)
{
    struct norm_job job = {o, ctx->k};
    double total = 0;
    tg_parallel(ctx->threads, o->block_count, norm_block, &job);
    memset(o->norms, 0, o->groups * sizeof *o->norms);
    for (size_t i = 0; i < o->block_count; i++)
        o->norms[o->segments[o->blocks[i].segment].group] += o->sums[i];
    for (size_t g = 0; g < o->groups; g++) {
        total += o->norms[g];
        o->norms[g] = sqrt(o->norms[g]);
    }
    return sqrt(total);
}

struct step_job {
    struct tg_optim *o;
    const struct tg_kernels *kern;
    const struct tg_stage_settings *s;
    float lr, lr_new, c1, c2;
};
static void step_block(void *ud, size_t i, int worker)
{
    (void)worker;
    const struct step_job *j = ud;
    const struct tg_optim_block *b = &j->o->blocks[i];
    const struct tg_segment *s = &j->o->segments[b->segment];
    const struct tg_stage_settings *set = j->s;
    double norm = j->o->norms[s->group];
    float gscale = set->clip > 0 && norm > set->clip ? (float)(set->clip / norm) : 1;
    j->kern->adamw(s->p + b->from, s->g + b->from, s->m + b->from, s->v + b->from, gscale,
                   s->is_new ? j->lr_new : j->lr, (float)set->beta1, (float)set->beta2,
                   (float)set->eps, s->decays ? (float)set->decay : 0, j->c1, j->c2, b->count);
}

void tg_optim_step(struct tg_optim *o, const struct tg_ctx *ctx, const struct tg_stage_settings *s,
                   uint64_t step, double lr, double lr_new)
{
    struct step_job job = {o, ctx->k, s, (float)lr, (float)lr_new, 0, 0};
    job.c1 = (float)(1 - pow(s->beta1, (double)step));
    job.c2 = (float)(1 - pow(s->beta2, (double)step));
    tg_parallel(ctx->threads, o->block_count, step_block, &job);
}

double tg_schedule(uint64_t step, uint64_t steps, double warmup, double end)
{
    uint64_t rise = (uint64_t)ceil(warmup * (double)steps);
    if (step < rise)
        return (double)(step + 1) / (double)rise;
    double part = steps > rise ? (double)(step - rise) / (double)(steps - rise) : 1;
    return end + (1 - end) * 0.5 * (1 + cos(acos(-1.0) * part));
}
