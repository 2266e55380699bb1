/* The vocabulary is the widest thing in the model: logits are made, turned into their gradient and
 * used up in chunks of rows, so that [rows,N] is never held. */
#include "distill/stages/heads.h"

#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "distill/pack.h"

struct heads {
    struct tg_run *teacher_run, *student_run;
    float *teacher_hidden, *student_hidden, *dhidden; /* [rows,D] */
    float *teacher_logits, *student_logits;           /* [chunk,N] */
    float *scratch;                                   /* [threads,N] for a share of cross-entropy */
    double *row_loss;                                 /* [chunk] */
    int32_t *next; /* [rows] what each row is to give; -1: nothing */
    size_t chunk;
};

void tg_heads_end(struct tg_stage_io *io)
{
    struct heads *h = io->memory;
    if (!h)
        return;
    tg_run_free(h->teacher_run);
    tg_run_free(h->student_run);
    tg_free(h->teacher_hidden);
    tg_free(h->student_hidden);
    tg_free(h->dhidden);
    tg_free(h->teacher_logits);
    tg_free(h->student_logits);
    tg_free(h->scratch);
    tg_free(h->row_loss);
    tg_free(h->next);
    tg_free(h);
    io->memory = NULL;
}

static int fit(struct heads *h, const struct tg_stage_io *io, const struct tg_batch *b,
               struct tg_err *err)
{
    int status = tg_run_fit(h->student_run, io->student, b, true, err);
    return status == TG_OK && io->teacher ? tg_run_fit(h->teacher_run, io->teacher, b, false, err)
                                          : status;
}

int tg_heads_begin(struct tg_stage_io *io, const struct tg_batch *largest, struct tg_err *err)
{
    const struct tg_model *m = io->student;
    size_t rows = tg_batch_rows(largest), cells = rows * m->spec.width, N = m->spec.vocab;
    struct heads *h = io->memory = tg_alloc(sizeof *h);
    if (!h)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory", io->set->kind);
    int status = tg_run_create(&h->student_run, err);
    if (status == TG_OK && io->teacher)
        status = tg_run_create(&h->teacher_run, err);
    if (status == TG_OK)
        status = fit(h, io, largest, err);
    if (status != TG_OK)
        return status;
    h->chunk = tg_head_chunk(N) < rows ? tg_head_chunk(N) : rows;
    h->student_hidden = tg_alloc_floats(cells);
    h->dhidden = tg_alloc_floats(cells);
    h->student_logits = tg_alloc_floats(h->chunk * N);
    h->scratch = tg_alloc_floats((size_t)m->ctx.threads * N);
    h->row_loss = tg_alloc_array(h->chunk, sizeof *h->row_loss);
    h->next = tg_alloc_array(rows, sizeof *h->next);
    if (io->teacher) {
        h->teacher_hidden = tg_alloc_floats(rows * io->teacher->spec.width);
        h->teacher_logits = tg_alloc_floats(h->chunk * N);
    }
    if (!h->student_hidden || !h->dhidden || !h->student_logits || !h->scratch || !h->row_loss ||
        !h->next || (io->teacher && (!h->teacher_hidden || !h->teacher_logits)))
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory for %zu tokens at a time", io->set->kind,
                       rows);
    return TG_OK;
}

struct loss_job {
    const struct tg_kernels *kern;
    struct heads *h;
    const int32_t *next; /* of the chunk */
    size_t vocab;
    float inv_temp, kl_weight, ce_weight; /* of one row's gradient */
    double kl_loss, ce_loss;              /* of one row's loss */
};
/* A row of student's logits becomes its gradient. */
static void loss_row(void *ud, size_t i, int worker)
{
    const struct loss_job *j = ud;
    size_t N = j->vocab;
    float *student = j->h->student_logits + i * N, *copy = j->h->scratch + (size_t)worker * N;
    bool target = j->next[i] >= 0, kl = j->kl_loss != 0, ce = j->ce_loss != 0 && target;
    double loss = 0;
    if (kl && ce)
        memcpy(copy, student, N * sizeof *copy);
    if (kl)
        loss += j->kl_loss * j->kern->kl_row(j->h->teacher_logits + i * N, student, j->inv_temp,
                                             j->kl_weight, N);
    if (ce)
        loss += j->ce_loss * j->kern->ce_row(kl ? copy : student, j->next[i], j->ce_weight, N);
    if (kl && ce)
        j->kern->axpy(1, copy, student, N);
    if (!kl && !ce)
        memset(student, 0, N * sizeof *student);
    j->h->row_loss[i] = loss;
}

