/* The recurrences (gated outer product, gated delta rule, general rule) with every gate kind, one
 * or several queries of a state: chunks of every size, pieces, one-token steps and the double
 * reference are the same; gradients by central differences of the reference, start state included;
 * one rule as another's special case; strides; threads; strong gates; long texts. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/recur.h"
#include "tests/check.h"
#include "tests/guard.h"

static const double FORWARD = 2e-6, GRADIENT = 1e-5;
static const size_t chunks[] = {1, 7, 16, 32, 37, 64, 128, 0};
enum { CHUNKS = sizeof chunks / sizeof *chunks, K = 5, V = 3, B = 3, INPUTS = 8 };
enum { Q, KEY, VALUE, GATE, BETA, READ, WRITE, START };
static const char *const names[INPUTS] = {"q", "k", "v", "g", "beta", "a", "b", "start"};

/* Value heads, key heads, queries of a state */
static const struct kind {
    enum tg_rule rule;
    size_t H, G, n;
} kinds[] = {{TG_RULE_OUTER, 4, 2, 0}, {TG_RULE_DELTA, 4, 2, 1}, {TG_RULE_GENERAL, 2, 2, 1},
             {TG_RULE_OUTER, 2, 2, 2}, {TG_RULE_DELTA, 1, 1, 3}, {TG_RULE_GENERAL, 2, 2, 2}};
enum { KINDS = sizeof kinds / sizeof *kinds, GATES = 4 };

