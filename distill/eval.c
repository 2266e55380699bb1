/* Evaluation numbers. Each row's numbers are computed by one thread in double and added in the
 * order of the text, so that they do not depend on the number of threads.
 *
 * A row at position p of its window falls in bucket 0 for p = 0 and 1 + floor(log2 p) after it; its
 * target is token p + 1. */
#include "distill/eval.h"

#include <string.h>

#include "base/mem.h"
#include "distill/pack.h"
#include "distill/textscore.h"
#include "linearize/model/generate.h"

enum {
    BATCH_ROWS = 4096, /* tokens run at a time (at least one window) */
    GENERATE_AT_ONCE = 16,
};

static int interrupted(struct tg_err *err)
{
    return tg_fail(err, TG_ERR_INTERRUPTED, "interrupted");
}

static size_t bucket_of(size_t position)
{
    size_t b = 0;
    while (position >> b && b < TG_EVAL_BUCKETS - 1)
        b++;
    return b;
}

static void add_row(struct tg_text_eval *e, size_t position, const struct tg_row_score *r,
                    bool compared)
{
    size_t b = bucket_of(position);
    e->positions++;
    e->bucket[b].positions++;
    if (r->target) {
        e->targets++;
        e->teacher_nll += r->teacher_nll;
        e->bucket[b].targets++;
        e->bucket[b].teacher_nll += r->teacher_nll;
    }
    if (!compared)
        return;
    e->student_nll += r->student_nll;
    e->kl += r->kl;
    e->top1 += r->top1;
    e->bucket[b].student_nll += r->student_nll;
    e->bucket[b].kl += r->kl;
    e->bucket[b].top1 += r->top1;
}

struct text_run {
    struct tg_model *teacher, *student;
    struct tg_run *teacher_run, *student_run;
    struct tg_pack pack;
    float *teacher_hidden, *student_hidden;
    int32_t *next;
    struct tg_row_score *rows;
    size_t rows_cap;
};

static int text_run_init(struct text_run *r, struct tg_model *teacher, struct tg_model *student,
                         size_t rows, struct tg_err *err)
{
    *r = (struct text_run){.teacher = teacher, .student = student};
    int status = tg_pack_init(&r->pack, err);
    if (status == TG_OK)
        status = tg_run_create(&r->teacher_run, err);
    if (status == TG_OK && student)
        status = tg_run_create(&r->student_run, err);
    if (status != TG_OK)
        return status;
    r->teacher_hidden = tg_alloc_floats(rows * teacher->spec.width);
    r->student_hidden = student ? tg_alloc_floats(rows * student->spec.width) : NULL;
    r->next = tg_alloc_array(rows, sizeof *r->next);
    r->rows = tg_alloc_array(rows, sizeof *r->rows);
    if (!r->teacher_hidden || (student && !r->student_hidden) || !r->next || !r->rows)
        return tg_fail(err, TG_ERR_NOMEM, "no memory to evaluate %zu tokens at a time", rows);
    return TG_OK;
}

static void text_run_release(struct text_run *r)
{
    tg_pack_release(&r->pack);
    tg_run_free(r->teacher_run);
    tg_run_free(r->student_run);
    tg_free(r->teacher_hidden);
    tg_free(r->student_hidden);
    tg_free(r->next);
    tg_free(r->rows);
}

/* Runs the packed windows through both models and adds their numbers. */
static int text_run_batch(struct text_run *r, struct tg_text_eval *out, struct tg_err *err)
{
    struct tg_batch b = tg_pack_batch(&r->pack);
    int status = tg_run_fit(r->teacher_run, r->teacher, &b, false, err);
    if (status == TG_OK && r->student)
        status = tg_run_fit(r->student_run, r->student, &b, false, err);
    if (status != TG_OK)
        return status;
    tg_model_forward(r->teacher, r->teacher_run, r->pack.ids, &b, r->teacher_hidden, false, NULL);
    if (r->student)
        tg_model_forward(r->student, r->student_run, r->pack.ids, &b, r->student_hidden, false,
                         NULL);
    for (size_t s = 0; s < b.count; s++)
        for (size_t row = b.begin[s]; row < b.begin[s + 1]; row++)
            r->next[row] = row + 1 < b.begin[s + 1] ? r->pack.ids[row + 1] : -1;
    status = tg_score_rows(r->teacher, r->teacher_hidden, r->student, r->student_hidden, r->next,
                           r->pack.rows, r->rows, err);
    for (size_t s = 0; s < b.count && status == TG_OK; s++)
        for (size_t row = b.begin[s]; row < b.begin[s + 1]; row++)
            add_row(out, row - b.begin[s], r->rows + row, r->student != NULL);
    return status;
}

