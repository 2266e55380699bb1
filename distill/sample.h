/* Calibration text sampled from a teacher, for when no data is given. */
#ifndef TG_DISTILL_SAMPLE_H
#define TG_DISTILL_SAMPLE_H

#include "base/progress.h"
#include "linearize/model/model.h"

struct tg_sample_settings {
    size_t tokens;      /* at least this many in all (300k) */
    size_t length;      /* tokens a sequence (1024) */
    size_t at_once;     /* sequences decoded together (48) */
    double temperature; /* 1 */
    uint64_t seed;
};
struct tg_sample_settings tg_sample_defaults(void);

/* Writes PATH, a .safetensors file with `ids` int32 [n]: sequences that begin with the model's BOS
 * (or EOS, or a random token) and are drawn from it. What is done so far is kept in PATH.part after
 * each round, so that a run that was stopped or killed goes on there and ends with the same ids.
 * Nothing happens if PATH exists already. */
int tg_sample_text(struct tg_model *teacher, const struct tg_sample_settings *set, const char *path,
                   const struct tg_progress *p, struct tg_err *err);

#endif
