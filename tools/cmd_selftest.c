/* tegu selftest: checks this build on this machine by walking the registries: kernel tables against
 * portable C, mixers in parallel against token by token, numbers and tensors through files and
 * back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "formats/tensors.h"
#include "linearize/kernels/gemm.h"
#include "linearize/model/model.h"
#include "linearize/surgery/surgery.h"
#include "tools/command.h"
#include "tools/table.h"

static const struct tg_option options[] = {{0}};

/* Relative errors that rounding in float32 cannot reach and any fault does. */
#define KERNEL_TOLERANCE 1e-5
#define MIXER_TOLERANCE 1e-4

struct outcome {
    struct tg_table table;
    struct tg_tool *tool;
    size_t checks, failed;
};

static void say(struct outcome *o, const char *what, const char *name, double error, double limit)
{
    bool ok = error <= limit;
    o->checks++;
    o->failed += !ok;
    tg_table_row(&o->table, "%s|%s|%.2e|%.0e|%s", what, name, error, limit, ok ? "ok" : "FAILED");
}

static double rel(const float *got, const float *want, size_t n)
{
    double diff = 0, ref = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        diff += d * d;
        ref += (double)want[i] * (double)want[i];
    }
    return ref > 0 ? sqrt(diff / ref) : sqrt(diff);
}

static void fill(float *x, size_t n, uint64_t stream, double scale)
{
    struct tg_rng r = tg_rng_make(7, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * tg_rng_normal(&r));
}

enum { N = 257 }; /* odd and larger than any vector */

/* Every kernel's output of one table, one after another, into out; returns how many floats */
static size_t run_kernels(const struct tg_kernels *k, float *out)
{
    enum { ROOM = N };
    float a[ROOM], b[ROOM], c[ROOM], d[ROOM];
    size_t at = 0;
    fill(a, N, 1, 1);
    fill(b, N, 2, 1);
    fill(c, N, 3, 1);
    k->exp(a, out + at, N);
    at += N;
    k->sigmoid(a, out + at, N);
    at += N;
    k->softplus(a, out + at, N);
    at += N;
    memcpy(d, a, sizeof d);
    out[at++] = k->exp_shift_sum(d, 0.5f, N);
    out[at++] = k->max(a, N);
    out[at++] = k->dot(a, a, N);
    out[at++] = (float)k->sum_squares(a, N);
    memcpy(out + at, b, sizeof b);
    k->axpy(0.7f, a, out + at, N);
    k->scale(1.3f, out + at, N);
    at += N;
    float r = k->rmsnorm_fwd(a, b, 1e-5f, out + at, N);
    at += N;
    memcpy(out + at, a, sizeof a);
    memcpy(out + at + N, b, sizeof b);
    k->rmsnorm_bwd(a, b, r, c, out + at, out + at + N, N);
    at += 2 * N;
    k->silu_mul_fwd(a, b, out + at, N);
    at += N;
    k->silu_mul_bwd(a, b, c, out + at, out + at + N, N);
    at += 2 * N;
    memcpy(out + at, a, (N - 1) * sizeof *a);
    k->rope(out + at, b, c, 1, N - 1);
    at += N - 1;
    memcpy(out + at, b, sizeof b);
    out[at + N] = (float)k->kl_row(a, out + at, 0.8f, 1, N);
    at += N + 1;
    memcpy(out + at, b, sizeof b);
    out[at + N] = (float)k->ce_row(out + at, 5, 1, N);
    at += N + 1;
    float m[ROOM] = {0}, v[ROOM] = {0};
    memcpy(out + at, a, sizeof a);
    k->adamw(out + at, b, m, v, 1, 1e-2f, 0.9f, 0.95f, 1e-8f, 0.01f, 0.1f, 0.05f, N);
    return at + N;
}

static int check_kernels(struct outcome *o, struct tg_err *err)
{
    const struct tg_kernels *const *tables = tg_kernels_runnable();
    float *want = tg_alloc_floats(20 * N), *got = tg_alloc_floats(20 * N);
    int status = want && got ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    for (size_t i = 0; tables[i] && status == TG_OK; i++) {
        size_t n = run_kernels(tables[i], i ? got : want);
        if (i)
            say(o, "kernels against portable C", tables[i]->name, rel(got, want, n),
                KERNEL_TOLERANCE);
    }
    tg_free(want);
    tg_free(got);
    return status;
}

