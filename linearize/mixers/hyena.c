/* Hyena's short forms (Exploring Diffusion Transformer Designs via Grafting, arXiv 2506.05340; the
 * operators of StripedHyena 2, arXiv 2503.01868), products channel by channel:
 *
 *   q, k, v = projections of the softmax layer, with biases, limits and q/k norms, no rotary
 *   hyena_x:   q, k, v <- conv(q), conv(k), conv(v);  y = (q . (k . v)) Wo^T
 *   hyena_y:                                          y = (q . inner_conv(k . v)) Wo^T
 *   hyena_se:  both
 *
 * Convolutions are depthwise and causal, without bias or SiLU. State of a sequence: the last inputs
 * of the convolutions of q, k and v, then those of k . v. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

enum { STREAMS = 3 }; /* q, k, v */

struct parts {
    size_t rows, n; /* n = H K */
    bool in, inner; /* which convolutions there are */
    struct tg_conv in_conv, inner_conv;
};

static struct parts parts_of(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_layer_spec *s = m->spec;
    struct parts p = {.rows = b ? tg_batch_rows(b) : 0,
                      .n = s->heads * s->head_dim,
                      .in = tg_mixer_has(m, "conv.weight"),
                      .inner = tg_mixer_has(m, "inner_conv.weight")};
    p.in_conv = (struct tg_conv){.D = p.n, .taps = s->recurrent.conv};
    p.inner_conv = (struct tg_conv){.D = p.n, .taps = s->recurrent.inner_conv};
    return p;
}

/* What forward makes, all [rows,HK]: q, k, v as projected and as multiplied (the same without
 * convolutions), k . v before and after its convolution (likewise), the product */
struct kept {
    float *raw[STREAMS], *mix[STREAMS];
    float *u, *c, *y;
    float *gates, *proj; /* proj: for backward */
};

static size_t kept_lay(const struct tg_mixer *m, const struct parts *p, const struct tg_batch *b,
                       bool backward, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t n = p->rows * p->n;
    for (size_t i = 0; i < STREAMS; i++) {
        k->raw[i] = tg_carve(&c, n);
        k->mix[i] = p->in ? tg_carve(&c, n) : k->raw[i];
    }
    k->u = tg_carve(&c, n);
    k->c = p->inner ? tg_carve(&c, n) : k->u;
    k->y = tg_carve(&c, n);
    k->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    k->proj = backward ? tg_carve(&c, tg_proj_saved(m, b)) : NULL;
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    return kept_lay(m, &p, b, true, NULL, &k);
}

struct down {
    float *dmix[STREAMS], *draw[STREAMS]; /* as in kept */
    float *dy, *du;                       /* of the product and what it is of: q' c; of k . v */
    float *work;
};

static size_t down_lay(const struct tg_mixer *m, const struct parts *p, const struct tg_batch *b,
                       float *base, struct down *d)
{
    struct tg_carve c = {base, 0};
    size_t n = p->rows * p->n;
    for (size_t i = 0; i < STREAMS; i++) {
        d->dmix[i] = tg_carve(&c, n);
        d->draw[i] = p->in ? tg_carve(&c, n) : d->dmix[i];
    }
    d->dy = tg_carve(&c, n);
    d->du = p->inner ? tg_carve(&c, n) : d->dy;
    d->work = tg_carve(&c, tg_proj_work(m, b));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down d;
    (void)threads;
    return backward ? down_lay(m, &p, b, NULL, &d) : kept_lay(m, &p, b, false, NULL, &k);
}

static void multiply(const float *x, const float *y, float *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = x[i] * y[i];
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const struct parts *p, const float *x, struct tg_states states, float *y,
                const struct kept *k)
{
    const float *w = tg_mixer_param(m, "conv.weight");
    size_t n = p->rows * p->n;
    tg_proj_fwd(ctx, m, b, x, k->raw[0], k->raw[1], k->raw[2], k->proj);
    for (size_t i = 0; p->in && i < STREAMS; i++) {
        tg_conv_fwd(ctx, &p->in_conv, b, k->raw[i], w + i * p->n * p->in_conv.taps, NULL, k->mix[i],
                    states);
        states.offset += tg_conv_state(&p->in_conv);
    }
    multiply(k->mix[1], k->mix[2], k->u, n);
    if (p->inner)
        tg_conv_fwd(ctx, &p->inner_conv, b, k->u, tg_mixer_param(m, "inner_conv.weight"), NULL,
                    k->c, states);
    multiply(k->mix[0], k->c, k->y, n);
    tg_proj_out_fwd(ctx, m, b, x, k->y, y, k->gates);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    kept_lay(m, &p, b, saved, saved ? saved : work, &k);
    run(ctx, m, b, &p, x, (struct tg_states){0}, y, &k);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *d, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down g;
    size_t n = p.rows * p.n;
    kept_lay(m, &p, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(m, &p, b, work, &g);
    tg_proj_out_bwd(ctx, m, b, k.y, dy, g.dy, d, k.gates);
    multiply(g.dy, k.c, g.dmix[0], n);
    multiply(g.dy, k.mix[0], g.dy, n);
    if (p.inner)
        tg_conv_bwd(ctx, &p.inner_conv, b, k.u, tg_mixer_param(m, "inner_conv.weight"), NULL, g.dy,
                    g.du, tg_mixer_grad(m, d, "inner_conv.weight"), NULL);
    multiply(g.du, k.mix[2], g.dmix[1], n);
    multiply(g.du, k.mix[1], g.dmix[2], n);
    const float *w = tg_mixer_param(m, "conv.weight");
    float *dw = tg_mixer_grad(m, d, "conv.weight");
    for (size_t i = 0; p.in && i < STREAMS; i++) {
        size_t at = i * p.n * p.in_conv.taps;
        tg_conv_bwd(ctx, &p.in_conv, b, k.raw[i], w + at, NULL, g.dmix[i], g.draw[i],
                    dw ? dw + at : NULL, NULL);
    }
    tg_proj_bwd(ctx, m, b, x, k.proj, g.draw[0], g.draw[1], g.draw[2], dx, d, g.work);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct parts p = parts_of(m, NULL);
    (void)capacity;
    return (p.in ? STREAMS * tg_conv_state(&p.in_conv) : 0) +
           (p.inner ? tg_conv_state(&p.inner_conv) : 0);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    (void)capacity;
    kept_lay(m, &p, b, false, work, &k);
    run(ctx, m, b, &p, x, (struct tg_states){states, 0}, y, &k);
}

/* Convolutions, all that is new, begin as the identity: the last tap is the token itself. */
static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    bool inner = strcmp(m->spec->mixer->params[rule].name, "inner_conv.weight") == 0;
    size_t taps = inner ? r->inner_conv : r->conv;
    (void)o;
    for (size_t i = 0; i < count; i++)
        data[i] = i % taps == taps - 1;
}

/* The rows differ in the convolutions that their rules have. */
#define HYENA_OPS                                                                                  \
    .saved_floats = saved_floats, .work_floats = work_floats, .forward = fwd, .backward = bwd,     \
    .state_floats = state_floats, .step = step, .inherit = inherit

const struct tg_mixer_ops tg_mixer_hyena_x = {.name = "hyena_x", HYENA_OPS};
const struct tg_mixer_ops tg_mixer_hyena_y = {.name = "hyena_y", HYENA_OPS};
const struct tg_mixer_ops tg_mixer_hyena_se = {.name = "hyena_se", HYENA_OPS};
