/* The two recurrences (gated outer product, gated delta rule) with every gate kind: chunks of every
 * size, pieces, one-token steps and the double reference are the same; gradients by central
 * differences of the reference, start state included; strides; threads; strong gates. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/recur.h"
#include "tests/check.h"
#include "tests/guard.h"

static const double FORWARD = 2e-6, GRADIENT = 1e-5;
static const size_t chunks[] = {1, 7, 16, 37, 64, 0};
enum { CHUNKS = sizeof chunks / sizeof *chunks, H = 4, G = 2, K = 5, V = 3, B = 3, INPUTS = 6 };
enum { Q, KEY, VALUE, GATE, BETA, START };
static const char *const names[INPUTS] = {"q", "k", "v", "g", "beta", "start"};

struct bench {
    struct tg_recur r;
    struct tg_batch b;
    size_t begin[B + 1], rows;
    size_t count[INPUTS];
    float *in[INPUTS], *dout, *dend;
    double *wide[INPUTS];
    double *o, *end;
};

static float *floats(size_t n)
{
    float *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

static double *doubles(size_t n)
{
    double *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* Gates uniform in [2 low, 0), beta in [0, 2), keys of norm about 1 */
static void open_bench(struct bench *t, enum tg_gate gate, bool delta, size_t T, size_t more,
                       float low)
{
    *t = (struct bench){.r = {.H = H,
                              .G = G,
                              .K = K,
                              .V = V,
                              .gate = gate,
                              .rule = delta ? TG_RULE_DELTA : TG_RULE_OUTER},
                        .begin = {0, T, T, T + more},
                        .rows = T + more};
    t->r.scale = 0.7F;
    t->b = (struct tg_batch){B, t->begin, NULL};
    size_t gates[] = {0, H, t->rows * H, t->rows * H * K};
    size_t count[INPUTS] = {t->rows * G * K, t->rows * G * K,         t->rows * H * V,
                            gates[gate],     delta ? t->rows * H : 0, (size_t)B * H * K * V};
    for (size_t a = 0; a < INPUTS; a++) {
        t->count[a] = count[a];
        t->in[a] = floats(count[a]);
        t->wide[a] = doubles(count[a]);
        tg_fill_random(t->in[a], count[a], a + 1);
        for (size_t i = 0; i < count[a]; i++) {
            float *x = t->in[a] + i;
            *x = a == GATE ? low * (1 - *x) : a == BETA ? 1 + *x : a == KEY ? 0.7F * *x : *x;
        }
        tg_to_double(t->in[a], t->wide[a], count[a]);
    }
    t->dout = floats(t->rows * H * V);
    t->dend = floats(count[START]);
    t->o = doubles(t->rows * H * V);
    t->end = doubles(count[START]);
    tg_fill_random(t->dout, t->rows * H * V, 11);
    tg_fill_random(t->dend, count[START], 12);
}

static void close_bench(struct bench *t)
{
    for (size_t a = 0; a < INPUTS; a++) {
        tg_free(t->in[a]);
        tg_free(t->wide[a]);
    }
    tg_free(t->dout);
    tg_free(t->dend);
    tg_free(t->o);
    tg_free(t->end);
}

static void gather(const double *from, size_t begin, size_t n, size_t heads, size_t h, size_t size,
                   double *to)
{
    for (size_t t = 0; t < n; t++)
        memcpy(to + t * size, from + ((begin + t) * heads + h) * size, size * sizeof *to);
}

/* o and end from the double inputs */
static void reference(struct bench *t)
{
    enum { MOST = 300 };
    static double q[MOST * K], k[MOST * K], v[MOST * V], g[MOST * K], beta[MOST], o[MOST * V];
    size_t each = t->r.gate == TG_GATE_CHANNEL ? K : 1;
    memcpy(t->end, t->wide[START], t->count[START] * sizeof *t->end);
    for (size_t item = 0; item < (size_t)B * H; item++) {
        size_t i = item / H, h = item % H, begin = t->begin[i], n = t->begin[i + 1] - begin;
        assert_true(n <= MOST);
        gather(t->wide[Q], begin, n, G, h / (H / G), K, q);
        gather(t->wide[KEY], begin, n, G, h / (H / G), K, k);
        gather(t->wide[VALUE], begin, n, H, h, V, v);
        if (t->r.gate >= TG_GATE_SCALAR)
            gather(t->wide[GATE], begin, n, H, h, each, g);
        else
            g[0] = t->r.gate ? t->wide[GATE][h] : 0;
        if (t->r.rule == TG_RULE_DELTA)
            gather(t->wide[BETA], begin, n, H, h, 1, beta);
        struct tg_recur_ref in = {.q = q, .k = k, .v = v, .g = g, .beta = beta};
        tg_recur_ref(&t->r, n, &in, t->end + item * K * V, o);
        for (size_t x = 0; x < n * V; x++)
            t->o[((begin + x / V) * H + h) * V + x % V] = o[x];
    }
}