static int check_gemm(struct outcome *o, struct tg_err *err)
{
    enum { M = 200, P = 129, K = 129 };
    static const struct {
        enum tg_precision precision;
        const char *name;
        double limit; /* bfloat16's 8 significant bits, two of them */
    } ways[] = {{TG_PREC_F32, NULL, KERNEL_TOLERANCE},
                {TG_PREC_BF16X2, "amx, bf16x2", 0x1p-15},
                {TG_PREC_BF16, "amx, bf16", 0x1p-7}};
    float *a = tg_alloc_floats(M * K), *b = tg_alloc_floats(P * K), *c = tg_alloc_floats(M * P),
          *want = tg_alloc_floats(M * P);
    int status = a && b && c && want ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK) {
        fill(a, M * K, 11, 1);
        fill(b, P * K, 12, 1);
        for (size_t i = 0; i < M; i++)
            for (size_t j = 0; j < P; j++) {
                double s = 0;
                for (size_t k = 0; k < K; k++)
                    s += (double)a[i * K + k] * (double)b[j * K + k];
                want[i * P + j] = (float)s;
            }
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            struct tg_ctx ctx = o->tool->ctx;
            ctx.precision = ways[i].precision;
            if (i > 0 && !ctx.k->product)
                break;
            tg_gemm(&ctx, false, true, M, P, K, 1, a, K, b, K, 0, c, P);
            say(o, "matrix product against double", i ? ways[i].name : tg_gemm_core(),
                rel(c, want, M * P), ways[i].limit);
        }
    }
    tg_free(a);
    tg_free(b);
    tg_free(c);
    tg_free(want);
    return status;
}

enum { TOKENS = 70, VOCAB = 32, WIDTH = 32 };

static struct tg_layer_spec small_layer(const struct tg_mixer_schema *schema)
{
    struct tg_layer_spec y = {
        .mixer = schema,
        .heads = 4,
        .kv_heads = 2,
        .head_dim = 16,
        .rotary_dim = 16,
        .window = schema->flags & TG_MIXER_WINDOW ? 24 : 0,
        .sinks = schema->sinks,
        .feature_dim = 16,
        .feature_map = TG_MAP_HEDGEHOG_SOFTMAX,
        .attn_scale = 0.25,
        .mlp_dim = 48,
    };
    if (schema->adopt)
        schema->adopt(&y);
    else if (schema->flags & TG_MIXER_RECURRENT)
        y.recurrent = (struct tg_recurrent_spec){.v_heads = 4,
                                                 .v_dim = 12,
                                                 .conv = 4,
                                                 .state = 16,
                                                 .groups = 2,
                                                 .inner = 48,
                                                 .rank = 8,
                                                 .conv_bias = true,
                                                 .norm = true,
                                                 .norm_eps = 1e-5};
    if (y.recurrent.chunk)
        y.recurrent.chunk = 24;
    return y;
}

/* A model of two layers of one mixer: a parallel pass against the cache, token by token. */
static int check_mixer(struct outcome *o, const struct tg_mixer_schema *schema, struct tg_err *err)
{
    struct tg_layer_spec layers[2] = {small_layer(schema), small_layer(schema)};
    struct tg_model_spec spec = {.vocab = VOCAB,
                                 .width = WIDTH,
                                 .norm.eps = 1e-5,
                                 .tied_head = true,
                                 .ropes = {{.theta = 1e4}},
                                 .bos_id = -1,
                                 .layer_count = 2,
                                 .layers = layers};
    snprintf(spec.family, sizeof spec.family, "tegu");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    struct tg_model *m = NULL;
    struct tg_run *r = NULL;
    struct tg_cache *cache = NULL;
    float *h = tg_alloc_floats(TOKENS * WIDTH), *g = tg_alloc_floats(TOKENS * WIDTH);
    int32_t ids[TOKENS];
    size_t begin[2] = {0, TOKENS}, one[2] = {0, 1};
    struct tg_batch batch = {1, begin, NULL};
    int status = h && g ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 7 + i / 5) % VOCAB;
    if (status == TG_OK)
        status = tg_model_create(&m, &spec, &o->tool->ctx, err);
    for (size_t i = 0; status == TG_OK && i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        fill(m->data + p->offset, p->count, i, p->rank >= 2 ? 0.2 : 0.5);
    }
    if (status == TG_OK)
        status = tg_run_create(&r, err);
    if (status == TG_OK)
        status = tg_run_fit(r, m, &batch, false, err);
    if (status == TG_OK) {
        tg_model_forward(m, r, ids, &batch, h, false, NULL);
        status = tg_cache_create(&cache, m, 1, TOKENS, err);
    }
    for (size_t t = 0; status == TG_OK && t < TOKENS; t++)
        status = tg_model_step(m, cache, ids + t, one, g + t * WIDTH, NULL, err);
    if (status == TG_OK)
        say(o, "mixer in parallel against steps", schema->name, rel(h, g, TOKENS * WIDTH),
            MIXER_TOLERANCE);
    tg_cache_free(cache);
    tg_run_free(r);
    tg_model_free(m);
    tg_free(h);
    tg_free(g);
    return status;
}

