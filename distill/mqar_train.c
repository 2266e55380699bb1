/* A small model on recall alone: the ce stage with the task's labels, on every parameter. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "distill/mqar.h"
#include "distill/optim.h"
#include "distill/stage.h"

enum {
    MICRO_ROWS = 4096, /* tokens of a micro-batch, about */
    CHECK_EVERY = 100, /* steps */
    CHECK_EXAMPLES = 128,
};

struct trainer {
    struct tg_model *m;
    struct tg_mqar *q;
    const struct tg_mqar_settings *set;
    struct tg_stage_settings stage_set;
    const struct tg_stage *stage;
    struct tg_stage_io io;
    struct tg_optim optim;
    float *grads, *hidden, *logits; /* [params.floats], [rows,D], [rows,N] of one example */
    bool *wanted;                   /* [params] */
    int32_t *ids, *labels;          /* [micro, T] */
    size_t *begin;                  /* [micro + 1] */
    size_t micro;                   /* examples */
    struct tg_run *run;             /* of tests */
};

static void trainer_close(struct trainer *t)
{
    if (t->io.memory)
        t->stage->end(&t->io);
    tg_optim_release(&t->optim);
    tg_run_free(t->run);
    tg_free(t->grads);
    tg_free(t->hidden);
    tg_free(t->logits);
    tg_free(t->wanted);
    tg_free(t->ids);
    tg_free(t->labels);
    tg_free(t->begin);
}

static int trainer_open(struct trainer *t, struct tg_err *err)
{
    struct tg_model *m = t->m;
    size_t T = t->q->length, rows;
    t->micro = T < MICRO_ROWS ? MICRO_ROWS / T : 1;
    t->micro = t->micro < t->set->batch ? t->micro : t->set->batch;
    rows = t->micro * T;
    t->stage_set = (struct tg_stage_settings){.kind = "ce", .warmup = 0.05, .clip = 1};
    int status = tg_stage_defaults(&t->stage_set, err);
    t->stage_set.decay = t->set->decay;
    t->stage = tg_stage_find("ce");
    t->grads = tg_alloc_array(m->params.floats, sizeof *t->grads);
    t->wanted = tg_alloc_array(m->params.count, sizeof *t->wanted);
    t->ids = tg_alloc_array(rows, sizeof *t->ids);
    t->labels = tg_alloc_array(rows, sizeof *t->labels);
    t->begin = tg_alloc_array(t->micro + 1, sizeof *t->begin);
    t->hidden = tg_alloc_floats(rows * m->spec.width);
    t->logits = tg_alloc_floats(T * m->spec.vocab);
    if (!t->grads || !t->wanted || !t->ids || !t->labels || !t->begin || !t->hidden || !t->logits)
        return tg_fail(err, TG_ERR_NOMEM, "mqar: no memory for %zu tokens at a time", rows);
    for (size_t i = 0; i <= t->micro; i++)
        t->begin[i] = i * T;
    for (size_t i = 0; i < m->params.count && status == TG_OK; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_segment *s;
        t->wanted[i] = true;
        status = tg_optim_add(&t->optim, "", p->name, m->data + p->offset, t->grads + p->offset,
                              p->count, &s, err);
        if (status == TG_OK)
            s->decays = p->decays;
    }
    if (status == TG_OK)
        status = tg_optim_init(&t->optim, err);
    if (status == TG_OK)
        status = tg_model_reserve(m, T, err);
    t->io = (struct tg_stage_io){.student = m,
                                 .set = &t->stage_set,
                                 .wanted = t->wanted,
                                 .grads = t->grads,
                                 .labels = t->labels};
    struct tg_batch largest = {.count = t->micro, .begin = t->begin};
    if (status == TG_OK)
        status = t->stage->begin(&t->io, &largest, err);
    if (status == TG_OK)
        status = tg_run_create(&t->run, err);
    return status == TG_OK ? tg_run_fit(t->run, m, &largest, false, err) : status;
}

