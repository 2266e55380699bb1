/* Two models' heads compared row by row, in chunks of rows, so that logits of a whole window are
 * never held. Internal to distill. */
#ifndef TG_DISTILL_TEXTSCORE_H
#define TG_DISTILL_TEXTSCORE_H

#include "linearize/model/model.h"

/* Per row, natural log. nll of the next token (0 where there is none). */
struct tg_row_score {
    double teacher_nll, student_nll, kl;
    bool target, top1;
};
/* Teacher's and student's hidden [rows,D] after the final norm; next [rows] is the token that
 * follows each row, negative where none does. student NULL: teacher's nll alone. out [rows]. */
int tg_score_rows(const struct tg_model *teacher, const float *teacher_hidden,
                  const struct tg_model *student, const float *student_hidden, const int32_t *next,
                  size_t rows, struct tg_row_score *out, struct tg_err *err);

#endif
