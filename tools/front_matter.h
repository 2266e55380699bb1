/* What a model's own card says that a model made from it must say too: the YAML block at the start
 * of README.md. */
#ifndef TG_TOOLS_FRONT_MATTER_H
#define TG_TOOLS_FRONT_MATTER_H

#include <stddef.h>

enum { TG_MAX_LANGUAGES = 64 };
/* Empty where nothing, or nothing of the form that the Hub takes, is said */
struct tg_front_matter {
    char license[64], license_name[96], license_link[256];
    char languages[TG_MAX_LANGUAGES][16];
    size_t language_count;
};
/* Scalars and lists alone are read, of four keys; everything else is passed over. */
void tg_front_matter_read(const char *text, size_t len, struct tg_front_matter *f);

#endif
