#include "distill/pack.h"

#include <string.h>

#include "base/mem.h"
#include "base/pool.h"

int tg_pack_init(struct tg_pack *p, struct tg_err *err)
{
    *p = (struct tg_pack){0};
    if (!tg_grow(&p->begin, &p->count_cap, 2, sizeof *p->begin))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a batch");
    p->begin[0] = 0;
    return TG_OK;
}

void tg_pack_release(struct tg_pack *p)
{
    tg_free(p->ids);
    tg_free(p->begin);
    tg_free(p->answers);
    *p = (struct tg_pack){0};
}

void tg_pack_clear(struct tg_pack *p)
{
    p->count = p->rows = p->longest = p->answer_count = 0;
}

struct tg_batch tg_pack_batch(const struct tg_pack *p)
{
    return (struct tg_batch){.count = p->count, .begin = p->begin};
}

int tg_pack_add(struct tg_pack *p, const int32_t *ids, size_t n, struct tg_err *err)
{
    if (!tg_grow(&p->ids, &p->rows_cap, p->rows + n, sizeof *p->ids) ||
        !tg_grow(&p->begin, &p->count_cap, p->count + 2, sizeof *p->begin))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a batch of %zu tokens", p->rows + n);
    memcpy(p->ids + p->rows, ids, n * sizeof *ids);
    p->rows += n;
    p->begin[++p->count] = p->rows;
    if (n > p->longest)
        p->longest = n;
    return TG_OK;
}

int tg_pack_add_item(struct tg_pack *p, const struct tg_recall_item *item, struct tg_err *err)
{
    size_t from = p->rows, prompt = item->prompt.count, answer = item->answer.count;
    int status = tg_pack_add(p, item->prompt.data, prompt, err);
    if (status == TG_OK)
        status = tg_pack_add(p, item->answer.data, answer, err);
    if (status != TG_OK)
        return status;
    p->count--; /* both are one sequence */
    p->begin[p->count] = p->rows;
    if (prompt + answer > p->longest)
        p->longest = prompt + answer;
    if (!tg_grow(&p->answers, &p->answer_cap, p->answer_count + answer, sizeof *p->answers))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for %zu answers", p->answer_count + answer);
    for (size_t i = 0; i < answer; i++)
        p->answers[p->answer_count++] =
            (struct tg_pack_answer){from + prompt + i - 1, p->count - 1, item->answer.data[i]};
    return TG_OK;
}

size_t tg_head_chunk(size_t vocab)
{
    size_t rows = ((size_t)1 << 22) / vocab;
    return rows < 16 ? 16 : rows > 512 ? 512 : rows;
}

struct argmax_job {
    const float *logits;
    size_t vocab;
    const struct tg_pack_answer *answers;
    unsigned char *right;
};
static void argmax_row(void *ud, size_t i, int worker)
{
    (void)worker;
    struct argmax_job *j = ud;
    size_t best = tg_argmax(j->logits + i * j->vocab, j->vocab);
    j->right[i] = best == (size_t)j->answers[i].id;
}

int tg_pack_score(const struct tg_model *m, const struct tg_pack *p, const float *hidden,
                  size_t *right, struct tg_err *err)
{
    size_t D = m->spec.width, N = m->spec.vocab, chunk = tg_head_chunk(N), n = p->answer_count;
    float *rows = tg_alloc_floats(chunk * D), *logits = tg_alloc_floats(chunk * N);
    unsigned char *hit = tg_alloc(n), *failed = tg_alloc(p->count);
    int status = TG_OK;
    if (!rows || !logits || !hit || !failed) {
        status = tg_fail(err, TG_ERR_NOMEM, "no memory to score %zu answers", n);
        goto out;
    }
    for (size_t at = 0; at < n; at += chunk) {
        size_t take = n - at < chunk ? n - at : chunk;
        for (size_t i = 0; i < take; i++)
            memcpy(rows + i * D, hidden + p->answers[at + i].row * D, D * sizeof *rows);
        tg_model_logits(m, rows, take, logits);
        struct argmax_job job = {logits, N, p->answers + at, hit + at};
        tg_parallel(m->ctx.threads, take, argmax_row, &job);
    }
    for (size_t i = 0; i < n; i++)
        if (!hit[i])
            failed[p->answers[i].item] = 1;
    *right = 0;
    for (size_t i = 0; i < p->count; i++)
        *right += !failed[i];
out:
    tg_free(rows);
    tg_free(logits);
    tg_free(hit);
    tg_free(failed);
    return status;
}
