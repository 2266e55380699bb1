/* What stands beside the weights in a model's directory: config, tokenizer, template, card. */
#ifndef TG_CONVERT_MODEL_FILES_H
#define TG_CONVERT_MODEL_FILES_H

#include "base/status.h"

/* One file, byte for byte; a missing one is no error. */
int tg_model_file_copy(const char *from_dir, const char *to_dir, const char *name,
                       struct tg_err *err);
/* Every regular file of from_dir but weights and their indexes, byte for byte; with a dtype
 * ("bfloat16"; NULL: none) config.json says that one. */
int tg_model_files_copy(const char *from_dir, const char *to_dir, const char *dtype,
                        struct tg_err *err);

#endif
