/* tegu bench: tokens per second, bytes of state and peak memory, beside the rate of the matrix
 * product on the same machine in the same run, so that numbers of different machines can be read.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "distill/stage.h"
#include "linearize/kernels/gemm.h"
#include "tools/groups.h"
#include "tools/subject.h"
#include "tools/table.h"

struct settings {
    struct tg_counts prefill, decode;
    int64_t train;
    const char *teacher;
    struct tg_plan_flags plan;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "prefill", TG_OPT_COUNTS, AT(prefill), NULL, "LIST",
     "measure one parallel pass over texts of these lengths", 1, 1 << 26, NULL, false},
    {0, "decode", TG_OPT_COUNTS, AT(decode), NULL, "LIST",
     "measure decoding, token by token, with this many tokens already in the cache", 1, 1 << 26,
     NULL, false},
    {0, "train", TG_OPT_COUNT, AT(train), "0", "LEN",
     "measure one step of the kl stage on sequences of this length: teacher, student forward and "
     "backward, update",
     0, 1 << 24, NULL, false},
    {0, "teacher", TG_OPT_TEXT, AT(teacher), NULL, "T",
     "teacher of the training step; without it MODEL is its own teacher", 0, 0, NULL, false},
    {0},
};
#undef AT

enum { DECODE_TOKENS = 64, FILL_CHUNK = 512, MIN_ROUNDS = 3, MAX_ROUNDS = 50 };
static const double enough_seconds = 2;

struct measure {
    char what[32];
    size_t at;
    double tokens_per_second;
    double gflops; /* of the weights' products; 0: not counted */
    size_t state_bytes;
};
struct bench {
    struct tg_tool *t;
    struct settings *set;
    struct tg_subject subject, other;
    struct tg_model *model, *teacher; /* borrowed, or `made` */
    struct tg_model *made;
    double sgemm; /* GFLOP/s */
    struct measure rows[64];
    size_t count;
};

static void random_ids(int32_t *ids, size_t n, size_t vocab)
{
    struct tg_rng r = tg_rng_make(1, 99);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)tg_rng_below(&r, vocab);
}

/* Floating-point operations of one token through all weight products: two a weight, the head
 * included */
static double flops_per_token(const struct tg_model *m)
{
    double n = 0;
    for (size_t i = 0; i < m->params.count; i++)
        if (m->params.items[i].rank == 2)
            n += (double)m->params.items[i].count;
    /* an embedding that is not the head too costs nothing: it is looked up */
    if (!m->spec.tied_head)
        n -= (double)m->spec.vocab * (double)m->spec.width;
    return 2 * n;
}

static struct measure *add_row(struct bench *b, const char *what, size_t at,
                               double tokens_per_second)
{
    struct measure *m = &b->rows[b->count];
    if (b->count + 1 < sizeof b->rows / sizeof b->rows[0])
        b->count++;
    memset(m, 0, sizeof *m);
    snprintf(m->what, sizeof m->what, "%s", what);
    m->at = at;
    m->tokens_per_second = tokens_per_second;
    return m;
}

/* The fastest of several rounds: what the machine can do when nothing disturbs it. */
static int measure_sgemm(struct bench *b, struct tg_err *err)
{
    enum { S = 1024 };
    float *a = tg_alloc_floats(S * S), *x = tg_alloc_floats(S * S), *c = tg_alloc_floats(S * S);
    int status = a && x && c ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK) {
        for (size_t i = 0; i < S * S; i++)
            a[i] = x[i] = (float)(i % 17) * 0.01f;
        double best = INFINITY, began = tg_now();
        for (int i = 0; i < MAX_ROUNDS && (i < 5 || tg_now() - began < 1); i++) {
            double t = tg_now();
            tg_gemm(&b->t->ctx, false, true, S, S, S, 1, a, S, x, S, 0, c, S);
            best = fmin(best, tg_now() - t);
        }
        b->sgemm = 2.0 * S * S * S / best / 1e9;
    }
    tg_free(a);
    tg_free(x);
    tg_free(c);
    return status;
}

