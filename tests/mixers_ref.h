/* Every mixer again in double, straight from its equation: quadratic in the length, no state, no
 * maxima taken out. What the float mixers are tested against, and what central differences are
 * taken of. */
#ifndef TG_TESTS_MIXERS_REF_H
#define TG_TESTS_MIXERS_REF_H

#include "linearize/mixers/mixer.h"

/* Numbers that are part of the definition but constants for the gradient (LoLCATs' window maximum,
 * the shift of hedgehog_exp): noted in the order of use by a recording run, read back by the
 * others. */
struct tg_ref_consts {
    double *values;
    size_t count, at, limit;
    bool record;
};
struct tg_ref {
    const struct tg_mixer *mixer; /* spec, width, rotary tables; its parameters are not read */
    const double *param[TG_MIXER_MAX_PARAMS];
    struct tg_ref_consts *consts;
};
bool tg_ref_knows(const struct tg_mixer *m);
double tg_ref_constant(const struct tg_ref *r, double value); /* the next of r->consts */
void tg_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x, double *y);

#endif