static double loss(struct bench *t)
{
    double sum = 0;
    reference(t);
    for (size_t i = 0; i < t->rows * H * V; i++)
        sum += t->o[i] * (double)t->dout[i];
    for (size_t i = 0; i < t->count[START]; i++)
        sum += t->end[i] * (double)t->dend[i];
    return sum;
}

static struct tg_recur_in inputs(const struct bench *t)
{
    return (struct tg_recur_in){
        .q = t->in[Q], .k = t->in[KEY], .v = t->in[VALUE], .g = t->in[GATE], .beta = t->in[BETA]};
}

/* Copies of the start states, one after another, and pointers to them */
struct hold {
    float *block, *of[B];
};

static struct hold open_hold(const float *from)
{
    struct hold s = {.block = floats((size_t)B * H * K * V)};
    if (from)
        memcpy(s.block, from, (size_t)B * H * K * V * sizeof *from);
    for (size_t i = 0; i < B; i++)
        s.of[i] = s.block + i * H * K * V;
    return s;
}

static struct tg_ctx context(int threads)
{
    return (struct tg_ctx){tg_kernels_select((unsigned)TG_CPU_ALL), threads};
}

static void test_forward(void **state)
{
    static const size_t lengths[] = {1, 15, 17, 64, 65, 257};
    enum { LENGTHS = sizeof lengths / sizeof *lengths };
    (void)state;
    for (size_t n = 0; n < (size_t)4 * 2 * LENGTHS * CHUNKS; n++) {
        struct bench t;
        open_bench(&t, (enum tg_gate)(n % 4), n / 4 % 2, lengths[n / 8 % LENGTHS], 5,
                   n % 3 ? -0.01F : -1);
        t.r.chunk = chunks[n / 8 / LENGTHS];
        struct tg_ctx ctx = context(1 + (int)(n % 3));
        struct tg_guarded o = tg_guard(t.rows * H * V), work = tg_guard(tg_recur_work(&t.r, 3));
        struct hold s = open_hold(t.in[START]);
        struct tg_recur_in in = inputs(&t);
        tg_recur_fwd(&ctx, &t.r, &t.b, &in, o.p, (struct tg_states){s.of, 0}, NULL, work.p);
        reference(&t);
        assert_below(tg_rel_error_fd(o.p, t.o, t.rows * H * V), FORWARD, "o");
        assert_below(tg_rel_error_fd(s.block, t.end, t.count[START]), FORWARD, "end state");
        memset(t.wide[START], 0, t.count[START] * sizeof(double));
        reference(&t);
        tg_recur_fwd(&ctx, &t.r, &t.b, &in, o.p, (struct tg_states){0}, NULL, work.p);
        assert_below(tg_rel_error_fd(o.p, t.o, t.rows * H * V), FORWARD, "o from zero");
        tg_free(s.block);
        tg_guard_free(&o);
        tg_guard_free(&work);
        close_bench(&t);
    }
}

