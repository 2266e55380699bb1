/* Private to convert: what the two rows of Granite 4 hybrid share, granitemoehybrid (a directory)
 * and granitehybrid (a GGUF file). */
#ifndef TG_CONVERT_TARGETS_GRANITE_H
#define TG_CONVERT_TARGETS_GRANITE_H

#include "convert/target.h"

/* The first layer that is Mamba-2, and the first that is softmax; NULL: there is none. */
const struct tg_layer_spec *tg_granite_recurrent(const struct tg_model_spec *spec);
const struct tg_layer_spec *tg_granite_attention(const struct tg_model_spec *spec);
/* Are the softmax layers rotated? */
bool tg_granite_rotary(const struct tg_model_spec *spec);
/* What logits are divided by; 0: no number's inverse is their factor. */
double tg_granite_divisor(const struct tg_model_spec *spec);

/* What neither file can hold. Left to the rows: how many channels a Mamba-2 layer may have (the
 * directory says a whole multiple of the width), and biases of its projections. */
void tg_granite_check(const struct tg_model_spec *spec, struct tg_remarks *why);
/* x->spec becomes what the family's reader makes of the config: the biases that one layer has, all
 * have; the softmax layers' rope is the model's only one. */
int tg_granite_adapt(struct tg_export *x, struct tg_err *err);
/* The mixer that every engine of either file loads, if the teacher's own layers fit: one group,
 * twice the width, no biases in the projections (llama.cpp asks for all three) */
int tg_granite_plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                    struct tg_err *err);

#endif
