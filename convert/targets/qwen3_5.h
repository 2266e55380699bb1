/* Private to targets: Qwen3.5's text models, dense and with experts: pre-norm layers of softmax
 * attention with q/k norms and an output gate, or of Gated DeltaNet. Layouts and engines:
 * docs/deploying.md.
 *
 * Two things stand between a Qwen3-like hybrid and such a model, apart so that a format that has
 * only one of them takes that one: how layers are built (tg_qwen3_5_shape, tg_qwen3_5_fill), and
 * norms as 1 + w (tg_qwen3_5_norms, tg_qwen3_5_fold). */
#ifndef TG_CONVERT_TARGETS_QWEN3_5_H
#define TG_CONVERT_TARGETS_QWEN3_5_H

#include "convert/target.h"

/* What the architecture cannot hold: `sparse` with experts in every layer, else with none */
void tg_qwen3_5_check(const struct tg_model_spec *spec, bool sparse, struct tg_remarks *why);
/* An order of layers that an engine takes for another */
void tg_qwen3_5_pitfalls(const struct tg_model_spec *spec, struct tg_remarks *why);
/* A plan's mixer for a teacher that fits `sparse`, the target called `name` (target.h) */
int tg_qwen3_5_plan(const char *name, bool sparse, const struct tg_model_spec *teacher,
                    const char *mixer, char *text, size_t size, struct tg_err *err);
/* k of a spec whose layer i is softmax where k divides i + 1, and nowhere else; 0: there is none */
size_t tg_qwen3_5_interval(const struct tg_model_spec *spec);
bool tg_qwen3_5_is_softmax(const struct tg_layer_spec *l);
/* The first layer of softmax, or of Gated DeltaNet; NULL: there is none */
const struct tg_layer_spec *tg_qwen3_5_first(const struct tg_model_spec *spec, bool softmax);

/* Makes the spec of a model that fits what the family's reader makes: an output gate in each
 * softmax layer, a shared expert beside experts. Norms stay as they are. */
void tg_qwen3_5_shape(struct tg_model_spec *spec);
/* Parameter p of a spec of that shape: a gate that was not there is zero rows, sigmoid(0) = 1/2,
 * and what it halves is doubled; a shared expert that was not there gives zero. */
int tg_qwen3_5_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                    struct tg_err *err);

/* Makes norms of a weight norms of 1 + weight, and unties the head if the last one needs its
 * columns. Notes what cannot be stored exactly. Norms that are so already stay. */
int tg_qwen3_5_norms(struct tg_export *x, struct tg_err *err);
/* After tg_qwen3_5_fill: a norm's weights less 1, and what they leave over in the columns of the
 * linears that follow: powers of two */
int tg_qwen3_5_fold(const struct tg_export *x, const struct tg_param *p, float *dst,
                    struct tg_err *err);
/* Shape and norms, fill and fold: `adapt` and `fill` of the targets that have a config.json */
int tg_qwen3_5_adapt(struct tg_export *x, struct tg_err *err);
int tg_qwen3_5_fill_folded(const struct tg_export *x, const struct tg_param *p, float *dst,
                           struct tg_err *err);
/* "mixer.q.weight" of "layers.3.mixer.q.weight"; outside layers the whole name */
const char *tg_qwen3_5_part(const struct tg_param *p);

/* mrope_section for so many rotated pairs: of time, height and width, interleaved, so that every
 * pair has a position in whatever way an engine reads them: thirds, rounded up first */
void tg_qwen3_5_sections(size_t pairs, int64_t sections[3]);
/* The part of a head that is rotated as a factor that gives rotary_dim when it is cut to a whole */
double tg_qwen3_5_rotary_share(const struct tg_layer_spec *l);
/* Tensors of both, and members of config.json but for those of the mlp */
extern const struct tg_name_rule tg_qwen3_5_names[];
void tg_qwen3_5_config(const struct tg_export *x, const char *model_class, const char *type,
                       struct tg_json_out *out);

#endif
