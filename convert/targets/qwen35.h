/* Private to targets: llama.cpp's Qwen3.5 models, dense (qwen35) and with experts (qwen35moe).
 * Their norms have plain weights, in float32: nothing is rounded, nothing folded into columns. */
#ifndef TG_CONVERT_TARGETS_QWEN35_H
#define TG_CONVERT_TARGETS_QWEN35_H

#include "convert/target.h"

void tg_qwen35_check(const struct tg_model_spec *spec, bool sparse, struct tg_remarks *why);
int tg_qwen35_adapt(struct tg_export *x, struct tg_err *err);
int tg_qwen35_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                   struct tg_err *err);
/* All keys but those of the mlp */
void tg_qwen35_keys(const struct tg_export *x, struct tg_gguf_list *out);
int tg_qwen35_plan(const char *name, bool sparse, const struct tg_model_spec *teacher,
                   const char *mixer, char *text, size_t size, struct tg_err *err);
#endif
