/* How far two words are from each other, for "did you mean". */
#ifndef TG_BASE_NEAR_H
#define TG_BASE_NEAR_H

#include <stddef.h>

/* Levenshtein distance in bytes; SIZE_MAX if one of them has more than 63. */
size_t tg_edit_distance(const char *a, const char *b);

#endif