int tg_eval_text(struct tg_model *teacher, struct tg_model *student, const int32_t *ids,
                 size_t count, size_t length, size_t windows, struct tg_text_eval *out,
                 const struct tg_progress *p, struct tg_err *err)
{
    *out = (struct tg_text_eval){0};
    if (length < 2)
        return tg_fail(err, TG_ERR_VALUE, "length = %zu must be at least 2", length);
    if (student && student->spec.vocab != teacher->spec.vocab)
        return tg_fail(err, TG_ERR_MISMATCH, "vocabularies differ: teacher %zu, student %zu",
                       teacher->spec.vocab, student->spec.vocab);
    size_t total = count;
    if (windows > 0) {
        if (count / length < windows)
            return tg_fail(err, TG_ERR_VALUE,
                           "%zu windows of %zu need %zu tokens, the text has %zu", windows, length,
                           windows * length, count);
        total = windows * length;
    } else if (count % length == 1) {
        total--; /* a window of one token has no target */
    }
    if (total < 2)
        return tg_fail(err, TG_ERR_VALUE, "a text of %zu tokens is too short to evaluate", count);
    size_t longest = total < length ? total : length;
    size_t at_once = longest > BATCH_ROWS / 2 ? 1 : BATCH_ROWS / longest;
    struct text_run r;
    int status = text_run_init(&r, teacher, student, at_once * longest, err);
    if (status == TG_OK)
        status = tg_model_reserve(teacher, longest, err);
    if (status == TG_OK && student)
        status = tg_model_reserve(student, longest, err);
    for (size_t at = 0; at < total && status == TG_OK;) {
        if (tg_progress_tell(p, "evaluate", at, total, "tokens", NULL)) {
            status = interrupted(err);
            break;
        }
        tg_pack_clear(&r.pack);
        for (size_t w = 0; w < at_once && at < total && status == TG_OK; w++) {
            size_t take = total - at < length ? total - at : length;
            status = tg_pack_add(&r.pack, ids + at, take, err);
            at += take;
            out->windows++;
        }
        if (status == TG_OK)
            status = text_run_batch(&r, out, err);
    }
    if (status == TG_OK && tg_progress_tell(p, "evaluate", total, total, "tokens", NULL))
        status = interrupted(err);
    text_run_release(&r);
    return status;
}

/* Packs items first.. until the batch is full; *next: the first that is not in it. */
static int pack_items(const struct tg_recall_source *s, enum tg_recall_task task, size_t size,
                      size_t items, uint64_t seed, size_t first, struct tg_pack *pack, size_t *next,
                      struct tg_err *err)
{
    int status = TG_OK;
    tg_pack_clear(pack);
    for (*next = first; *next < items && status == TG_OK; (*next)++) {
        struct tg_recall_item item;
        if (pack->rows && pack->rows + pack->longest > BATCH_ROWS)
            break;
        status = tg_recall_make(s, task, size, seed, *next, &item, err);
        if (status != TG_OK)
            break;
        status = tg_pack_add_item(pack, &item, err);
        tg_recall_item_release(&item);
    }
    return status;
}

