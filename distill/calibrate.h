/* What a student starts from, of the teacher run over text: measures of its attention for surgery
 * (linearize/surgery/lookback.h), and the output gains of the student's changed layers fitted to
 * its activations (linearize/surgery/closed_form.h). */
#ifndef TG_DISTILL_CALIBRATE_H
#define TG_DISTILL_CALIBRATE_H

#include "base/progress.h"
#include "linearize/surgery/closed_form.h"
#include "linearize/surgery/lookback.h"

/* changed [layers]: the layers that are fitted, all from one pass of the teacher; out [layers]:
 * their results. Windows of `length` tokens (or the whole text, if it is shorter) spread evenly
 * over ids, `tokens` in all at most, but at least one window. One layer's equations do not depend
 * on another's gains: each sees the teacher's own activations. On failure the student may have
 * gains in some of its layers. */
int tg_calibrate_gains(struct tg_model *teacher, struct tg_model *student, const bool *changed,
                       const int32_t *ids, size_t count, size_t length, size_t tokens,
                       struct tg_gain_result *out, const struct tg_progress *p, struct tg_err *err);

/* Windows that are enough for means over heads */
enum { TG_LOOKBACK_WINDOWS = 8 };
/* The teacher's attention in `windows` windows of `length` tokens (or the whole text, if it is
 * shorter), spread evenly over ids; fewer if the text has no more. Added to out, which is released
 * by the caller whatever the result. */
int tg_calibrate_lookback(struct tg_model *teacher, const int32_t *ids, size_t count, size_t length,
                          size_t windows, struct tg_lookback *out, const struct tg_progress *p,
                          struct tg_err *err);

#endif