static int stopped(struct bench *b, struct tg_err *err)
{
    return tg_stop_wanted(b->t) ? tg_fail(err, TG_ERR_INTERRUPTED, "stopped") : TG_OK;
}

static int measure_prefill(struct bench *b, size_t length, struct tg_err *err)
{
    struct tg_model *m = b->model;
    struct tg_run *r = NULL;
    /* short texts go several at a time, as in training */
    size_t B = length < 2048 ? 4096 / length : 1, rows = B * length;
    B = B > 64 ? 64 : B;
    rows = B * length;
    size_t *begin = tg_alloc_array(B + 1, sizeof *begin);
    int32_t *ids = tg_alloc_array(rows, sizeof *ids);
    float *h = tg_alloc_floats(rows * m->spec.width),
          *logits = tg_alloc_floats(rows * m->spec.vocab);
    int status = begin && ids && h && logits
                     ? TG_OK
                     : tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tokens", rows);
    if (status == TG_OK) {
        for (size_t i = 0; i <= B; i++)
            begin[i] = i * length;
        random_ids(ids, rows, m->spec.vocab);
        status = tg_model_reserve(m, length, err);
    }
    struct tg_batch batch = {B, begin, NULL};
    if (status == TG_OK)
        status = tg_run_create(&r, err);
    if (status == TG_OK)
        status = tg_run_fit(r, m, &batch, false, err);
    double best = INFINITY, began = tg_now();
    for (int i = 0;
         status == TG_OK && i < MAX_ROUNDS && (i < MIN_ROUNDS || tg_now() - began < enough_seconds);
         i++) {
        double t = tg_now();
        tg_model_forward(m, r, ids, &batch, h, false, NULL);
        tg_model_logits(m, h, rows, logits);
        best = fmin(best, tg_now() - t);
        status = stopped(b, err);
    }
    if (status == TG_OK)
        add_row(b, "prefill", length, (double)rows / best)->gflops =
            flops_per_token(m) * (double)rows / best / 1e9;
    tg_run_free(r);
    tg_free(begin);
    tg_free(ids);
    tg_free(h);
    tg_free(logits);
    return status;
}

/* Steps of one token from a cache with `at` tokens in it; each round starts from the same snapshot.
 */
static int decode_rounds(struct bench *b, struct tg_cache *cache, size_t at, float *h,
                         float *logits, struct tg_err *err)
{
    size_t bytes = tg_cache_snapshot_bytes(cache), one[2] = {0, 1};
    void *snapshot = tg_alloc(bytes);
    int status = snapshot ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for a snapshot");
    double best = INFINITY;
    if (status == TG_OK)
        tg_cache_snapshot(cache, 0, snapshot);
    double began = tg_now();
    for (int i = 0;
         status == TG_OK && i < MAX_ROUNDS && (i < MIN_ROUNDS || tg_now() - began < enough_seconds);
         i++) {
        int32_t ids[DECODE_TOKENS];
        random_ids(ids, DECODE_TOKENS, b->model->spec.vocab);
        double t = tg_now();
        for (size_t k = 0; k < DECODE_TOKENS && status == TG_OK; k++) {
            status = tg_model_step(b->model, cache, ids + k, one, h, NULL, err);
            if (status == TG_OK)
                tg_model_logits(b->model, h, 1, logits);
        }
        best = fmin(best, tg_now() - t);
        if (status == TG_OK)
            status = tg_cache_restore(cache, 0, snapshot, bytes, err);
        if (status == TG_OK)
            status = stopped(b, err);
    }
    if (status == TG_OK) {
        struct measure *m = add_row(b, "decode", at, DECODE_TOKENS / best);
        m->gflops = flops_per_token(b->model) * m->tokens_per_second / 1e9;
        m->state_bytes = tg_cache_bytes(cache);
    }
    tg_free(snapshot);
    return status;
}

