/* Private to targets: what GGUF architectures of llama.cpp have in common. Its loader wants the
 * exact types of keys: sizes U32, numbers F32. */
#ifndef TG_CONVERT_TARGETS_GGUF_H
#define TG_CONVERT_TARGETS_GGUF_H

#include "convert/target.h"

/* One number or truth under "ARCH.suffix" */
void tg_gguf_put_size(struct tg_gguf_list *l, const char *arch, const char *suffix, size_t n);
void tg_gguf_put_number(struct tg_gguf_list *l, const char *arch, const char *suffix, double x);

/* general.*, sizes of the model, and those of attention layer `a`: all but feed_forward_length,
 * attention.head_count_kv and positions */
void tg_gguf_keys_model(const struct tg_export *x, const struct tg_layer_spec *a,
                        struct tg_gguf_list *out);
/* rope.*: of ropes[0], which turns a */
void tg_gguf_keys_rope(const struct tg_export *x, const struct tg_layer_spec *a,
                       struct tg_gguf_list *out);
/* What no GGUF file of llama.cpp can say of a model: more layers than it takes, more tokens that
 * end a text than there are keys for */
void tg_gguf_check_model(const struct tg_model_spec *spec, struct tg_remarks *why);
/* How a rope cannot be said by these keys, or NULL. With `divisors` the architecture takes
 * rope_freqs.weight, which llama3 scaling needs: tg_gguf_rope_freqs. */
const char *tg_gguf_rope_why_not(const struct tg_rope *r, bool divisors);
/* `extra` of targets with divisors: rope_freqs.weight, if ropes[0] has llama3 scaling */
bool tg_gguf_rope_freqs(const struct tg_export *x, size_t i, struct tg_tensor_plan *plan,
                        float *values);
/* Numbers of a spec as they come back from F32 keys: epsilon, theta and factor of ropes[0] */
void tg_gguf_round(struct tg_model_spec *spec);

#endif