/* A weight that a type holds exactly must survive the way through a file. */
static int check_file(struct outcome *o, enum tg_dtype dtype, struct tg_err *err)
{
    enum { ROWS = 5, COLUMNS = 7 };
    float data[ROWS * COLUMNS], back[ROWS * COLUMNS];
    char path[] = "/tmp/tegu-selftest-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return tg_fail(err, TG_ERR_IO, "/tmp: no temporary file can be made there");
    close(fd);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        data[i] = (float)(i - 17) / 4;
    struct tg_tensor_plan plan = {"x", dtype, 2, {ROWS, COLUMNS}};
    struct tg_tensor_writer *w = NULL;
    struct tg_tensors *file = NULL;
    memset(back, 0, sizeof back);
    int status = tg_tensor_writer_open(&w, path, &plan, 1, &tg_write_single, err);
    if (status == TG_OK)
        status = tg_tensor_writer_put_f32(w, data, err);
    if (status == TG_OK)
        status = tg_tensor_writer_finish(w, err);
    tg_tensor_writer_close(w);
    char *named = NULL; /* files are known by their suffix */
    size_t n = strlen(path) + 16;
    if (status == TG_OK && (named = tg_alloc(n)) == NULL)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK) {
        snprintf(named, n, "%s.safetensors", path);
        if (rename(path, named) != 0)
            status = tg_fail(err, TG_ERR_IO, "%s: cannot be renamed", path);
    }
    if (status == TG_OK)
        status = tg_tensors_open(&file, named, err);
    if (status == TG_OK)
        status = tg_tensor_read_f32(tg_tensors_at(file, 0), back, err);
    if (status == TG_OK)
        say(o, "weights through a file", tg_dtype_info(dtype)->name,
            rel(back, data, ROWS * COLUMNS), 0);
    tg_tensors_close(file);
    unlink(path);
    if (named)
        unlink(named);
    tg_free(named);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    static const enum tg_dtype written[] = {TG_F32, TG_BF16, TG_F16};
    struct outcome o = {.tool = t};
    (void)settings;
    tg_table_init(&o.table, "check|of|error|limit|");
    int status = check_kernels(&o, err);
    if (status == TG_OK)
        status = check_gemm(&o, err);
    for (size_t i = 0; tg_mixer_schemas[i] && status == TG_OK; i++)
        status = check_mixer(&o, tg_mixer_schemas[i], err);
    for (size_t i = 0; i < sizeof written / sizeof written[0] && status == TG_OK; i++)
        status = check_file(&o, written[i], err);
    if (status == TG_OK && t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *out = tg_print_json_begin(&doc);
        tg_jout_int(out, "checks", (int64_t)o.checks);
        tg_jout_int(out, "failed", (int64_t)o.failed);
        tg_jout_str(out, "kernels", t->ctx.k->name);
        status = tg_print_json_end(&doc, err);
    } else if (status == TG_OK) {
        tg_table_print(&o.table, stdout, t->color);
        printf("%zu checks, %zu failed; this build uses %s kernels here\n", o.checks, o.failed,
               t->ctx.k->name);
    }
    tg_table_release(&o.table);
    if (status == TG_OK && o.failed)
        status = TG_EXIT_CHECK;
    return status;
}

const struct tg_command tg_cmd_selftest = {
    .name = "selftest",
    .args = "",
    .max_args = 0,
    .details = "Walks the tables of kernels, mixers and weight types. Exit status 3 if a check "
               "does not hold.",
    .groups = {{options, 0}},
    .run = run,
};
