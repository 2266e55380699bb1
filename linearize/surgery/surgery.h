/* Graft surgery: which layers change and to what (a plan), and the hybrid that results with its
 * inherited weights. */
#ifndef TG_LINEARIZE_SURGERY_H
#define TG_LINEARIZE_SURGERY_H

#include "base/json.h"
#include "linearize/model/model.h"
#include "linearize/surgery/lookback.h"

/* A plan: for each layer the mixer that it gets (NULL: kept as it is) with its options. */
struct tg_plan_layer {
    const struct tg_mixer_schema *mixer; /* NULL: kept */
    size_t window, sinks, feature_dim;   /* 0 for sinks means none; feature_dim 0: head_dim */
    enum tg_feature_map feature_map;
    bool gated;
};
struct tg_plan {
    struct tg_plan_layer *layers; /* owned, [count] */
    size_t count;
};
struct tg_plan_options {     /* what a user says; applies to every changed layer */
    const char *mixer;       /* NULL: "gated_window" */
    const char *keep;        /* none | LIST ("1,4" or "0-2,5") | every:K | auto:N; NULL: "auto:2" */
    size_t window;           /* 0: the mixer's default */
    int64_t sinks;           /* -1: the mixer's default */
    const char *feature_map; /* NULL: hedgehog_softmax */
    size_t feature_dim;      /* 0: head_dim */
};
/* What a ranking says of one layer (or pair, for auto): lower is safer to change. */
struct tg_rank_row {
    size_t layer;
    double kl;          /* KL(teacher || teacher with this layer windowed) */
    double recall_lost; /* teacher's recall score minus that of the changed model, mean over tasks,
                           >= 0 is worse */
};
struct tg_rank {
    struct tg_rank_row *rows; /* owned, [count], one per layer in order */
    size_t count;
    /* keeping the pair (pair_a[i], pair_b[i]) and windowing all else: */
    size_t *pair_a, *pair_b; /* owned */
    double *pair_kl, *pair_recall_lost;
    size_t pairs;
    size_t window; /* the window that was used */
};
/* The format is written out in rank_file.c. */
int tg_rank_load(struct tg_rank *r, const char *path, struct tg_err *err);
int tg_rank_save(const struct tg_rank *r, const char *path, struct tg_err *err);
void tg_rank_release(struct tg_rank *r);

/* rank is needed for auto:N (N > 0) only; error if NULL then. Layers in lists must exist. every:K
 * keeps the last of each K layers. auto:N keeps the N layers that matter most: recall first (in
 * steps of 0.02, below which it is noise), then KL; with pairs in the ranking and N >= 2 the best
 * pair is kept first, then single layers.
 *
 * Options change softmax layers and windows larger than the new one. A teacher's window that is no
 * larger is left alone: its cost is constant already and it never saw farther back; a plan file
 * that names it changes it, to a mixer whose cost is constant too. A positive `sinks` takes the
 * gated form of a mixer that has one. */
int tg_plan_make(struct tg_plan *p, const struct tg_model_spec *teacher,
                 const struct tg_plan_options *o, const struct tg_rank *rank, struct tg_err *err);
/* The format is written out in plan_json.c. */
int tg_plan_load(struct tg_plan *p, const char *path, const struct tg_model_spec *teacher,
                 struct tg_err *err);
int tg_plan_parse(struct tg_plan *p, struct tg_json v, const struct tg_model_spec *teacher,
                  struct tg_err *err);
void tg_plan_write_json(const struct tg_plan *p, struct tg_json_out *out, const char *key);
int tg_plan_save(const struct tg_plan *p, const char *path, struct tg_err *err);
void tg_plan_release(struct tg_plan *p);

/* The student's spec: teacher's with the plan's layers changed. Checks every option against the
 * layer. */
int tg_surgery_spec(const struct tg_model_spec *teacher, const struct tg_plan *p,
                    struct tg_model_spec *student, struct tg_err *err);
/* The student with inherited weights: same-named parameters copied (those of keys and values
 * repeated where the student has more kv heads), new ones from the mixer's `inherit`, which reads
 * look (NULL: not measured). */
int tg_surgery_apply(const struct tg_model *teacher, const struct tg_plan *p,
                     const struct tg_lookback *look, struct tg_model **student, struct tg_err *err);

#endif
