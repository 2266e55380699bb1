/* An export target: an architecture that other engines load, and how a hybrid becomes one of its
 * models. One file of convert/targets and one row of targets.def each.
 *
 *   check    what of a spec the architecture cannot hold exactly
 *   adapt    the spec of the model that will be written: as the target's own reader makes it
 *   fill     each of that model's parameters, from the source's
 *   names    where parameters lie in the stored tensors
 *   config   config.json; or keys, of a GGUF file. They read back as the adapted spec.
 *
 * convert/export.h walks these steps and reads back what it wrote. Layouts of tensors and what
 * engines make of them: docs/deploying.md. */
#ifndef TG_CONVERT_TARGET_H
#define TG_CONVERT_TARGET_H

#include "base/json.h"
#include "convert/family.h"
#include "formats/gguf_types.h"

/* Lines of text for the user, collected: why a target does not fit, what an engine would load
 * wrongly, what was rounded. */
struct tg_remarks {
    char **lines; /* owned */
    size_t count, cap;
    bool failed; /* out of memory */
};
void tg_remark(struct tg_remarks *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A table of what a target does not hold: a line for each row that is true, of the model, or with
 * the layer's number before it */
struct tg_reason {
    bool holds;
    const char *text;
};
void tg_remark_model(struct tg_remarks *r, const struct tg_reason *reasons, size_t count);
void tg_remark_layer(struct tg_remarks *r, size_t layer, const struct tg_reason *reasons,
                     size_t count);
void tg_remarks_release(struct tg_remarks *r);

/* The model that is exported: a checkpoint, or a block of parameters in memory. */
struct tg_export_source {
    const struct tg_model_spec *spec;
    const struct tg_param_list *params;
    /* parameter i of params as float32 into dst[count] */
    int (*read)(const struct tg_export_source *s, size_t i, float *dst, struct tg_err *err);
    const void *from; /* of `read` */
};

struct tg_target;
struct tg_export_about; /* convert/export_about.h */
/* One export under way. */
struct tg_export {
    const struct tg_target *target;
    const struct tg_export_source *in;
    enum tg_dtype dtype;                 /* of matrices */
    const struct tg_gguf_mix *mix;       /* of a GGUF file: the types of its tensors; else NULL */
    struct tg_model_spec spec;           /* of what is written; owned */
    struct tg_param_list params;         /* of that spec; owned */
    struct tg_remarks notes;             /* what the user should know of the result; owned */
    const char *tokenizer_dir;           /* whose tokenizer goes along; NULL: none */
    const struct tg_export_about *about; /* general keys of a GGUF file; NULL: none */
};
/* A parameter of the source by its canonical name into dst[count]: it must be there and have
 * `count` elements. */
int tg_export_read(const struct tg_export *x, const char *name, float *dst, size_t count,
                   struct tg_err *err);
bool tg_export_has(const struct tg_export *x, const char *name);
/* The plainest `fill`: the source's parameter of the same name */
int tg_export_same(const struct tg_export *x, const struct tg_param *p, float *dst,
                   struct tg_err *err);

struct tg_target {
    const char *name;    /* of --arch: "qwen3_5", "qwen35" */
    const char *engines; /* where its models load: "transformers, vLLM, SGLang" */
    bool gguf;           /* the output is a GGUF file, else a directory with config.json */
    /* What cannot be held exactly: a line for each reason, with the layer it is about. None: it
     * fits. */
    void (*check)(const struct tg_model_spec *spec, struct tg_remarks *why);
    /* Layouts that are valid but that some engine loads wrongly without a word: a line each. Such
     * models are written only when the user insists. NULL: none. */
    void (*pitfalls)(const struct tg_model_spec *spec, struct tg_remarks *why);
    /* x->spec is a copy of the source's: makes it the target's. May note what is rounded. */
    int (*adapt)(struct tg_export *x, struct tg_err *err);
    /* Parameter p of x->params into dst[count]. NULL: tg_export_same */
    int (*fill)(const struct tg_export *x, const struct tg_param *p, float *dst,
                struct tg_err *err);
    /* Stored tensors, for writing: every rule that matches a parameter is used, so that there is
     * one spelling of each; layouts must not look at ask->stored. NULL-terminated by source ==
     * NULL. */
    const struct tg_name_rule *names;
    /* The same where it depends on the spec (fla's model types). NULL: `names` */
    const struct tg_name_rule *(*names_of)(const struct tg_model_spec *spec);
    /* Members of config.json into the object that is open; dtype, architectures and token ids
     * included. Not of GGUF. */
    void (*config)(const struct tg_export *x, struct tg_json_out *out);
    /* Keys of general.architecture and ARCH.*; the tokenizer's and general.file_type are added by
     * the caller. Of GGUF alone. */
    void (*keys)(const struct tg_export *x, struct tg_gguf_list *out);
    /* Tensors that stand beside the parameters and are none (rope_freqs.weight), from 0 on: false
     * if there is no i-th. Else *plan, whose name lives as long as the program, and its elements
     * into values, as float32, unless that is NULL. What reads the file must know or drop them.
     * NULL: none. */
    bool (*extra)(const struct tg_export *x, size_t i, struct tg_tensor_plan *plan, float *values);
    /* A mixer of a plan that will fit a teacher, in the words of --layer:
     * "gated_deltanet,conv=4,rotary=false"; mixer is what the user asks for, NULL if nothing. An
     * error says why none can. NULL: no plan is needed, or none can fit. */
    int (*plan)(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err);
    const char *keep; /* the plan's default choice of kept layers: "every:4"; NULL: the user's own
                         default */
};
extern const struct tg_target
    *const tg_targets[]; /* NULL-terminated, in the order of preference of `auto` */
const struct tg_target *tg_target_find(const char *name); /* NULL if unknown */

#define TG_TARGET(name) extern const struct tg_target tg_target_##name;
#include "convert/targets.def"
#undef TG_TARGET

/* config.json members that every HF target has: dtype, vocabulary, width, number of layers,
 * positions, tied head, bos and eos ids. */
void tg_target_common(const struct tg_export *x, struct tg_json_out *out);

#endif
