/* Private to base: the strict look at a JSON text that comes before cJSON's. */
#ifndef TG_BASE_JSON_SCAN_H
#define TG_BASE_JSON_SCAN_H

#include <stddef.h>

#include "base/status.h"

enum { TG_JSON_DEPTH = 64 };

/* What the scan found that has to be mended in the parsed tree: NaN, which cJSON cannot hold in
 * text. The number at document order nans[i] (counting numbers from 0) is NaN. */
struct tg_json_scan {
    size_t *nans; /* owned: tg_free */
    size_t nan_count, nan_cap;
};

/* Checks text[0..len) by the rules in json.h. `text` is changed in place where cJSON could not read
 * it (Infinity, NaN, very long numbers), its length stays. text[len] must be NUL. */
int tg_json_scan(struct tg_json_scan *s, char *text, size_t len, const char *name, unsigned flags,
                 struct tg_err *err);

#endif
