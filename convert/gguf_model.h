/* A GGUF file as a teacher. Its metadata say what config.json says in HF, so
 * they are put into those words and read by the family's own row; its tensors have names and, for
 * llama, an order of rows of their own. */
#ifndef TG_CONVERT_GGUF_MODEL_H
#define TG_CONVERT_GGUF_MODEL_H

#include "base/strbuf.h"
#include "convert/family.h"
#include "formats/tensors.h"

/* A file that begins like GGUF or is called so, or a directory without config.json that holds one
 */
int tg_gguf_is_model(const char *path, bool *yes, struct tg_err *err);
struct tg_gguf_arch;
/* The metadata as the text of a config.json, and the architecture. What another one or an option
 * asks for that would change the arithmetic is refused by its name. Appends to *json. */
int tg_gguf_config(const struct tg_tensors *t, struct tg_strbuf *json,
                   const struct tg_gguf_arch **arch, struct tg_err *err);
/* The row whose table of names maps the tensors */
const struct tg_family *tg_gguf_names(const struct tg_gguf_arch *arch);
/* What the file means and no config.json says (norms without the 1 that a family adds), into the
 * spec that was read from the config. */
void tg_gguf_amend(const struct tg_gguf_arch *arch, struct tg_model_spec *spec);
/* Keys of the tokens at which a text begins, and ends */
enum { TG_GGUF_EOS_KEYS = 3 };
extern const char tg_gguf_bos_key[], *const tg_gguf_eos_keys[TG_GGUF_EOS_KEYS];
/* llama.cpp's names, of which each parameter has one: for writing too */
extern const struct tg_name_rule tg_gguf_llama_names[], tg_gguf_qwen_names[],
    tg_gguf_qwen35_names[], tg_gguf_granitehybrid_names[];
/* What llama3 scaling divides the frequency of pair i of `pairs` by, as rope_freqs.weight holds it:
 * with wavelength l, s = clamp((original / l - low) / (high - low), 0, 1), 1 / ((1 - s) / factor +
 * s)
 */
double tg_gguf_llama3_divisor(const struct tg_rope *r, size_t i, size_t pairs);
/* The shortest decimal number that is the same float32 as x: 1e-06 of 9.99999997e-07 */
double tg_gguf_decimal(double x);

/* llama.cpp's tensor names for each architecture: convert/gguf_names.c, of hybrids
 * convert/gguf_hybrid_names.c. Only name, names and droppable are set. */
extern const struct tg_family tg_gguf_llama, tg_gguf_qwen, tg_gguf_gpt2, tg_gguf_qwen35,
    tg_gguf_granitehybrid;

#endif
