/* Private to convert: what targets without Qwen's and Gemma's ways ask of a model, each reason a
 * remark. */
#ifndef TG_CONVERT_TARGETS_PLAIN_H
#define TG_CONVERT_TARGETS_PLAIN_H

#include "convert/target.h"

/* RMS norms with plain weights, a head without bias, logits as they come, embeddings of the width
 */
void tg_plain_frame(const struct tg_model_spec *spec, struct tg_remarks *why);
/* Layer i: its branches join after norms before them; a dense mlp is gated by silu, without biases
 * and factors */
void tg_plain_block(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why);
/* Layer i attends as in Llama: no window, norms, sinks, caps, gate, or sizes of values alone */
void tg_plain_attention(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why);

bool tg_plain_is(const struct tg_layer_spec *l, const char *mixer);
/* The first layer of this mixer; NULL: there is none */
const struct tg_layer_spec *tg_plain_first(const struct tg_model_spec *spec, const char *mixer);
/* The source's parameter of the same name; biases of mixers that it does not have are zero: one
 * config is for all layers. */
int tg_plain_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                  struct tg_err *err);

#endif