int tg_eval_recall(struct tg_model *m, const struct tg_recall_source *s, enum tg_recall_task task,
                   size_t size, size_t items, uint64_t seed, double *score,
                   const struct tg_progress *p, struct tg_err *err)
{
    struct tg_pack pack;
    struct tg_run *run = NULL;
    float *hidden = NULL;
    size_t right = 0, cap = 0;
    if (items == 0)
        return tg_fail(err, TG_ERR_VALUE, "recall: items must be at least 1");
    int status = tg_pack_init(&pack, err);
    if (status == TG_OK)
        status = tg_run_create(&run, err);
    for (size_t at = 0; at < items && status == TG_OK;) {
        size_t hits = 0;
        if (tg_progress_tell(p, tg_recall_name(task), at, items, "items", NULL)) {
            status = interrupted(err);
            break;
        }
        status = pack_items(s, task, size, items, seed, at, &pack, &at, err);
        if (status == TG_OK)
            status = tg_model_reserve(m, pack.longest, err);
        struct tg_batch b = tg_pack_batch(&pack);
        if (status == TG_OK)
            status = tg_run_fit(run, m, &b, false, err);
        if (status == TG_OK && !tg_grow(&hidden, &cap, pack.rows * m->spec.width, sizeof *hidden))
            status = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tokens", pack.rows);
        if (status != TG_OK)
            break;
        tg_model_forward(m, run, pack.ids, &b, hidden, false, NULL);
        status = tg_pack_score(m, &pack, hidden, &hits, err);
        right += hits;
    }
    if (status == TG_OK && tg_progress_tell(p, tg_recall_name(task), items, items, "items", NULL))
        status = interrupted(err);
    if (status == TG_OK)
        *score = (double)right / (double)items;
    tg_free(hidden);
    tg_run_free(run);
    tg_pack_release(&pack);
    return status;
}

struct token_watch {
    const struct tg_progress *p;
    uint64_t done, total;
    bool stopped;
};
static int watch_token(void *ud, size_t sequence, int32_t id)
{
    (void)sequence, (void)id;
    struct token_watch *w = ud;
    w->stopped = tg_progress_tell(w->p, "generate", ++w->done, w->total, "tokens", NULL) != 0;
    return w->stopped;
}

int tg_eval_generation(struct tg_model *teacher, struct tg_model *student, const int32_t *ids,
                       size_t count, size_t prompts, size_t prompt_len, size_t tokens,
                       double *agreement, const struct tg_progress *p, struct tg_err *err)
{
    if (prompts == 0 || prompt_len == 0 || tokens == 0 || count < prompt_len)
        return tg_fail(err, TG_ERR_VALUE,
                       "generation: %zu prompts of %zu tokens, %zu to make, from a text of %zu: "
                       "every number must be at least 1 and the text hold a prompt",
                       prompts, prompt_len, tokens, count);
    size_t step = prompts > 1 ? (count - prompt_len) / (prompts - 1) : 0;
    struct tg_sampling greedy = {.top_p = 1};
    struct token_watch watch = {.p = p, .total = 2 * (uint64_t)prompts * tokens};
    int32_t *made[2] = {tg_alloc_array(GENERATE_AT_ONCE * tokens, sizeof **made),
                        tg_alloc_array(GENERATE_AT_ONCE * tokens, sizeof **made)};
    struct tg_model *models[2] = {teacher, student};
    int status = TG_OK;
    size_t equal = 0;
    if (!made[0] || !made[1])
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tokens", tokens);
    for (size_t at = 0; at < prompts && status == TG_OK; at += GENERATE_AT_ONCE) {
        size_t n = prompts - at < GENERATE_AT_ONCE ? prompts - at : GENERATE_AT_ONCE;
        const int32_t *from[GENERATE_AT_ONCE];
        size_t len[GENERATE_AT_ONCE], got[GENERATE_AT_ONCE];
        for (size_t i = 0; i < n; i++) {
            from[i] = ids + (at + i) * step;
            len[i] = prompt_len;
        }
        for (int k = 0; k < 2 && status == TG_OK; k++)
            status = tg_generate(models[k], from, len, n, tokens, &greedy, false, made[k], got,
                                 watch_token, &watch, err);
        if (status == TG_OK && watch.stopped)
            status = interrupted(err);
        for (size_t i = 0; i < n && status == TG_OK; i++)
            for (size_t t = 0; t < tokens && made[0][i * tokens + t] == made[1][i * tokens + t];
                 t++)
                equal++;
    }
    if (status == TG_OK)
        *agreement = (double)equal / ((double)prompts * (double)tokens);
    tg_free(made[0]);
    tg_free(made[1]);
    return status;
}
