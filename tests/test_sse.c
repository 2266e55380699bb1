/* Sparse state expansion where it is something simpler, executed in another way, what it leaves
 * alone, what a new layer begins as, and the layers that are refused. That it computes what it
 * should in between is test_mixers'. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/params.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/linear_parts.h"
#include "tests/check.h"
#include "tests/guard.h"
#include "tests/small_model.h"

enum { D = 24, H = 4, G = 2, K = 6, T = 150, ROWS_X = T * D };

static const size_t texts[] = {0, 70, 70, T};
static const struct tg_batch batch = {3, texts, NULL};
static const char *const rows[][2] = {{"sse", "gla"}, {"sse_deltanet", "gated_deltanet"}};

struct layer {
    struct tg_layer_spec spec;
    struct tg_mixer m;
    float *param[TG_MIXER_MAX_PARAMS], *grad[TG_MIXER_MAX_PARAMS];
    size_t count[TG_MIXER_MAX_PARAMS], all;
    float cosine[T * 2], sine[T * 2];
};

static int check_spec(struct tg_layer_spec *layer, struct tg_param_list *list, struct tg_err *err)
{
    struct tg_model_spec model = {.vocab = 1,
                                  .width = D,
                                  .norm.eps = 1e-5,
                                  .ropes = {{.theta = 100}},
                                  .layer_count = 1,
                                  .layers = layer};
    int status = tg_spec_check(&model, "test", err);
    return status || !list ? status : tg_params_of(&model, list, err);
}

/* A layer of random parameters with rotary positions in its linear branch; partitions 0: as the
 * row adopts them */
static void open_layer(struct layer *l, const char *mixer, size_t partitions, size_t active,
                       bool shared)
{
    struct tg_err err = {0};
    struct tg_param_list list;
    *l = (struct layer){.spec = {.mixer = tg_mixer_schema_find(mixer),
                                 .heads = H,
                                 .kv_heads = G,
                                 .head_dim = K,
                                 .rotary_dim = 4,
                                 .attn_scale = 0.4,
                                 .mlp_dim = 1}};
    if (l->spec.mixer->adopt)
        l->spec.mixer->adopt(&l->spec);
    l->spec.kv_heads = G;
    l->spec.linear_plain = false;
    if (partitions) {
        l->spec.recurrent.partitions = partitions;
        l->spec.recurrent.active = active;
        l->spec.recurrent.no_shared = !shared;
    }
    tg_test_must(check_spec(&l->spec, &list, &err), &err);
    l->m = (struct tg_mixer){.spec = &l->spec,
                             .width = D,
                             .norm_eps = 1e-5F,
                             .rope_cos = l->cosine,
                             .rope_sin = l->sine};
    for (size_t i = 0; i < (size_t)T * 2; i++) {
        l->cosine[i] = cosf((float)(i / 2) / (i % 2 ? 10 : 1));
        l->sine[i] = sinf((float)(i / 2) / (i % 2 ? 10 : 1));
    }
    for (size_t i = 0; i < l->spec.mixer->param_count; i++) {
        char name[80];
        snprintf(name, sizeof name, "layers.0.mixer.%s", l->spec.mixer->params[i].name);
        const struct tg_param *p = tg_params_find(&list, name);
        if (!p)
            continue;
        l->all += l->count[i] = p->count;
        l->grad[i] = tg_alloc_array(p->count, sizeof(float));
        l->m.param[i] = l->param[i] = tg_alloc_array(p->count, sizeof(float));
        tg_fill_random(l->param[i], p->count, 100 + i);
    }
    tg_params_release(&list);
}

static void close_layer(struct layer *l)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++) {
        tg_free(l->param[i]);
        tg_free(l->grad[i]);
    }
}

static size_t rule_of(const struct layer *l, const char *name)
{
    size_t i = 0;
    while (i < l->spec.mixer->param_count && strcmp(l->spec.mixer->params[i].name, name) != 0)
        i++;
    assert_true(i < l->spec.mixer->param_count);
    return i;
}

static void copy_param(struct layer *to, const char *name, const struct layer *from, const char *as)
{
    size_t i = rule_of(to, name), j = rule_of(from, as);
    assert_true(to->count[i] > 0);
    assert_int_equal(to->count[i], from->count[j]);
    memcpy(to->param[i], from->param[j], to->count[i] * sizeof(float));
}

