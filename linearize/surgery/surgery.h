/* Graft surgery: which layers change and to what (a plan), and the hybrid that results with its
 * inherited weights. */
#ifndef TG_LINEARIZE_SURGERY_H
#define TG_LINEARIZE_SURGERY_H

#include "base/json.h"
#include "base/maybe.h"
#include "linearize/model/model.h"
#include "linearize/surgery/lookback.h"

/* What a plan can say of a layer beside its mixer: rows of options.def */
enum tg_plan_key {
#define TG_PLAN_OPTION(id, ...) TG_PLAN_##id,
#include "linearize/surgery/options.def"
#undef TG_PLAN_OPTION
    TG_PLAN_KEYS
};
enum { TG_PLAN_MAX_OVERRIDES = 32 };

/* A plan: for each layer the mixer that it gets (NULL: kept as it is) with its options; those that
 * are not given are the mixer's own. */
struct tg_plan_layer {
    const struct tg_mixer_schema *mixer; /* NULL: kept */
    struct tg_maybe set[TG_PLAN_KEYS];
};
struct tg_plan {
    struct tg_plan_layer *layers; /* owned, [count] */
    size_t count;
};
/* Another mixer for some layers: as keep, without auto; borrowed. mixer NULL: they are kept. */
struct tg_plan_override {
    char layers[96];
    struct tg_plan_layer to;
};
struct tg_plan_options {     /* what a user says; applies to every changed layer */
    const char *mixer;       /* NULL: "gated_window" */
    const char *keep;        /* none | LIST | every:K | ratio:R | auto:N; NULL: "auto:2" */
    size_t window;           /* 0: the mixer's default */
    int64_t sinks;           /* -1: the mixer's default */
    const char *feature_map; /* NULL: hedgehog_softmax */
    size_t feature_dim;      /* 0: tg_feature_dim_default */
    struct tg_maybe set[TG_PLAN_KEYS];        /* any option; beats the four above */
    const struct tg_plan_override *overrides; /* a later one beats an earlier one */
    size_t override_count;
};

/* A row of options.def */
enum tg_plan_store {
    TG_STORE_SIZE,
    TG_STORE_TRUTH,
    TG_STORE_UNTRUTH,
    TG_STORE_MAP,
    TG_STORE_FORM,
    TG_STORE_FEATURES,
    TG_STORE_KV,
    TG_STORE_RANK,
    TG_STORE_EXPAND,
    TG_STORE_BIAS,
    TG_STORE_ERROR /* a real number, of which the spec holds only what follows from it */
};
struct tg_plan_option {
    const char *name;
    const char *(*choice)(size_t i); /* names of 0, 1, ..., NULL at the end; NULL: a number */
    double lo, hi;                   /* of numbers */
    bool (*has)(const struct tg_mixer_schema *schema);
    enum tg_plan_store store;
    size_t at; /* offset in the layer's spec, where store needs one */
};
extern const struct tg_plan_option tg_plan_rows[TG_PLAN_KEYS];
const char *tg_plan_names_map(size_t i);    /* the feature maps */
const char *tg_plan_names_switch(size_t i); /* "false", "true" */
const char *tg_plan_names_form(size_t i);   /* "parallel", "series", "joint" */
const char *tg_plan_names_kv(size_t i);     /* "shared", "expanded" */
/* "128", "true", "joint" into buf */
const char *tg_plan_value_text(enum tg_plan_key key, double value, char *buf, size_t size);
/* "window": 128 in the object that is open */
void tg_plan_option_write_json(enum tg_plan_key key, double value, struct tg_json_out *out);
/* The option's value in a layer's spec of a model of this width; NaN for TG_STORE_ERROR */
double tg_plan_value_in(enum tg_plan_key key, size_t width, const struct tg_layer_spec *l);
/* The spec that `from` becomes in a model of this width. Nothing is checked, and rank_error, which
 * needs weights, is left out. */
void tg_plan_layer_spec(const struct tg_plan_layer *p, size_t width,
                        const struct tg_layer_spec *from, struct tg_layer_spec *to);

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

/* keep says which layers stay as they are:
 *
 *   LIST      numbers from 0, ranges and the words first, middle (layer L / 2), last: 0-2,middle
 *   every:K   the last of each K layers
 *   ratio:R   R changed layers to one kept: of those that can change every (R + 1)-th
 *   auto:N    the N layers that matter most in `rank`: recall first (in steps of 0.02, below which
 *             it is noise), then KL; with pairs in the ranking and N >= 2 the best pair is kept
 *             first, then single layers
 *
 * rank is needed for auto:N (N > 0) only; error if NULL then. Layers in lists must exist.
 *
 * Options change softmax layers and windows larger than the new one. A teacher's window that is no
 * larger is left alone: its cost is constant already and it never saw farther back; a plan file
 * that names it changes it, to a mixer whose cost is constant too. A positive `sinks` takes the
 * gated form of a mixer that has one. An override gives its layers another mixer with its own
 * options; layers that are kept stay so. */
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
 * repeated where the student has more kv heads) and put right by the mixer's `adjust`, new ones
 * from its `inherit`; both read look (NULL: not measured). */
int tg_surgery_apply(const struct tg_model *teacher, const struct tg_plan *p,
                     const struct tg_lookback *look, struct tg_model **student, struct tg_err *err);
/* A student that starts from nothing: `spec` with random softmax and window layers
 * (tg_model_random), changed by p (NULL: as it is); new parameters as tg_surgery_apply has them,
 * but short convolutions uniform in +-taps^-1/2, and the choice among partitions normal of `size`
 * as the other weights. */
int tg_surgery_random(const struct tg_model_spec *spec, const struct tg_plan *p,
                      const struct tg_ctx *ctx, double size, uint64_t seed, struct tg_model **out,
                      struct tg_err *err);

#endif
