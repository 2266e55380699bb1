/* The frame of linear mixers; equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/featuremap.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/beside.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/linear_parts.h"

static bool joint(const struct tg_mixer *m)
{
    return m->spec->window && m->spec->window_form == TG_WINDOW_JOINT;
}

/* What the frame keeps, in the order in which it is made. An array that a layer does not need is
 * the one before it. */
struct kept {
    float *q0, *k0, *v0, *proj; /* projections; what their norms were of */
    float *qw, *kw, *w, *joint; /* the window's rotated heads and output */
    float *q1, *k1, *v1;        /* convolved or activated, rotated */
    float *q, *k, *v;           /* unit or features; values with a column of ones */
    float *rq, *rk;             /* of the unit vectors */
    float *low_z, *z;
    float *o, *l, *r, *y;       /* recurrence; l; of its norm; l + alpha w */
    float *out_gates, *states;
    struct tg_linear_gate_values gates;
};

static size_t kept_lay(const struct tg_linear_parts *p, const struct tg_mixer *m,
                       const struct tg_batch *b, bool backward, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t R = p->rows, HV = p->out * p->V;
    memset(k, 0, sizeof *k);
    k->q0 = tg_carve(&c, R * p->H * p->K);
    k->k0 = tg_carve(&c, R * p->G * p->K);
    k->v0 = tg_carve(&c, R * p->S * p->V);
    k->proj = backward ? tg_carve(&c, tg_proj_saved(m, b)) : NULL;
    if (p->has_window) {
        k->qw = tg_carve(&c, R * p->H * p->K);
        k->kw = tg_carve(&c, R * p->G * p->K);
        k->w = tg_carve(&c, R * HV);
        k->joint = backward ? tg_carve(&c, tg_joint_saved(&p->window.joint, b)) : NULL;
    }
    k->q1 = p->own_qk ? tg_carve(&c, R * p->H * p->K) : k->q0;
    k->k1 = p->own_qk ? tg_carve(&c, R * p->G * p->K) : k->k0;
    k->v1 = p->own_v ? tg_carve(&c, R * p->S * p->V) : p->series ? k->w : k->v0;
    k->q = p->maps ? tg_carve(&c, R * p->H * p->features) : k->q1;
    k->k = p->maps ? tg_carve(&c, R * p->key_heads * p->features) : k->k1;
    k->v = p->ones ? tg_carve(&c, R * p->states * p->Vx) : k->v1;
    k->rq = p->recipe->unit ? tg_carve(&c, R * p->H) : NULL;
    k->rk = p->recipe->unit ? tg_carve(&c, R * p->G) : NULL;
    k->low_z = p->low_z ? tg_carve(&c, R * m->spec->recurrent.rank) : NULL;
    k->z = p->recipe->z ? tg_carve(&c, R * HV) : NULL;
    k->o = tg_carve(&c, R * p->out * p->Vx);
    k->l = p->ones || p->norm.n ? tg_carve(&c, R * HV) : k->o;
    k->r = p->norm.n ? tg_carve(&c, R * p->norm.groups) : NULL;
    k->y = p->has_window ? tg_carve(&c, R * HV) : k->l;
    k->out_gates = tg_carve(&c, tg_proj_out_floats(m, b));
    k->states = backward ? tg_carve(&c, tg_recur_saved(&p->recur, b)) : NULL;
    float *gates = base ? base + c.used : NULL;
    return c.used + tg_linear_gates_lay(&p->gates, R, gates, &k->gates);
}
