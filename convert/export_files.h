/* What stands beside the weights of an export: tokenizer, template, generation settings. */
#ifndef TG_CONVERT_EXPORT_FILES_H
#define TG_CONVERT_EXPORT_FILES_H

#include "convert/target.h"

/* From the model's directory into the export's. tokenizer.json goes byte for byte;
 * tokenizer_config.json names the class that reads it as it stands: the one that transformers takes
 * from model_type may build another tokenizer (docs/deploying.md). generation_config.json is the
 * model's, or made from its special tokens. */
int tg_export_files(const struct tg_export *x, const char *from_dir, const char *to_dir,
                    struct tg_err *err);

#endif