/* Examples [from, from + n) of a stream as a batch */
static struct tg_batch fill(struct trainer *t, enum tg_mqar_use use, uint64_t from, size_t n,
                            size_t pairs)
{
    uint64_t seed = tg_mqar_seed(t->set->seed, use);
    for (size_t i = 0; i < n; i++)
        tg_mqar_make(t->q, seed, from + i, pairs, t->ids + t->begin[i], t->labels + t->begin[i]);
    return (struct tg_batch){.count = n, .begin = t->begin};
}

static int step(struct trainer *t, uint64_t at, double *loss, struct tg_err *err)
{
    struct tg_model *m = t->m;
    size_t batch = t->set->batch, fewest = t->set->fewest;
    size_t pairs = fewest ? tg_mqar_pairs_at(t->q, fewest, at, t->set->steps) : t->q->pairs;
    *loss = 0;
    memset(t->grads, 0, m->params.floats * sizeof *t->grads);
    for (size_t from = 0; from < batch; from += t->micro) {
        size_t n = batch - from < t->micro ? batch - from : t->micro;
        struct tg_batch b = fill(t, TG_MQAR_TRAIN, at * batch + from, n, pairs);
        double part;
        t->io.weight = (float)((double)n / (double)batch);
        int status = t->stage->batch(&t->io, t->ids, &b, &part, err);
        if (status != TG_OK)
            return status;
        *loss += part * (double)n / (double)batch;
    }
    double norm = tg_optim_norm(&t->optim, &m->ctx);
    if (!isfinite(norm) || !isfinite(*loss))
        return tg_fail(err, TG_ERR_VALUE,
                       "step %llu: loss %g and gradient %g are not finite; lower the learning rate",
                       (unsigned long long)at + 1, *loss, norm);
    double lr = t->set->lr * tg_schedule(at, t->set->steps, t->stage_set.warmup, 0);
    tg_optim_step(&t->optim, &m->ctx, &t->stage_set, at + 1, lr, lr);
    return TG_OK;
}

static bool is_largest(const float *logits, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (!(logits[id] > logits[i]) && i != (size_t)id)
            return false;
    return true;
}

/* Share of questions answered rightly in the first `count` examples of a stream */
static double test(struct trainer *t, enum tg_mqar_use use, size_t count)
{
    const struct tg_model *m = t->m;
    size_t D = m->spec.width, N = m->spec.vocab, T = t->q->length, right = 0;
    for (size_t from = 0; from < count; from += t->micro) {
        size_t n = count - from < t->micro ? count - from : t->micro;
        struct tg_batch b = fill(t, use, from, n, t->q->pairs);
        tg_model_forward(m, t->run, t->ids, &b, t->hidden, false, NULL);
        for (size_t i = 0; i < n; i++) {
            const int32_t *labels = t->labels + i * T;
            tg_model_logits(m, t->hidden + i * T * D, T, t->logits);
            for (size_t k = 0; k < T; k++)
                right += labels[k] >= 0 && is_largest(t->logits + k * N, N, labels[k]);
        }
    }
    return (double)right / ((double)count * (double)t->q->pairs);
}

int tg_mqar_train(struct tg_model *m, struct tg_mqar *q, const struct tg_mqar_settings *set,
                  const char *name, struct tg_mqar_result *out, const struct tg_progress *progress,
                  struct tg_err *err)
{
    struct trainer t = {.m = m, .q = q, .set = set};
    *out = (struct tg_mqar_result){0};
    double seen = 0;
    int status = trainer_open(&t, err);
    while (status == TG_OK && out->steps < set->steps && seen < set->enough) {
        status = step(&t, out->steps, &out->loss, err);
        if (status != TG_OK)
            break;
        out->steps++;
        if (out->steps % CHECK_EVERY == 0)
            seen = test(&t, TG_MQAR_CHECK, CHECK_EXAMPLES);
        char note[48];
        snprintf(note, sizeof note, "loss %.4f, accuracy %.3f", out->loss, seen);
        if (tg_progress_tell(progress, name, out->steps, set->steps, "steps", note))
            status = tg_fail(err, TG_ERR_INTERRUPTED, "interrupted");
    }
    if (status == TG_OK)
        out->accuracy = test(&t, TG_MQAR_TEST, set->examples);
    trainer_close(&t);
    return status;
}
