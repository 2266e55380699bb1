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
/* A parameter's values by its rule's name; NULL if the layer has none */
const double *tg_ref_param(const struct tg_ref *r, const char *name);
/* RMS norm of a head's [K] (w NULL: none); rotary of one at position pos; its features, their
 * number is returned */
void tg_ref_head_norm(const struct tg_ref *r, const double *w, double *x);
void tg_ref_head_turn(const struct tg_ref *r, size_t pos, const double *x, double *y);
size_t tg_ref_head_features(const struct tg_ref *r, const double *w, const double *x, double *y);
bool tg_ref_knows(const struct tg_mixer *m);
double tg_ref_constant(const struct tg_ref *r, double value); /* the next of r->consts */
void tg_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x, double *y);

#endif