static int measure_decode(struct bench *b, size_t at, struct tg_err *err)
{
    struct tg_model *m = b->model;
    struct tg_cache *cache = NULL;
    int32_t *ids = tg_alloc_array(FILL_CHUNK, sizeof *ids);
    float *h = tg_alloc_floats(FILL_CHUNK * m->spec.width),
          *logits = tg_alloc_floats(m->spec.vocab);
    int status = ids && h && logits ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK)
        status = tg_model_reserve(m, at + DECODE_TOKENS, err);
    if (status == TG_OK)
        status = tg_cache_create(&cache, m, 1, at + DECODE_TOKENS, err);
    for (size_t done = 0; status == TG_OK && done < at;) {
        size_t n = at - done < FILL_CHUNK ? at - done : FILL_CHUNK, begin[2] = {0, n};
        random_ids(ids, n, m->spec.vocab);
        status = tg_model_step(m, cache, ids, begin, h, NULL, err);
        done += n;
        if (status == TG_OK &&
            tg_progress_tell(&b->t->progress, "fill cache", done, at, "tokens", NULL))
            status = tg_fail(err, TG_ERR_INTERRUPTED, "stopped");
    }
    if (status == TG_OK)
        status = decode_rounds(b, cache, at, h, logits, err);
    tg_cache_free(cache);
    tg_free(ids);
    tg_free(h);
    tg_free(logits);
    return status;
}

struct update {
    const struct tg_model *m;
    float *grads, *first, *second;
};
enum { UPDATE_BLOCK = 1 << 16 };

static void update_block(void *ud, size_t item, int worker)
{
    const struct update *u = ud;
    size_t from = item * UPDATE_BLOCK, n = u->m->params.floats - from;
    (void)worker;
    n = n < UPDATE_BLOCK ? n : UPDATE_BLOCK;
    /* a rate of zero: the weights stay, the work is the same */
    u->m->ctx.k->adamw(u->m->data + from, u->grads + from, u->first + from, u->second + from, 1, 0,
                       0.9f, 0.95f, 1e-8f, 0, 0.1f, 0.05f, n);
}

static int measure_train(struct bench *b, size_t length, struct tg_err *err)
{
    struct tg_model *m = b->model;
    const struct tg_stage *stage = tg_stage_find("kl");
    struct tg_stage_settings set = {.kind = "kl"};
    int status = tg_stage_defaults(&set, err);
    size_t micro = set.micro ? set.micro : 1, rows = micro * length, floats = m->params.floats;
    struct update u = {m, tg_alloc(floats * sizeof(float)), tg_alloc(floats * sizeof(float)),
                       tg_alloc(floats * sizeof(float))};
    bool *wanted = tg_alloc(m->params.count), *changed = tg_alloc(m->spec.layer_count);
    int32_t *ids = tg_alloc_array(rows, sizeof *ids);
    size_t *begin = tg_alloc_array(micro + 1, sizeof *begin);
    struct tg_stage_io io = {.teacher = b->teacher,
                             .student = m,
                             .set = &set,
                             .changed = changed,
                             .wanted = wanted,
                             .grads = u.grads,
                             .weight = 1};
    struct tg_batch batch = {micro, begin, NULL};
    bool begun = false;
    for (size_t l = 0; changed && l < m->spec.layer_count; l++)
        changed[l] = m->spec.layers[l].mixer != b->teacher->spec.layers[l].mixer;
    if (status == TG_OK && !(changed && u.grads && u.first && u.second && wanted && ids && begin))
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for a training step");
    if (status == TG_OK) {
        memset(wanted, true, m->params.count);
        random_ids(ids, rows, m->spec.vocab);
        for (size_t i = 0; i <= micro; i++)
            begin[i] = i * length;
        status = tg_model_reserve(m, length, err);
    }
    if (status == TG_OK)
        status = tg_model_reserve(b->teacher, length, err);
    if (status == TG_OK) {
        begun = true;
        status = stage->begin(&io, &batch, err);
    }
    double best = INFINITY, began = tg_now(), loss;
    for (int i = 0;
         status == TG_OK && i < MAX_ROUNDS && (i < MIN_ROUNDS || tg_now() - began < enough_seconds);
         i++) {
        double t = tg_now();
        size_t batches = set.batch > micro ? set.batch / micro : 1;
        for (size_t k = 0; k < batches && status == TG_OK; k++)
            status = stage->batch(&io, ids, &batch, &loss, err);
        tg_parallel(b->t->ctx.threads, (floats + UPDATE_BLOCK - 1) / UPDATE_BLOCK, update_block,
                    &u);
        best = fmin(best, (tg_now() - t) / (double)batches);
        if (status == TG_OK)
            status = stopped(b, err);
    }
    if (status == TG_OK) {
        double rate = (double)rows / best;
        add_row(b, "kl step", length, rate)->gflops =
            (3 * flops_per_token(m) + flops_per_token(b->teacher)) * rate / 1e9;
    }
    if (begun)
        stage->end(&io);
    tg_free(u.grads);
    tg_free(u.first);
    tg_free(u.second);
    tg_free(wanted);
    tg_free(changed);
    tg_free(ids);
    tg_free(begin);
    return status;
}

