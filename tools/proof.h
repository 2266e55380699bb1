/* Is an export the model that it was made from? Logits on random ids, of both. */
#ifndef TG_TOOLS_PROOF_H
#define TG_TOOLS_PROOF_H

#include "convert/export.h"
#include "linearize/model/model.h"

/* Logits of PROOF_TEXTS texts of random ids, [texts length N], in *logits (tg_free) */
enum { TG_PROOF_TEXTS = 2, TG_PROOF_LENGTH = 41 };
int tg_proof_logits(const struct tg_model *m, float **logits, size_t *count, struct tg_err *err);
/* RMS(got - want) / RMS(want); NaN where a value is none */
double tg_proof_distance(const float *got, const float *want, size_t count);
/* The model that an export writes, before its values are rounded */
int tg_proof_adapted(const struct tg_export *x, const struct tg_ctx *ctx, struct tg_model **m,
                     struct tg_err *err);
/* Every parameter rounded to an element type that holds single numbers (f32, bf16, f16) */
void tg_proof_round(struct tg_model *m, enum tg_dtype dtype);

/* What the whole proof found */
struct tg_proof {
    double exact;   /* distance of the adapted model's logits from the source's, float32 */
    double rounded; /* of the source's own, its parameters rounded to the dtype; 0: not measured */
    double written; /* of the logits of what was written */
};
/* What x says has been written to `path`: parameters come back bit for bit, logits are the source's
 * to 1e-5 before rounding, and after it no farther from them than twice the source rounded in the
 * same way. Models are in memory one at a time. */
int tg_proof_run(const struct tg_export *x, const char *path, const struct tg_ctx *ctx,
                 struct tg_proof *proof, struct tg_err *err);

#endif
