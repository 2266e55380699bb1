/* Exports in tests: a random hybrid of a small teacher, written as a target's model and read back.
 */
#ifndef TG_TESTS_EXPORT_BENCH_H
#define TG_TESTS_EXPORT_BENCH_H

#include "convert/export.h"
#include "linearize/model/model.h"

/* A model of `config` (the text of a config.json), random everywhere: layers 0, 1, ... changed to
 * `mixer`
 * ("gated_deltanet,rotary=false,conv=4"; NULL: none) but those of `keep` ("none", "1,3",
 * "every:2"). Norms lie around 1, everything else is noise, mixers' own parameters too. Fails the
 * test on error. */
struct tg_model *tg_bench_hybrid(const char *config, const char *mixer, const char *keep,
                                 uint64_t seed);
/* Writes the model as the target says into a scratch place and reads it back through the family's
 * row: parameters bit for bit, and the distance of its logits from the model's own (RMS of the
 * difference over RMS). */
double tg_bench_export(const struct tg_model *m, const char *target, enum tg_dtype dtype);
/* The same after the model's own parameters have been rounded to dtype: what the export adds to
 * rounding */
double tg_bench_export_rounded(struct tg_model *m, const char *target, enum tg_dtype dtype);
/* check() gives a reason that contains `text`; pitfalls() does. */
void tg_bench_refused(const struct tg_model_spec *spec, const char *target, const char *text);
void tg_bench_pitfall(const struct tg_model_spec *spec, const char *target, const char *text);
/* `text` with several keys set: {"hidden_size", "48", ..., NULL}; caller frees with tg_free */
char *tg_bench_config(const char *text, const char *const *edits);

#endif