/* Runs forward and backward; d [INPUTS] are zeroed arrays of the inputs' sizes. */
static void gradients(struct bench *t, int threads, float **d)
{
    struct tg_ctx ctx = context(threads);
    struct hold s = open_hold(t->in[START]), ds = open_hold(t->dend);
    struct tg_recur_in in = inputs(t);
    struct tg_recur_grads to = {.q = d[Q],
                                .k = d[KEY],
                                .v = d[VALUE],
                                .g = t->r.gate >= TG_GATE_SCALAR ? d[GATE] : NULL,
                                .beta = d[BETA]};
    float *o = floats(t->rows * H * V), *saved = floats(tg_recur_saved(&t->r, &t->b));
    float *work = floats(tg_recur_work(&t->r, threads));
    tg_recur_fwd(&ctx, &t->r, &t->b, &in, o, (struct tg_states){s.of, 0}, saved, work);
    tg_recur_bwd(&ctx, &t->r, &t->b, &in, saved, t->dout, &to, (struct tg_states){ds.of, 0}, work);
    memcpy(d[START], ds.block, t->count[START] * sizeof **d);
    float *used[] = {s.block, ds.block, o, saved, work};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

static void test_gradients(void **state)
{
    (void)state;
    for (size_t n = 0; n < (size_t)4 * 2 * CHUNKS; n++) {
        struct bench t;
        open_bench(&t, (enum tg_gate)(n % 4), n / 4 % 2, 37, 4, n % 3 ? -0.01F : -0.7F);
        t.r.chunk = chunks[n / 8];
        float *d[INPUTS], *again[INPUTS];
        for (size_t a = 0; a < INPUTS; a++) {
            d[a] = floats(t.count[a]);
            again[a] = floats(t.count[a]);
        }
        gradients(&t, 1, d);
        gradients(&t, 2, again);
        for (size_t a = 0; a < INPUTS; a++) {
            double *want = doubles(t.count[a]);
            assert_memory_equal(d[a], again[a], t.count[a] * sizeof **d);
            bool wanted = a != GATE || t.r.gate >= TG_GATE_SCALAR;
            for (size_t x = 0; wanted && x < t.count[a]; x++) {
                double keep = t.wide[a][x];
                t.wide[a][x] = keep + 1e-5;
                double up = loss(&t);
                t.wide[a][x] = keep - 1e-5;
                want[x] = (up - loss(&t)) / 2e-5;
                t.wide[a][x] = keep;
            }
            if (wanted)
                assert_below(tg_rel_error_fd(d[a], want, t.count[a]), GRADIENT, names[a]);
            tg_free(want);
        }
        for (size_t a = 0; a < INPUTS; a++) {
            tg_free(d[a]);
            tg_free(again[a]);
        }
        close_bench(&t);
    }
}

/* Rows begin..end-1 of every array, from the states on */
static void piece(const struct bench *t, size_t begin, size_t end, struct tg_states states,
                  float *o, float *work)
{
    struct tg_ctx ctx = context(2);
    size_t rows[2] = {0, end - begin};
    size_t each = t->r.gate < TG_GATE_SCALAR ? 0 : t->r.gate == TG_GATE_CHANNEL ? H * K : H;
    struct tg_batch b = {1, rows, NULL};
    struct tg_recur_in in = {.q = t->in[Q] + begin * G * K,
                             .k = t->in[KEY] + begin * G * K,
                             .v = t->in[VALUE] + begin * H * V,
                             .g = t->in[GATE] + begin * each,
                             .beta = t->r.rule == TG_RULE_DELTA ? t->in[BETA] + begin * H : NULL};
    tg_recur_fwd(&ctx, &t->r, &b, &in, o + begin * H * V, states, NULL, work);
}

/* Two pieces, and one token at a time, give what one run gives. */
static void test_pieces(void **state)
{
    (void)state;
    for (size_t n = 0; n < 8; n++) {
        struct bench t;
        open_bench(&t, (enum tg_gate)(n % 4), n / 4, 150, 0, -0.05F);
        struct hold s = open_hold(t.in[START]);
        float *o = floats(t.rows * H * V), *work = floats(tg_recur_work(&t.r, 2));
        reference(&t);
        piece(&t, 0, 67, (struct tg_states){s.of, 0}, o, work);
        piece(&t, 67, 150, (struct tg_states){s.of, 0}, o, work);
        assert_below(tg_rel_error_fd(o, t.o, t.rows * H * V), FORWARD, "two pieces");
        assert_below(tg_rel_error_fd(s.block, t.end, H * K * V), FORWARD, "state");
        memcpy(s.block, t.in[START], t.count[START] * sizeof *o);
        for (size_t row = 0; row < t.rows; row++)
            piece(&t, row, row + 1, (struct tg_states){s.of, 0}, o, work);
        assert_below(tg_rel_error_fd(o, t.o, t.rows * H * V), FORWARD, "steps");
        assert_below(tg_rel_error_fd(s.block, t.end, H * K * V), FORWARD, "state of steps");
        tg_free(s.block);
        tg_free(o);
        tg_free(work);
        close_bench(&t);
    }
}

/* q, k and v side by side in one row, gradients alike */
static void test_strides(void **state)
{
    (void)state;
    struct bench t;
    open_bench(&t, TG_GATE_CHANNEL, true, 37, 4, -0.1F);
    enum { WIDE = 2 * G * K + H * V };
    float *x = floats(t.rows * WIDE), *dx = floats(t.rows * WIDE), *d[INPUTS];
    for (size_t a = 0; a < INPUTS; a++)
        d[a] = floats(t.count[a]);
    gradients(&t, 1, d);
    for (size_t row = 0; row < t.rows; row++) {
        memcpy(x + row * WIDE, t.in[Q] + row * G * K, G * K * sizeof *x);
        memcpy(x + row * WIDE + G * K, t.in[KEY] + row * G * K, G * K * sizeof *x);
        memcpy(x + row * WIDE + 2 * G * K, t.in[VALUE] + row * H * V, H * V * sizeof *x);
    }
    struct tg_ctx ctx = context(2);
    struct tg_recur r = t.r;
    r.ld_q = r.ld_k = r.ld_v = WIDE;
    struct hold s = open_hold(t.in[START]), ds = open_hold(t.dend);
    struct tg_recur_in in = {
        .q = x, .k = x + G * K, .v = x + 2 * G * K, .g = t.in[GATE], .beta = t.in[BETA]};
    float *dg = floats(t.count[GATE]), *dbeta = floats(t.count[BETA]);
    struct tg_recur_grads to = {
        .q = dx, .k = dx + G * K, .v = dx + 2 * G * K, .g = dg, .beta = dbeta};
    float *o = floats(t.rows * H * V), *saved = floats(tg_recur_saved(&r, &t.b));
    float *work = floats(tg_recur_work(&r, 2));
    tg_recur_fwd(&ctx, &r, &t.b, &in, o, (struct tg_states){s.of, 0}, saved, work);
    tg_recur_bwd(&ctx, &r, &t.b, &in, saved, t.dout, &to, (struct tg_states){ds.of, 0}, work);
    reference(&t);
    assert_below(tg_rel_error_fd(o, t.o, t.rows * H * V), FORWARD, "o");
    for (size_t row = 0; row < t.rows; row++) {
        assert_memory_equal(dx + row * WIDE, d[Q] + row * G * K, G * K * sizeof *x);
        assert_memory_equal(dx + row * WIDE + G * K, d[KEY] + row * G * K, G * K * sizeof *x);
        assert_memory_equal(dx + row * WIDE + 2 * G * K, d[VALUE] + row * H * V, H * V * sizeof *x);
    }
    float *used[] = {x, dx, s.block, ds.block, dg, dbeta, o, saved, work};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
    for (size_t a = 0; a < INPUTS; a++)
        tg_free(d[a]);
    close_bench(&t);
}

/* Gates down to -100 a token: no overflow, no loss against the reference, finite gradients. */
static void test_strong_gates(void **state)
{
    (void)state;
    for (size_t n = 0; n < 8; n++) {
        struct bench t;
        open_bench(&t, (enum tg_gate)(n % 4), n / 4, 200, 9, -50);
        float *d[INPUTS];
        for (size_t a = 0; a < INPUTS; a++)
            d[a] = floats(t.count[a]);
        struct tg_ctx ctx = context(2);
        struct tg_recur_in in = inputs(&t);
        if (t.r.gate == TG_GATE_NONE &&
            t.r.rule == TG_RULE_DELTA) /* beta above 1 without decay need not stay bounded */
            for (size_t i = 0; i < t.count[BETA]; i++)
                t.wide[BETA][i] = (double)(t.in[BETA][i] *= 0.5F);
        struct hold s = open_hold(t.in[START]);
        float *o = floats(t.rows * H * V), *work = floats(tg_recur_work(&t.r, 2));
        tg_recur_fwd(&ctx, &t.r, &t.b, &in, o, (struct tg_states){s.of, 0}, NULL, work);
        reference(&t);
        assert_below(tg_rel_error_fd(o, t.o, t.rows * H * V), FORWARD, "o");
        gradients(&t, 2, d);
        for (size_t a = 0; a < INPUTS; a++)
            for (size_t i = 0; i < t.count[a]; i++)
                assert_true(isfinite(d[a][i]));
        tg_free(s.block);
        tg_free(o);
        tg_free(work);
        for (size_t a = 0; a < INPUTS; a++)
            tg_free(d[a]);
        close_bench(&t);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),      cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_pieces),       cmocka_unit_test(test_strides),
        cmocka_unit_test(test_strong_gates),
    };
    tg_gemm_init();
    return tg_run_tests("recur", tests, sizeof tests / sizeof *tests);
}
