/* Private to convert: the metadata of a GGUF file on their way into the words of config.json. */
#ifndef TG_CONVERT_GGUF_READ_H
#define TG_CONVERT_GGUF_READ_H

#include "base/json.h"
#include "convert/gguf_model.h"
#include "formats/gguf.h"

struct tg_reading {
    const struct tg_tensors *t;
    const struct tg_gguf_arch *arch;
    struct tg_json_out out; /* the object that becomes config.json */
    int64_t width, heads, head_dim;
    double theta;
};

/* A row of the table of architectures. */
struct tg_gguf_arch {
    const char *name;              /* general.architecture */
    const char *type;              /* model_type in HF */
    const struct tg_family *names; /* of the tensors */
    int (*put)(struct tg_reading *r, struct tg_err *err);
    /* What no config.json can say: the spec's last word. NULL: nothing */
    void (*amend)(struct tg_model_spec *spec);
    /* Keys that `put` reads, where others must have the plain value; NULL-terminated. NULL: none */
    const char *const *own;
};

enum { TG_READING_KEY = 96 };
const char *tg_reading_file(const struct tg_reading *r);
/* "ARCH.suffix" into key, and its value; NULL if it is absent */
const struct tg_gguf_value *tg_reading_find(const struct tg_reading *r, const char *suffix,
                                            char key[TG_READING_KEY]);
bool tg_reading_has(const struct tg_reading *r, const char *tensor);
/* A size from 1 on; the _or ones leave *out as it is when the key is absent. Floats come as the
 * shortest decimal number of the same float32, which is what config.json has: 1e-06. */
int tg_reading_size(const struct tg_reading *r, const char *suffix, int64_t *out,
                    struct tg_err *err);
int tg_reading_size_or(const struct tg_reading *r, const char *suffix, int64_t *out,
                       struct tg_err *err);
int tg_reading_float(const struct tg_reading *r, const char *suffix, double min, double max,
                     double *out, struct tg_err *err);
int tg_reading_float_or(const struct tg_reading *r, const char *suffix, double min, double max,
                        double *out, struct tg_err *err);
/* width, heads and the head size, which the values share, into r */
int tg_reading_heads(struct tg_reading *r, struct tg_err *err);
/* rope_parameters, of all of a head or (partial) of its first dimensions; rope_freqs.weight is
 * looked at (gguf_rope.c) */
int tg_reading_rope(struct tg_reading *r, bool partial, struct tg_err *err);

/* Rows of the table that have a file of their own: gguf_hybrid.c */
int tg_reading_put_qwen35(struct tg_reading *r, struct tg_err *err);
int tg_reading_put_granite(struct tg_reading *r, struct tg_err *err);
void tg_gguf_amend_qwen35(struct tg_model_spec *spec);
void tg_gguf_amend_granite(struct tg_model_spec *spec);

#endif
