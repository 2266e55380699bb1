/* Private to convert: the rows of families.def, each in families/<name>.c. Apart from family.h, so
 * that a new row compiles nothing anew but the table. */
#ifndef TG_CONVERT_FAMILIES_H
#define TG_CONVERT_FAMILIES_H

#include "convert/family.h"

#define TG_FAMILY(name) extern const struct tg_family tg_family_##name;
#include "convert/families.def"
#undef TG_FAMILY

#endif