/* MODEL as it is, or with the surgery that plan options ask for */
static int open_models(struct bench *b, struct tg_err *err)
{
    bool surgery = tg_plan_flags_given(b->t->parse);
    int status = tg_subject_open(b->t, b->t->args[0], 0, &b->subject, err);
    if (status)
        return status;
    b->model = b->teacher = b->subject.model;
    if (surgery) {
        struct tg_plan_request ask;
        struct tg_plan plan = {0};
        status = tg_plan_flags_read(&b->set->plan, &ask, err);
        if (!tg_parse_given(b->t->parse, "keep"))
            ask.options.keep = "none";
        if (status == TG_OK)
            status = tg_plan_make(&plan, &b->model->spec, &ask.options, NULL, err);
        if (status == TG_OK)
            status = tg_surgery_apply(b->model, &plan, NULL, &b->made, err);
        tg_plan_release(&plan);
        if (status)
            return status;
        b->model = b->made;
    }
    if (b->set->train && b->set->teacher) {
        status = tg_subject_open(b->t, b->set->teacher, 0, &b->other, err);
        if (status == TG_OK)
            status = tg_subjects_match(&b->other, b->set->teacher, &b->subject, b->t->args[0], err);
        if (status == TG_OK && b->other.model->spec.layer_count != b->model->spec.layer_count)
            status = tg_fail(err, TG_ERR_MISMATCH, "%s has %zu layers, its teacher %s %zu",
                             b->t->args[0], b->model->spec.layer_count, b->set->teacher,
                             b->other.model->spec.layer_count);
        b->teacher = b->other.model;
    }
    return status;
}

static void processor_name(char *buf, size_t size)
{
    snprintf(buf, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            const char *name = strchr(line, ':') + 2;
            snprintf(buf, size, "%.*s", (int)strcspn(name, "\n"), name);
            break;
        }
    if (f)
        fclose(f);
}

