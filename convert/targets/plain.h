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

#endif
