/* Distillation: stages over a student, resumable at any moment, bit-identical for the same number
 * of threads (and in fact for any). */
#ifndef TG_DISTILL_TRAIN_H
#define TG_DISTILL_TRAIN_H

#include "base/json.h"
#include "base/progress.h"
#include "distill/data.h"
#include "linearize/model/model.h"

enum tg_train_set { TG_TRAIN_DEFAULT, TG_TRAIN_MIXERS, TG_TRAIN_ALL, TG_TRAIN_LORA };

/* Settings of one stage. Zero or negative: the stage's default (tg_stage_defaults fills them in);
 * in complete settings a zero means zero. */
struct tg_stage_settings {
    char kind[16]; /* row of stages.def: align, kl, ce */
    uint64_t tokens;
    enum tg_train_set train;
    size_t lora_rank;  /* with TG_TRAIN_LORA */
    double lr, lr_new; /* inherited and new parameters */
    double lr_end;     /* share of lr at the end of the cosine */
    double warmup;     /* share of the steps */
    double clip;       /* gradient norm; 0: none */
    double beta1, beta2, eps, decay;
    size_t batch;       /* sequences a step */
    size_t micro;       /* sequences a micro-batch (memory and cache, not the result's meaning) */
    double temperature; /* kl */
    double ce_share;    /* kl: share of cross-entropy in the loss */
    enum tg_precision precision; /* of teacher's and student's products with weights */
    bool complete;               /* set by tg_stage_defaults and both parsers */
};
int tg_stage_defaults(struct tg_stage_settings *s, struct tg_err *err);
/* "kl:tokens=3M,lr=1e-4,train=lora:8"; what is not said gets the kind's default */
int tg_stage_parse_arg(const char *arg, struct tg_stage_settings *s, struct tg_err *err);
int tg_stage_parse_json(struct tg_json v, struct tg_stage_settings *s, struct tg_err *err);
void tg_stage_write_json(const struct tg_stage_settings *s, struct tg_json_out *out,
                         const char *key);

struct tg_train_job {
    struct tg_model *teacher; /* borrowed; NULL allowed when only ce stages run */
    struct tg_model *student; /* borrowed; holds the trained weights at the end */
    const struct tg_data *data;
    const struct tg_stage_settings *stages;
    size_t stage_count;
    uint64_t seed;
    const char *run_dir;     /* log.jsonl and state/ live here */
    const char *fingerprint; /* JSON text of everything that must be equal to go on (settings,
                                hashes, BLAS core, threads) */
    double save_every; /* seconds between states (30); a state is also written at the end of each
                          stage */
    const struct tg_progress *progress;
    /* NULL, or where the teacher's hidden states are kept, in a file for each stage that needs no
     * more of it (hidden.h): for runs of the same teacher, data, seed and stages */
    const char *hidden_dir;
};
/* Begins, or goes on where run_dir/state says. A state with another fingerprint is TG_ERR_MISMATCH
 * naming what differs. A progress callback that asks to stop saves the state and gives
 * TG_ERR_INTERRUPTED. */
int tg_train(const struct tg_train_job *job, struct tg_err *err);

#endif