struct bench {
    struct tg_recur r;
    struct tg_batch b;
    size_t begin[B + 1], rows, n, outputs;
    size_t each[INPUTS]; /* floats of one row; of one sequence's start */
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

/* Gates uniform in [2 low, 0), beta in [0, 2), keys of norm about 1; b of the general rule is a
 * times -1..0, as in RWKV-7 */
static void fill(struct bench *t, float low)
{
    for (size_t a = 0; a < INPUTS; a++) {
        tg_fill_random(t->in[a], t->count[a], a + 1);
        for (size_t i = 0; i < t->count[a]; i++) {
            float *x = t->in[a] + i;
            if (a == GATE)
                *x = low * (1 - *x);
            else if (a == BETA)
                *x += 1;
            else if (a == KEY || a == READ)
                *x *= 0.7F;
            else if (a == WRITE)
                *x = -0.5F * (1 + *x) * t->in[READ][i];
        }
        tg_to_double(t->in[a], t->wide[a], t->count[a]);
    }
}

static void open_bench(struct bench *t, const struct kind *kind, enum tg_gate gate, size_t T,
                       size_t more, float low)
{
    size_t H = kind->H, n = kind->n ? kind->n : 1, gates[] = {0, 0, H, H * K};
    bool general = kind->rule == TG_RULE_GENERAL;
    *t = (struct bench){.begin = {0, T, T, T + more}, .rows = T + more, .n = n};
    t->r = (struct tg_recur){.H = H,
                             .G = kind->G,
                             .queries = kind->n,
                             .K = K,
                             .V = V,
                             .gate = gate,
                             .rule = kind->rule,
                             .scale = 0.7F};
    t->b = (struct tg_batch){B, t->begin, NULL};
    t->outputs = t->rows * H * n * V;
    size_t each[INPUTS] = {kind->G * n * K,
                           kind->G * K,
                           H * V,
                           gates[gate],
                           kind->rule == TG_RULE_DELTA ? H : 0,
                           general ? H * K : 0,
                           general ? H * K : 0,
                           H * K * V};
    for (size_t a = 0; a < INPUTS; a++) {
        t->each[a] = each[a];
        t->count[a] = a == START ? B * each[a] : t->rows * each[a];
        if (a == GATE && gate == TG_GATE_CONSTANT)
            t->count[a] = H;
        t->in[a] = floats(t->count[a]);
        t->wide[a] = doubles(t->count[a]);
    }
    fill(t, low);
    t->dout = floats(t->outputs);
    t->dend = floats(t->count[START]);
    t->o = doubles(t->outputs);
    t->end = doubles(t->count[START]);
    tg_fill_random(t->dout, t->outputs, 11);
    tg_fill_random(t->dend, t->count[START], 12);
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
    enum { MOST = 300, QUERIES = 3 };
    static double q[MOST * K * QUERIES], k[MOST * K], v[MOST * V], g[MOST * K], beta[MOST];
    static double a[MOST * K], b[MOST * K], o[MOST * V * QUERIES];
    const struct tg_recur *r = &t->r;
    size_t each = r->gate == TG_GATE_CHANNEL ? K : 1, H = r->H, G = r->G, wide = t->n * V;
    struct tg_recur_ref in = {q, k, v, g, beta, a, b};
    memcpy(t->end, t->wide[START], t->count[START] * sizeof *t->end);
    for (size_t item = 0; item < B * H; item++) {
        size_t i = item / H, h = item % H, begin = t->begin[i], n = t->begin[i + 1] - begin;
        assert_true(n <= MOST && t->n <= QUERIES);
        gather(t->wide[Q], begin, n, G, h / (H / G), t->n * K, q);
        gather(t->wide[KEY], begin, n, G, h / (H / G), K, k);
        gather(t->wide[VALUE], begin, n, H, h, V, v);
        if (r->gate >= TG_GATE_SCALAR)
            gather(t->wide[GATE], begin, n, H, h, each, g);
        else
            g[0] = r->gate ? t->wide[GATE][h] : 0;
        if (r->rule == TG_RULE_DELTA)
            gather(t->wide[BETA], begin, n, H, h, 1, beta);
        if (r->rule == TG_RULE_GENERAL) {
            gather(t->wide[READ], begin, n, H, h, K, a);
            gather(t->wide[WRITE], begin, n, H, h, K, b);
        }
        tg_recur_ref(r, n, &in, t->end + item * K * V, o);
        for (size_t x = 0; x < n * wide; x++)
            t->o[((begin + x / wide) * H + h) * wide + x % wide] = o[x];
    }
}

static double loss(struct bench *t)
{
    double sum = 0;
    reference(t);
    for (size_t i = 0; i < t->outputs; i++)
        sum += t->o[i] * (double)t->dout[i];
    for (size_t i = 0; i < t->count[START]; i++)
        sum += t->end[i] * (double)t->dend[i];
    return sum;
}

/* Inputs from a row on */
static struct tg_recur_in inputs_at(const struct bench *t, size_t row)
{
    const float *in[INPUTS];
    for (size_t a = 0; a < INPUTS; a++)
        in[a] = t->in[a] + (a == START ? 0 : row * t->each[a]);
    return (struct tg_recur_in){in[Q], in[KEY], in[VALUE], in[GATE], in[BETA], in[READ], in[WRITE]};
}

static struct tg_recur_in inputs(const struct bench *t)
{
    return inputs_at(t, 0);
}

/* Copies of the start states, one after another, and pointers to them */
struct hold {
    float *block, *of[B];
};

static struct hold open_hold(const struct bench *t, const float *from)
{
    struct hold s = {.block = floats(t->count[START])};
    memcpy(s.block, from, t->count[START] * sizeof *from);
    for (size_t i = 0; i < B; i++)
        s.of[i] = s.block + i * t->each[START];
    return s;
}

static struct tg_ctx context(int threads)
{
    return (struct tg_ctx){.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = threads};
}

static void test_forward(void **state)
{
    static const size_t lengths[] = {1, 15, 17, 65, 257};
    enum { LENGTHS = sizeof lengths / sizeof *lengths };
    (void)state;
    for (size_t n = 0; n < (size_t)GATES * KINDS * LENGTHS; n++) {
        struct bench t;
        open_bench(&t, &kinds[n / GATES % KINDS], (enum tg_gate)(n % GATES),
                   lengths[n / GATES / KINDS], 5, n % 3 ? -0.01F : -1);
        struct tg_guarded o = tg_guard(t.outputs);
        struct tg_recur_in in = inputs(&t);
        for (size_t c = 0; c < CHUNKS; c++) {
            t.r.chunk = chunks[c];
            struct tg_ctx ctx = context(1 + (int)(n % 3));
            struct tg_guarded work = tg_guard(tg_recur_work(&t.r, 3));
            struct hold s = open_hold(&t, t.in[START]);
            tg_to_double(t.in[START], t.wide[START], t.count[START]);
            tg_recur_fwd(&ctx, &t.r, &t.b, &in, o.p, (struct tg_states){s.of, 0}, NULL, work.p);
            reference(&t);
            assert_below(tg_rel_error_fd(o.p, t.o, t.outputs), FORWARD, "o");
            assert_below(tg_rel_error_fd(s.block, t.end, t.count[START]), FORWARD, "end state");
            memset(t.wide[START], 0, t.count[START] * sizeof(double));
            reference(&t);
            tg_recur_fwd(&ctx, &t.r, &t.b, &in, o.p, (struct tg_states){0}, NULL, work.p);
            assert_below(tg_rel_error_fd(o.p, t.o, t.outputs), FORWARD, "o from zero");
            tg_free(s.block);
            tg_guard_free(&work);
        }
        tg_guard_free(&o);
        close_bench(&t);
    }
}

/* Arrays of the inputs' sizes, zeroed */
static void open_grads(const struct bench *t, float **d)
{
    for (size_t a = 0; a < INPUTS; a++)
        d[a] = floats(t->count[a]);
}

static void close_grads(float **d)
{
    for (size_t a = 0; a < INPUTS; a++)
        tg_free(d[a]);
}

static void free_all(float *const *used, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tg_free(used[i]);
}

/* Runs forward and backward; d [INPUTS] are zeroed arrays of the inputs' sizes. */
static void gradients(const struct bench *t, int threads, float **d)
{
    struct tg_ctx ctx = context(threads);
    struct hold s = open_hold(t, t->in[START]), ds = open_hold(t, t->dend);
    struct tg_recur_in in = inputs(t);
    struct tg_recur_grads to = {
        d[Q],    d[KEY],  d[VALUE], t->r.gate >= TG_GATE_SCALAR ? d[GATE] : NULL,
        d[BETA], d[READ], d[WRITE]};
    float *o = floats(t->outputs), *saved = floats(tg_recur_saved(&t->r, &t->b));
    float *work = floats(tg_recur_work(&t->r, threads));
    tg_recur_fwd(&ctx, &t->r, &t->b, &in, o, (struct tg_states){s.of, 0}, saved, work);
    tg_recur_bwd(&ctx, &t->r, &t->b, &in, saved, t->dout, &to, (struct tg_states){ds.of, 0}, work);
    memcpy(d[START], ds.block, t->count[START] * sizeof **d);
    free_all((float *[]){s.block, ds.block, o, saved, work}, 5);
}

/* Slopes of the loss along every element of input a */
static double *slopes(struct bench *t, size_t a)
{
    double *want = doubles(t->count[a]);
    for (size_t x = 0; x < t->count[a]; x++) {
        double keep = t->wide[a][x];
        t->wide[a][x] = keep + 1e-5;
        double up = loss(t);
        t->wide[a][x] = keep - 1e-5;
        want[x] = (up - loss(t)) / 2e-5;
        t->wide[a][x] = keep;
    }
    return want;
}

static void test_gradients(void **state)
{
    (void)state;
    for (size_t n = 0; n < (size_t)GATES * KINDS; n++) {
        struct bench t;
        double *want[INPUTS] = {NULL};
        open_bench(&t, &kinds[n / GATES], (enum tg_gate)(n % GATES), 37, 4, n % 3 ? -0.01F : -0.7F);
        for (size_t a = 0; a < INPUTS; a++)
            want[a] = a != GATE || t.r.gate >= TG_GATE_SCALAR ? slopes(&t, a) : NULL;
        for (size_t c = 0; c < CHUNKS; c++) {
            float *d[INPUTS], *again[INPUTS];
            t.r.chunk = chunks[c];
            open_grads(&t, d);
            open_grads(&t, again);
            gradients(&t, 1, d);
            gradients(&t, 2, again);
            for (size_t a = 0; a < INPUTS; a++) {
                assert_memory_equal(d[a], again[a], t.count[a] * sizeof **d);
                if (want[a] && t.count[a])
                    assert_below(tg_rel_error_fd(d[a], want[a], t.count[a]), GRADIENT, names[a]);
            }
            close_grads(d);
            close_grads(again);
        }
        for (size_t a = 0; a < INPUTS; a++)
            tg_free(want[a]);
        close_bench(&t);
    }
}

/* Rows begin..end-1 of every array, from the states on */
static void piece(const struct bench *t, size_t begin, size_t end, struct tg_states states,
                  float *o, float *work)
{
    struct tg_ctx ctx = context(end - begin > 1 ? 2 : 1);
    size_t rows[2] = {0, end - begin};
    struct tg_batch b = {1, rows, NULL};
    struct tg_recur_in in = inputs_at(t, begin);
    tg_recur_fwd(&ctx, &t->r, &b, &in, o + begin * t->r.H * t->n * V, states, NULL, work);
}

/* Two pieces, and one token at a time, give what one run gives. */
static void test_pieces(void **state)
{
    (void)state;
    for (size_t n = 0; n < (size_t)GATES * KINDS; n++) {
        struct bench t;
        open_bench(&t, &kinds[n / GATES], (enum tg_gate)(n % GATES), 150, 0, -0.05F);
        struct hold s = open_hold(&t, t.in[START]);
        float *o = floats(t.outputs), *work = floats(tg_recur_work(&t.r, 2));
        reference(&t);
        piece(&t, 0, 67, (struct tg_states){s.of, 0}, o, work);
        piece(&t, 67, 150, (struct tg_states){s.of, 0}, o, work);
        assert_below(tg_rel_error_fd(o, t.o, t.outputs), FORWARD, "two pieces");
        assert_below(tg_rel_error_fd(s.block, t.end, t.each[START]), FORWARD, "state");
        memcpy(s.block, t.in[START], t.count[START] * sizeof *o);
        for (size_t row = 0; row < t.rows; row++)
            piece(&t, row, row + 1, (struct tg_states){s.of, 0}, o, work);
        assert_below(tg_rel_error_fd(o, t.o, t.outputs), FORWARD, "steps");
        assert_below(tg_rel_error_fd(s.block, t.end, t.each[START]), FORWARD, "state of steps");
        free_all((float *[]){s.block, o, work}, 3);
        close_bench(&t);
    }
}

/* Inputs of a row side by side, gradients alike: q, k, v, a and b */
static void strides(const struct kind *kind)
{
    static const size_t parts[] = {Q, KEY, VALUE, READ, WRITE};
    enum { PARTS = sizeof parts / sizeof *parts };
    struct bench t;
    open_bench(&t, kind, TG_GATE_CHANNEL, 37, 4, -0.1F);
    size_t at[INPUTS] = {0}, wide = 0;
    float *d[INPUTS], *apart[INPUTS];
    open_grads(&t, d);
    open_grads(&t, apart);
    gradients(&t, 1, d);
    for (size_t p = 0; p < PARTS; p++) {
        at[parts[p]] = wide;
        wide += t.each[parts[p]];
    }
    float *x = floats(t.rows * wide), *dx = floats(t.rows * wide);
    for (size_t row = 0; row < t.rows; row++)
        for (size_t p = 0; p < PARTS; p++)
            memcpy(x + row * wide + at[parts[p]], t.in[parts[p]] + row * t.each[parts[p]],
                   t.each[parts[p]] * sizeof *x);
    struct tg_ctx ctx = context(2);
    struct tg_recur r = t.r;
    r.ld_q = r.ld_k = r.ld_v = r.ld_a = wide;
    struct hold s = open_hold(&t, t.in[START]), ds = open_hold(&t, t.dend);
    struct tg_recur_in in = {x,          x + at[KEY],  x + at[VALUE], t.in[GATE],
                             t.in[BETA], x + at[READ], x + at[WRITE]};
    struct tg_recur_grads to = {dx,          dx + at[KEY],  dx + at[VALUE], apart[GATE],
                                apart[BETA], dx + at[READ], dx + at[WRITE]};
    float *o = floats(t.outputs), *saved = floats(tg_recur_saved(&r, &t.b));
    float *work = floats(tg_recur_work(&r, 2));
    tg_recur_fwd(&ctx, &r, &t.b, &in, o, (struct tg_states){s.of, 0}, saved, work);
    tg_recur_bwd(&ctx, &r, &t.b, &in, saved, t.dout, &to, (struct tg_states){ds.of, 0}, work);
    reference(&t);
    assert_below(tg_rel_error_fd(o, t.o, t.outputs), FORWARD, "o");
    for (size_t row = 0; row < t.rows; row++)
        for (size_t p = 0; p < PARTS; p++)
            assert_memory_equal(dx + row * wide + at[parts[p]],
                                d[parts[p]] + row * t.each[parts[p]], t.each[parts[p]] * sizeof *x);
    free_all((float *[]){x, dx, s.block, ds.block, o, saved, work}, 7);
    close_grads(d);
    close_grads(apart);
    close_bench(&t);
}

static void test_strides(void **state)
{
    (void)state;
    for (size_t n = 0; n < KINDS; n++)
        strides(&kinds[n]);
}

/* Gates down to -100 a token: no overflow, no loss against the reference, finite gradients; the
 * caller's numbers below 2^-126 are not lost. */
static void test_strong_gates(void **state)
{
    (void)state;
    for (size_t n = 0; n < (size_t)GATES * KINDS; n++) {
        struct bench t;
        open_bench(&t, &kinds[n / GATES], (enum tg_gate)(n % GATES), 200, 9, -50);
        float *d[INPUTS];
        open_grads(&t, d);
        struct tg_ctx ctx = context(2);
        struct tg_recur_in in = inputs(&t);
        /* beta above 1 without decay need not stay bounded */
        for (size_t i = 0; t.r.gate == TG_GATE_NONE && i < t.count[BETA]; i++)
            t.wide[BETA][i] = (double)(t.in[BETA][i] *= 0.5F);
        struct hold s = open_hold(&t, t.in[START]);
        float *o = floats(t.outputs), *work = floats(tg_recur_work(&t.r, 2));
        tg_recur_fwd(&ctx, &t.r, &t.b, &in, o, (struct tg_states){s.of, 0}, NULL, work);
        reference(&t);
        assert_below(tg_rel_error_fd(o, t.o, t.outputs), FORWARD, "o");
        gradients(&t, 2, d);
        volatile float small = 0x1p-126F;
        assert_true(small * 0.5F > 0);
        for (size_t a = 0; a < INPUTS; a++)
            for (size_t i = 0; i < t.count[a]; i++)
                assert_true(isfinite(d[a][i]));
        free_all((float *[]){s.block, o, work}, 3);
        close_grads(d);
        close_bench(&t);
    }
}

/* Chunks against steps over a whole text: the largest difference over the largest value */
static double drift(const struct bench *t)
{
    struct hold s = open_hold(t, t->in[START]), one = open_hold(t, t->in[START]);
    float *o = floats(t->outputs), *steps = floats(t->outputs);
    float *work = floats(tg_recur_work(&t->r, 2));
    double most = 0, worst = 0;
    piece(t, 0, t->rows, (struct tg_states){s.of, 0}, o, work);
    for (size_t row = 0; row < t->rows; row++)
        piece(t, row, row + 1, (struct tg_states){one.of, 0}, steps, work);
    for (size_t i = 0; i < t->outputs; i++) {
        most = fmax(most, (double)fabsf(steps[i]));
        double apart = fabs((double)o[i] - (double)steps[i]);
        worst = apart <= worst ? worst : apart; /* a NaN stays */
    }
    for (size_t i = 0; i < t->each[START]; i++)
        assert_true(isfinite(s.block[i]));
    free_all((float *[]){s.block, one.block, o, steps, work}, 5);
    return worst / most;
}

static void test_long(void **state)
{
    static const struct {
        size_t T;
        float low;
    } texts[] = {{100000, -0.01F}, {10000, -20}};
    (void)state;
    for (size_t n = 0; n < 3 * 2 * 2; n++) {
        struct bench t;
        open_bench(&t, &kinds[n % 3], n / 3 % 2 ? TG_GATE_CHANNEL : TG_GATE_SCALAR, texts[n / 6].T,
                   0, texts[n / 6].low);
        for (size_t i = 0; texts[n / 6].low < -1 && i < t.count[GATE]; i++)
            t.in[GATE][i] = texts[n / 6].low;
        assert_below(drift(&t), 1e-4, n / 6 ? "gates of -20" : "100,000 tokens");
        close_bench(&t);
    }
}

/* Outputs and all gradients */
struct results {
    float *o, *d[INPUTS];
};

static struct results run(const struct bench *t)
{
    struct results x = {.o = floats(t->outputs)};
    struct hold s = open_hold(t, t->in[START]);
    float *work = floats(tg_recur_work(&t->r, 1));
    struct tg_recur_in in = inputs(t);
    struct tg_ctx ctx = context(1);
    open_grads(t, x.d);
    tg_recur_fwd(&ctx, &t->r, &t->b, &in, x.o, (struct tg_states){s.of, 0}, NULL, work);
    gradients(t, 1, x.d);
    free_all((float *[]){s.block, work}, 2);
    return x;
}

static void same(const struct bench *t, const struct results *x, const struct bench *u,
                 const struct results *y, const char *what)
{
    static const size_t common[] = {Q, START};
    assert_int_equal(t->outputs, u->outputs);
    assert_below(tg_rel_error_f(y->o, x->o, t->outputs), GRADIENT, what);
    for (size_t i = 0; i < 2; i++)
        assert_below(tg_rel_error_f(y->d[common[i]], x->d[common[i]], t->count[common[i]]),
                     GRADIENT, what);
}

/* Gate kinds: 0 by channel = none; equal channels = one number; a text of one gate = constant */
static void test_gate_identities(void **state)
{
    static const enum tg_gate pairs[][2] = {{TG_GATE_NONE, TG_GATE_SCALAR},
                                            {TG_GATE_NONE, TG_GATE_CHANNEL},
                                            {TG_GATE_SCALAR, TG_GATE_CHANNEL},
                                            {TG_GATE_CONSTANT, TG_GATE_SCALAR}};
    (void)state;
    for (size_t n = 0; n < 4 * KINDS; n++) {
        enum tg_gate less = pairs[n % 4][0], more = pairs[n % 4][1];
        struct bench t, u;
        open_bench(&t, &kinds[n / 4], less, 70, 9, -0.3F);
        open_bench(&u, &kinds[n / 4], more, 70, 9, -0.3F);
        for (size_t i = 0; i < u.count[GATE]; i++)
            u.in[GATE][i] = less == TG_GATE_NONE     ? 0
                            : less == TG_GATE_SCALAR ? t.in[GATE][i / K]
                                                     : t.in[GATE][i % t.r.H];
        struct results x = run(&t), y = run(&u);
        same(&t, &x, &u, &y, "gate kinds");
        tg_free(x.o);
        tg_free(y.o);
        close_grads(x.d);
        close_grads(y.d);
        close_bench(&t);
        close_bench(&u);
    }
}

/* The general rule with a = -e^g . k, b = beta k and values beta v is the delta rule. */
static void test_general_is_delta(void **state)
{
    static const struct kind delta = {TG_RULE_DELTA, 2, 2, 2}, general = {TG_RULE_GENERAL, 2, 2, 2};
    (void)state;
    for (size_t n = 0; n < GATES; n++) {
        struct bench t, u;
        open_bench(&t, &delta, (enum tg_gate)n, 70, 9, -0.3F);
        open_bench(&u, &general, (enum tg_gate)n, 70, 9, -0.3F);
        for (size_t i = 0; i < u.count[READ]; i++) {
            size_t row = i / K / 2, h = i / K % 2;
            float g = n == TG_GATE_NONE       ? 0
                      : n == TG_GATE_CONSTANT ? t.in[GATE][h]
                      : n == TG_GATE_SCALAR   ? t.in[GATE][i / K]
                                              : t.in[GATE][i];
            u.in[READ][i] = -expf(g) * t.in[KEY][i];
            u.in[WRITE][i] = t.in[BETA][row * 2 + h] * t.in[KEY][i];
        }
        for (size_t i = 0; i < u.count[VALUE]; i++)
            u.in[VALUE][i] = t.in[BETA][i / V] * t.in[VALUE][i];
        struct results x = run(&t), y = run(&u);
        same(&t, &x, &u, &y, "general as delta");
        tg_free(x.o);
        tg_free(y.o);
        close_grads(x.d);
        close_grads(y.d);
        close_bench(&t);
        close_bench(&u);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),         cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_pieces),          cmocka_unit_test(test_strides),
        cmocka_unit_test(test_strong_gates),    cmocka_unit_test(test_long),
        cmocka_unit_test(test_gate_identities), cmocka_unit_test(test_general_is_delta),
    };
    tg_gemm_init();
    return tg_run_tests("recur", tests, sizeof tests / sizeof *tests);
}
