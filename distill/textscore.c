#include "distill/textscore.h"

#include "base/mem.h"
#include "base/pool.h"
#include "distill/pack.h"

struct score_job {
    const struct tg_kernels *kern;
    size_t vocab;
    float *teacher, *student; /* [chunk,N]; student NULL: none */
    const int32_t *next;
    struct tg_row_score *out;
};

static void score_row(void *ud, size_t i, int worker)
{
    (void)worker;
    struct score_job *j = ud;
    float *t = j->teacher + i * j->vocab;
    struct tg_row_score *o = j->out + i;
    *o = (struct tg_row_score){.target = j->next[i] >= 0};
    if (o->target)
        o->teacher_nll = j->kern->ce_row(t, j->next[i], 0, j->vocab);
    if (!j->student)
        return;
    float *s = j->student + i * j->vocab;
    if (o->target)
        o->student_nll = j->kern->ce_row(s, j->next[i], 0, j->vocab);
    o->top1 = tg_argmax(t, j->vocab) == tg_argmax(s, j->vocab);
    o->kl = j->kern->kl_row(t, s, 1, 0, j->vocab);
}

int tg_score_rows(const struct tg_model *teacher, const float *teacher_hidden,
                  const struct tg_model *student, const float *student_hidden, const int32_t *next,
                  size_t rows, struct tg_row_score *out, struct tg_err *err)
{
    size_t D = teacher->spec.width, N = teacher->spec.vocab, chunk = tg_head_chunk(N);
    struct score_job job = {.kern = teacher->ctx.k, .vocab = N};
    if (chunk > rows)
        chunk = rows;
    job.teacher = tg_alloc_floats(chunk * N);
    if (student)
        job.student = tg_alloc_floats(chunk * N);
    int status = TG_OK;
    if (!job.teacher || (student && !job.student)) {
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for the logits of %zu rows", chunk);
        goto out;
    }
    for (size_t at = 0; at < rows; at += chunk) {
        size_t take = rows - at < chunk ? rows - at : chunk;
        tg_model_logits(teacher, teacher_hidden + at * D, take, job.teacher);
        if (student)
            tg_model_logits(student, student_hidden + at * student->spec.width, take, job.student);
        job.next = next + at;
        job.out = out + at;
        tg_parallel(teacher->ctx.threads, take, score_row, &job);
    }
out:
    tg_free(job.teacher);
    tg_free(job.student);
    return status;
}