/* y and dx [T,D], gradients; of dy = x */
static void run(struct layer *l, float *y, float *dx)
{
    const struct tg_mixer_ops *ops = tg_mixer_find(l->spec.mixer);
    const struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    struct tg_mixer_grads d;
    struct tg_guarded work = tg_guard(ops->work_floats(&l->m, &batch, 2, false)),
                      back = tg_guard(ops->work_floats(&l->m, &batch, 2, true)),
                      saved = tg_guard(ops->saved_floats(&l->m, &batch));
    float x[ROWS_X];
    tg_fill_random(x, ROWS_X, 1);
    memcpy(d.param, l->grad, sizeof d.param);
    ops->forward(&ctx, &l->m, &batch, x, y, saved.p, work.p);
    ops->backward(&ctx, &l->m, &batch, x, x, saved.p, dx, &d, back.p);
    tg_guard_free(&work);
    tg_guard_free(&back);
    tg_guard_free(&saved);
}

/* One state, e = 1, none shared: the row without expansion, to the bit */
static void test_one_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct layer l, base;
        float y[2][ROWS_X], dx[2][ROWS_X];
        open_layer(&l, rows[i][0], 1, 1, false);
        open_layer(&base, rows[i][1], 0, 0, false);
        assert_int_equal(l.all, base.all + D);
        for (size_t r = 0; r < base.spec.mixer->param_count; r++)
            if (base.param[r])
                copy_param(&base, base.spec.mixer->params[r].name, &l,
                           base.spec.mixer->params[r].name);
        run(&l, y[0], dx[0]);
        run(&base, y[1], dx[1]);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
        for (size_t r = 0; r < base.spec.mixer->param_count; r++)
            if (base.param[r])
                assert_memory_equal(base.grad[r],
                                    l.grad[rule_of(&l, base.spec.mixer->params[r].name)],
                                    base.count[r] * sizeof(float));
        close_layer(&l);
        close_layer(&base);
    }
}

/* One state and a shared one of the same gates, q' = q and k' = k: twice the row's o, of which the
 * norm takes the factor out */
static void test_twice(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct layer l, base;
        float y[2][ROWS_X], dx[2][ROWS_X];
        open_layer(&l, rows[i][0], 1, 1, true);
        open_layer(&base, rows[i][1], 0, 0, false);
        l.spec.recurrent.norm_eps = base.spec.recurrent.norm_eps = 1e-12;
        for (size_t r = 0; r < base.spec.mixer->param_count; r++)
            if (base.param[r])
                copy_param(&base, base.spec.mixer->params[r].name, &l,
                           base.spec.mixer->params[r].name);
        for (size_t r = 0; r < l.spec.mixer->param_count; r++) {
            const char *name = l.spec.mixer->params[r].name;
            if (strncmp(name, "shared_", 7) == 0)
                copy_param(&l, name, &l, name + 7);
            if (strcmp(name, "q2_b.weight") == 0 || strcmp(name, "k2_b.weight") == 0)
                memset(l.param[r], 0, l.count[r] * sizeof(float));
        }
        run(&l, y[0], dx[0]);
        run(&base, y[1], dx[1]);
        assert_below(tg_rel_error_f(y[0], y[1], ROWS_X), 1e-5, "y");
        close_layer(&l);
        close_layer(&base);
    }
}

struct arrays {
    float *x, *q, *k, *v, *g, *beta, *o, *want, *mq, *mk, *mv, *mg;
    size_t nq, nk, nv, ng, nb, no;
};

static float *random_floats(size_t n, uint64_t seed)
{
    float *x = tg_alloc_array(n + 1, sizeof *x);
    assert_non_null(x);
    if (seed)
        tg_fill_random(x, n, seed);
    return x;
}

static struct arrays arrays_of(const struct tg_linear_parts *p)
{
    struct arrays a = {.nq = p->H * K,
                       .nk = p->G * K,
                       .nv = p->S * p->V,
                       .ng = p->gates.N * p->gates.each,
                       .nb = p->gates.N,
                       .no = p->out * p->V};
    a.x = random_floats(ROWS_X, 1);
    a.q = random_floats(T * a.nq, 2);
    a.k = random_floats(T * a.nk, 3);
    a.v = random_floats(T * a.nv, 4);
    a.g = random_floats(T * a.ng, 5);
    a.beta = random_floats(T * a.nb, 6);
    for (size_t i = 0; i < T * a.ng; i++)
        a.g[i] = -0.3F * fabsf(a.g[i]);
    for (size_t i = 0; i < T * a.nb; i++)
        a.beta[i] = fminf(fabsf(a.beta[i]), 1);
    a.o = random_floats(T * a.no, 0);
    a.want = random_floats(T * a.no, 0);
    a.mq = random_floats(T * a.nq, 0);
    a.mk = random_floats(T * a.nk, 0);
    a.mv = random_floats(T * a.nv, 0);
    a.mg = random_floats(T * a.ng, 0);
    return a;
}