static int print_results(const struct bench *b, struct tg_err *err)
{
    char processor[128], bytes[40], count[40];
    struct rusage usage;
    processor_name(processor, sizeof processor);
    getrusage(RUSAGE_SELF, &usage);
    double peak = (double)usage.ru_maxrss * 1024;
    if (b->t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *out = tg_print_json_begin(&doc);
        tg_jout_str(out, "processor", processor);
        tg_jout_str(out, "blas_core", tg_gemm_core());
        tg_jout_str(out, "kernels", b->t->ctx.k->name);
        tg_jout_int(out, "threads", b->t->ctx.threads);
        tg_jout_num(out, "sgemm_gflops", b->sgemm);
        tg_jout_array(out, "results");
        for (size_t i = 0; i < b->count; i++) {
            const struct measure *m = &b->rows[i];
            tg_jout_object(out, NULL);
            tg_jout_str(out, "what", m->what);
            tg_jout_int(out, "at", (int64_t)m->at);
            tg_jout_num(out, "tokens_per_second", m->tokens_per_second);
            tg_jout_num(out, "gflops", m->gflops);
            tg_jout_num(out, "sgemm_share", m->gflops / b->sgemm);
            if (m->state_bytes)
                tg_jout_int(out, "cache_bytes", (int64_t)m->state_bytes);
            tg_jout_end_object(out);
        }
        tg_jout_end_array(out);
        tg_jout_int(out, "state_bytes", (int64_t)tg_spec_state_bytes(&b->model->spec));
        tg_jout_int(out, "kv_bytes_per_token",
                    (int64_t)tg_spec_kv_bytes_per_token(&b->model->spec, 2));
        tg_jout_num(out, "peak_bytes", peak);
        return tg_print_json_end(&doc, err);
    }
    printf("processor  %s\nBLAS       OpenBLAS, core %s, sgemm %.0f GFLOP/s\nkernels    %s, %d "
           "threads\n\n",
           processor, tg_gemm_core(), b->sgemm, b->t->ctx.k->name, b->t->ctx.threads);
    struct tg_table table;
    tg_table_init(&table, "what|tokens|tokens/s|GFLOP/s|of sgemm|cache");
    for (size_t i = 0; i < b->count; i++) {
        const struct measure *m = &b->rows[i];
        tg_table_row(&table, "%s|%zu|%s|%.1f|%.0f%%|%s", m->what, m->at,
                     tg_thousands(m->tokens_per_second, count, sizeof count), m->gflops,
                     100 * m->gflops / b->sgemm,
                     m->state_bytes ? tg_bytes_text((double)m->state_bytes, bytes, sizeof bytes)
                                    : "");
    }
    tg_table_print(&table, stdout, b->t->color);
    tg_table_release(&table);
    printf("\nstate      %s constant",
           tg_bytes_text((double)tg_spec_state_bytes(&b->model->spec), bytes, sizeof bytes));
    printf(
        ", %s of KV cache per token (bf16)\n",
        tg_bytes_text((double)tg_spec_kv_bytes_per_token(&b->model->spec, 2), bytes, sizeof bytes));
    printf("memory     %s at its peak\n", tg_bytes_text(peak, bytes, sizeof bytes));
    return TG_OK;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    struct bench b = {.t = t, .set = settings};
    struct settings *set = settings;
    bool usual = !set->prefill.count && !set->decode.count && !set->train;
    if (set->prefill.count + set->decode.count > 60)
        return tg_usage(err, "more than 60 measurements");
    int status = open_models(&b, err);
    if (status == TG_OK)
        status = measure_sgemm(&b, err);
    if (status == TG_OK && usual)
        status = measure_prefill(&b, 1024, err);
    if (status == TG_OK && usual)
        status = measure_decode(&b, 1000, err);
    for (size_t i = 0; status == TG_OK && i < set->prefill.count; i++)
        status = measure_prefill(&b, (size_t)set->prefill.items[i], err);
    for (size_t i = 0; status == TG_OK && i < set->decode.count; i++)
        status = measure_decode(&b, (size_t)set->decode.items[i], err);
    if (status == TG_OK && set->train)
        status = measure_train(&b, (size_t)set->train, err);
    if (status == TG_OK)
        status = print_results(&b, err);
    tg_model_free(b.made);
    tg_subject_close(&b.subject);
    tg_subject_close(&b.other);
    return status;
}

const struct tg_command tg_cmd_bench = {
    .name = "bench",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details = "Without a choice: prefill of 1024 tokens and decoding at 1000. Options of a plan, "
               "such as --mixer or --keep,\n"
               "change MODEL first (untrained). The best of several rounds counts. \"of sgemm\" is "
               "the rate of the weights' products\n"
               "alone, as a share of a 1024-cubed matrix product timed in the same run.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}, {tg_plan_flag_options, offsetof(struct settings, plan)}},
    .run = run,
};