/* Loss and dhidden of all rows. */
static double heads_loss(struct tg_stage_io *io, const struct loss_job *job, size_t rows)
{
    struct heads *h = io->memory;
    const struct tg_model *s = io->student;
    size_t D = s->spec.width;
    double loss = 0;
    for (size_t at = 0; at < rows; at += h->chunk) {
        size_t take = rows - at < h->chunk ? rows - at : h->chunk;
        struct loss_job chunk = *job;
        chunk.next = h->next + at;
        if (job->kl_loss != 0)
            tg_model_logits(io->teacher, h->teacher_hidden + at * io->teacher->spec.width, take,
                            h->teacher_logits);
        tg_model_logits(s, h->student_hidden + at * D, take, h->student_logits);
        tg_parallel(s->ctx.threads, take, loss_row, &chunk);
        for (size_t i = 0; i < take; i++)
            loss += h->row_loss[i];
        tg_model_logits_backward(s, h->student_hidden + at * D, h->student_logits, take,
                                 h->dhidden + at * D, io->grads, io->wanted);
    }
    return loss;
}

/* The teacher's hidden states, from the file where a run before kept them */
static int teacher_hidden(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b,
                          struct tg_err *err)
{
    const size_t D = io->teacher->spec.width;
    struct heads *h = io->memory;
    bool known = io->hidden != NULL;
    int status = TG_OK;
    for (size_t s = 0; s < b->count && known; s++)
        known = tg_hidden_get(io->hidden, io->first + s, h->teacher_hidden + b->begin[s] * D);
    if (known)
        return TG_OK;
    tg_model_forward(io->teacher, h->teacher_run, ids, b, h->teacher_hidden, false, NULL);
    for (size_t s = 0; s < b->count && io->hidden && status == TG_OK; s++)
        status = tg_hidden_put(io->hidden, io->first + s, h->teacher_hidden + b->begin[s] * D, err);
    return status;
}

int tg_heads_batch(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b,
                   double ce_share, double *loss, struct tg_err *err)
{
    struct heads *h = io->memory;
    size_t rows = tg_batch_rows(b), targets = 0;
    int status = fit(h, io, b, err);
    if (status != TG_OK)
        return status;
    for (size_t s = 0; s < b->count; s++)
        for (size_t row = b->begin[s]; row < b->begin[s + 1]; row++) {
            bool last = row + 1 == b->begin[s + 1];
            h->next[row] = io->labels ? io->labels[row] : last ? -1 : ids[row + 1];
            targets += h->next[row] >= 0;
        }
    double T = io->set->temperature;
    struct loss_job job = {.kern = io->student->ctx.k, .h = h, .vocab = io->student->spec.vocab};
    job.inv_temp = (float)(1 / T);
    job.kl_loss = (1 - ce_share) * T * T / (double)rows;
    job.ce_loss = targets ? ce_share / (double)targets : 0;
    job.kl_weight = (float)(job.kl_loss * io->weight);
    job.ce_weight = (float)(job.ce_loss * io->weight);
    if (job.kl_loss != 0)
        status = teacher_hidden(io, ids, b, err);
    if (status != TG_OK)
        return status;
    tg_model_forward(io->student, h->student_run, ids, b, h->student_hidden, true, NULL);
    *loss = heads_loss(io, &job, rows);
    tg_model_backward(io->student, h->student_run, ids, b, h->dhidden, io->grads, io->wanted);
    return TG_OK;
}
