/* Groups of options that several commands share, each with its struct. */
#ifndef TG_TOOLS_GROUPS_H
#define TG_TOOLS_GROUPS_H

#include "linearize/surgery/surgery.h"
#include "tools/options.h"

/* Which layers change, and to what */
struct tg_plan_flags {
    const char *mixer, *keep;
    struct tg_texts layers; /* LIST=MIXER,OPTION=VALUE,... */
    struct tg_maybe set[TG_PLAN_KEYS];
};
extern const struct tg_option tg_plan_flag_options[];
/* Options of a plan as the flags say; they borrow from the flags and from this struct. */
struct tg_plan_request {
    struct tg_plan_options options;
    struct tg_plan_override overrides[TG_PLAN_MAX_OVERRIDES];
    char keep[32]; /* a target's choice of kept layers */
};
int tg_plan_flags_read(const struct tg_plan_flags *f, struct tg_plan_request *r,
                       struct tg_err *err);
/* What the request leaves open becomes what fits an export target (its mixer with options, its
 * choice of kept layers); `given` says which options the user has set. */
int tg_plan_request_for(struct tg_plan_request *r, const char *target,
                        const struct tg_model_spec *teacher, const struct tg_parse *given,
                        struct tg_err *err);
/* The plan's student must fit the target, layouts that only some engines load included. */
int tg_plan_check_for(const struct tg_plan *p, const char *target,
                      const struct tg_model_spec *teacher, struct tg_err *err);
/* MIXER,OPTION=VALUE,... */
int tg_plan_mixer_read(const char *text, struct tg_plan_layer *to, struct tg_err *err);
/* True if one of these options stands on the command line */
bool tg_plan_flags_given(const struct tg_parse *p);
/* Members of the JSON object that is open: for a run's settings */
void tg_plan_flags_write_json(const struct tg_plan_flags *f, struct tg_json_out *out);

/* How layers are ranked */
struct tg_rank_flags {
    int64_t window, tokens, items, pairs;
};
extern const struct tg_option tg_rank_options[];

/* Training data */
struct tg_data_flags {
    struct tg_texts files;
    int64_t length, sample_tokens;
    double recall_mix;
};
extern const struct tg_option tg_data_options[];

/* A run that can go on */
struct tg_run_flags {
    double save_every; /* seconds */
};
extern const struct tg_option tg_run_options[];

/* Validation */
struct tg_validation {
    struct tg_texts suite; /* names */
    int64_t windows, items;
    struct tg_texts recall; /* TASK:SIZE */
    int64_t prompts, continuation;
    struct tg_texts fail_if;
};
extern const struct tg_option tg_validation_options[];

/* Validation inside a run, where --data and --length are the training's */
struct tg_validation_data {
    struct tg_texts files;
    int64_t length;
};
extern const struct tg_option tg_validation_data_options[];

/* The checkpoint that is written */
struct tg_export_flags {
    const char *arch, *dtype;
    int64_t max_shard;
};
extern const struct tg_option tg_export_options[];

#endif