static void arrays_free(struct arrays *a)
{
    float *all[] = {a->x, a->q,    a->k,  a->v,  a->g,  a->beta,
                    a->o, a->want, a->mq, a->mk, a->mv, a->mg};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        tg_free(all[i]);
}

static bool is_chosen(const float *e, size_t N, size_t active, size_t i)
{
    size_t before = 0;
    for (size_t j = 0; j < N; j++)
        before += e[j] > e[i] || (e[j] == e[i] && j < i);
    return before < active;
}

static void masked(float *y, const float *x, const float *factor, size_t n)
{
    for (size_t i = 0; i < T * n; i++)
        y[i] = factor[i / n] * x[i];
}

/* A state's part of o with every token run through it: e k, e q, v and g where it is chosen, zeros
 * elsewhere, so that nothing is written, read or decays */
static void add_masked(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                       const struct tg_sse_kept *kept, struct arrays *a, size_t part, float *work)
{
    const size_t N = p->sse.N;
    float e[T], m[T];
    float *o = random_floats(T * a->no, 0);
    const bool own = part < N && p->sse.shared;
    for (size_t t = 0; t < T; t++) {
        m[t] = part == N || is_chosen(kept->e + t * N, N, p->sse.active, part);
        e[t] = part == N ? 1 : m[t] * kept->e[t * N + part];
    }
    masked(a->mq, own ? kept->q : a->q, e, a->nq);
    masked(a->mk, own ? kept->k : a->k, e, a->nk);
    masked(a->mv, a->v, m, a->nv);
    masked(a->mg, part < N ? a->g : kept->gates.g, m, a->ng);
    const struct tg_recur_in in = {
        .q = a->mq, .k = a->mk, .v = a->mv, .g = a->mg, .beta = p->gates.beta ? a->beta : NULL};
    tg_recur_fwd(ctx, &p->recur, &batch, &in, o, (struct tg_states){0}, NULL, work);
    for (size_t i = 0; i < T * a->no; i++)
        a->want[i] += o[i];
    tg_free(o);
}

/* Gathered rows give what masked heads give, at N times the cost. */
static void test_masked(void **state)
{
    static const size_t sizes[][2] = {{4, 1}, {5, 3}, {3, 3}, {64, 2}};
    const struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    (void)state;
    for (size_t i = 0; i < 16; i++) {
        struct layer l;
        struct tg_linear_parts p;
        struct tg_sse_kept kept;
        open_layer(&l, rows[i % 2][0], sizes[i / 4][0], sizes[i / 4][1], i / 2 % 2);
        tg_linear_parts_of(&l.m, &batch, &p);
        struct arrays a = arrays_of(&p);
        float *block = random_floats(tg_sse_lay(&p, &batch, false, NULL, &kept), 0);
        struct tg_guarded work = tg_guard(tg_sse_work(&p, &batch, 2));
        float *recur = random_floats(tg_recur_work(&p.recur, 2), 0);
        const struct tg_recur_in in = {
            .q = a.q, .k = a.k, .v = a.v, .g = a.g, .beta = p.gates.beta ? a.beta : NULL};
        tg_sse_lay(&p, &batch, false, block, &kept);
        tg_sse_fwd(&ctx, &l.m, &p, &batch, a.x, &in, a.q, a.k, a.o, (struct tg_states){0}, &kept,
                   work.p);
        for (size_t part = 0; part < tg_sse_states(&p.sse); part++)
            add_masked(&ctx, &p, &kept, &a, part, recur);
        assert_below(tg_rel_error_f(a.o, a.want, T * a.no), 2e-6, l.spec.mixer->name);
        tg_free(block);
        tg_free(recur);
        tg_guard_free(&work);
        arrays_free(&a);
        close_layer(&l);
    }
}

