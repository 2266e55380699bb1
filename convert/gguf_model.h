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
/* The metadata as the text of a config.json, and the row whose table of names maps the tensors.
 * What another architecture or an option asks for that would change the arithmetic is refused by
 * its name. Appends to *json. */
int tg_gguf_config(const struct tg_tensors *t, struct tg_strbuf *json,
                   const struct tg_family **names, struct tg_err *err);

/* llama.cpp's tensor names for each architecture: convert/gguf_names.c. Only name, names and
 * droppable are set. */
extern const struct tg_family tg_gguf_llama, tg_gguf_qwen, tg_gguf_gpt2;

#endif
