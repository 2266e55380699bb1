/* The keys of a GGUF file that say what the model is and whose: general.name, general.license, ...
 */
#ifndef TG_CONVERT_EXPORT_ABOUT_H
#define TG_CONVERT_EXPORT_ABOUT_H

#include "convert/target.h"

/* Empty or NULL: not known, and not said. All borrowed. */
struct tg_export_about {
    const char *name;
    const char *base_model; /* "Qwen/Qwen3-0.6B" */
    const char *license, *license_name, *license_link;
    const char *const *languages;
    size_t language_count;
};
void tg_export_about_keys(const struct tg_export_about *about, const struct tg_model_spec *spec,
                          struct tg_gguf_list *out);

#endif