/* A token changes as many states as it uses, and the shared one; the others keep their bits. */
static void test_untouched(void **state)
{
    enum { N = 6, ACTIVE = 2, TOKENS = 30 };
    const struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 1};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct layer l;
        struct tg_linear_parts p;
        open_layer(&l, rows[i][0], N, ACTIVE, true);
        tg_linear_parts_of(&l.m, NULL, &p);
        const struct tg_mixer_ops *ops = tg_mixer_find(l.spec.mixer);
        const size_t size = tg_recur_state(&p.recur), n = ops->state_floats(&l.m, 1);
        const size_t first = n - (N + 1) * size;
        float *s = random_floats(n, 0), *before = random_floats(n, 0), x[D], y[D];
        bool used[N] = {false};
        for (size_t t = 0; t < TOKENS; t++) {
            const size_t begin[] = {0, 1};
            const struct tg_batch b = {1, begin, &t};
            struct tg_guarded work = tg_guard(tg_mixer_step_work(ops, &l.m, &b, 1, 1));
            size_t changed = 0;
            tg_fill_random(x, D, 50 + t);
            memcpy(before, s, n * sizeof *s);
            ops->step(&ctx, &l.m, &b, 1, x, &s, y, work.p);
            for (size_t k = 0; k < N; k++)
                if (memcmp(s + first + k * size, before + first + k * size, size * sizeof *s)) {
                    used[k] = true;
                    changed++;
                }
            assert_int_equal(changed, ACTIVE);
            assert_memory_not_equal(s + first + N * size, before + first + N * size,
                                    size * sizeof *s);
            tg_guard_free(&work);
        }
        for (size_t k = 0; k < N; k++)
            assert_true(used[k]);
        tg_free(s);
        tg_free(before);
        close_layer(&l);
    }
}

/* States grow with N, parameters by D for each. */
static void test_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct layer few, many;
        open_layer(&few, rows[i][0], 2, 1, true);
        open_layer(&many, rows[i][0], 32, 4, true);
        assert_int_equal(many.all, few.all + 30 * D);
        assert_int_equal(many.spec.mixer->state_floats(&many.spec),
                         few.spec.mixer->state_floats(&few.spec) + 30 * G * K * K);
        close_layer(&few);
        close_layer(&many);
    }
}

static const float *begin_with(struct layer *l, const char *name)
{
    struct layer soft;
    size_t rule = rule_of(l, name);
    open_layer(&soft, "softmax", 0, 0, false);
    const struct tg_origin origin = {&soft.m, 0, 1, NULL};
    tg_mixer_find(l->spec.mixer)->inherit(&l->m, &origin, rule, l->param[rule], l->count[rule]);
    close_layer(&soft);
    return l->param[rule];
}

/* A new layer's sparse states read and write what the shared one does, with its decays; tokens
 * differ in which they use. */
static void test_begins(void **state)
{
    struct layer l;
    (void)state;
    open_layer(&l, "sse", 0, 0, false);
    assert_int_equal(l.spec.recurrent.partitions, 4);
    assert_int_equal(l.spec.recurrent.active, 1);
    const float *w = begin_with(&l, "partition.weight"), *b = begin_with(&l, "q2_b.weight");
    for (size_t i = 0; i < 3; i++)
        assert_memory_not_equal(w + i * D, w + 3 * D, D * sizeof *w);
    for (size_t i = 0; i < l.count[rule_of(&l, "q2_b.weight")]; i++)
        assert_true(b[i] == 0);
    assert_true(begin_with(&l, "q2_a.weight")[0] != 0);
    assert_memory_equal(begin_with(&l, "shared_f_b.bias"), begin_with(&l, "f_b.bias"),
                        G * K * sizeof *b);
    assert_true(l.param[rule_of(&l, "f_b.bias")][0] != 0);
    close_layer(&l);
}

static void test_refused(void **state)
{
    static const struct {
        size_t partitions, active;
        const char *says;
    } bad[] = {
        {0, 1, "layer 0: partitions of mixer sse: 0, must be 1 to 64"},
        {65, 1, "layer 0: partitions of mixer sse: 65, must be 1 to 64"},
        {4, 0, "layer 0: active partitions of mixer sse: 0, must be 1 to 4"},
        {4, 5, "layer 0: active partitions of mixer sse: 5, must be 1 to 4"},
    };
    struct layer l;
    (void)state;
    open_layer(&l, "sse", 0, 0, false);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tg_err err = {0};
        l.spec.recurrent.partitions = bad[i].partitions;
        l.spec.recurrent.active = bad[i].active;
        assert_int_equal(check_spec(&l.spec, NULL, &err), TG_ERR_VALUE);
        if (!strstr(err.msg, bad[i].says))
            fail_msg("%s", err.msg);
    }
    close_layer(&l);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_state), cmocka_unit_test(test_twice),
        cmocka_unit_test(test_masked),    cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_sizes),     cmocka_unit_test(test_begins),
        cmocka_unit_test(test_refused),
    };
    tg_gemm_init();
    return tg_run_tests("sse", tests, sizeof tests / sizeof *tests);
}
