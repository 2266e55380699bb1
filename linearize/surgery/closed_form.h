/* Closed-form start: the output gain of each query head of a student's mixer, by least squares on
 * activations of the teacher's layer. The equation is in closed_form.c. */
#ifndef TG_LINEARIZE_CLOSED_FORM_H
#define TG_LINEARIZE_CLOSED_FORM_H

#include "linearize/model/model.h"

/* Accumulates the normal equations of several layers of one student. */
struct tg_gain_fit;

/* layers [layer_count]: which are fitted; their mixers must have an output projection. Batches may
 * be as large as `largest` in sequences, rows and length. The student is borrowed, for as long as
 * the fit lives. Memory: H^2 + H doubles for each fitted layer; shared by them, as large as the
 * largest needs it: the mixer's forward work, D (HK + rows) + rows HK floats, for each thread
 * 32 D (H floats + 1 double), and H^2 + H doubles for each 32 rows. */
int tg_gain_fit_create(struct tg_gain_fit **f, struct tg_model *student, const bool *layers,
                       const struct tg_batch *largest, struct tg_err *err);
void tg_gain_fit_free(struct tg_gain_fit *f);

/* x [rows,D] the input of the layer's mixer, y [rows,D] what its mixer should give: the
 * arguments of a tg_mixer_hook; ropes as in tg_model_mixer. A layer that is not fitted is passed
 * over. The sums are made in double, in an order that does not depend on the number of threads. */
void tg_gain_fit_add(struct tg_gain_fit *f, size_t layer, const struct tg_batch *b,
                     const struct tg_ropes *ropes, const float *x, const float *y);

struct tg_gain_result {
    double before, after;   /* RMS(f(x) - y) / RMS(y) on what was added, with gains 1 and fitted */
    double lowest, highest; /* gain of any head */
    size_t at_limit;        /* heads whose gain is a limit of the range */
};
/* Solves the layer's system, multiplies the columns of the student's o.weight by the gains, and
 * forgets what was added for it. TG_ERR_VALUE if nothing was, or if it was not finite; the student
 * is then unchanged. */
int tg_gain_fit_apply(struct tg_gain_fit *f, size_t layer, struct tg_gain_result *out,
                      struct tg_err *err);

#endif
