/* A number that may be absent: "nothing was said" differs from every value. */
#ifndef TG_BASE_MAYBE_H
#define TG_BASE_MAYBE_H

#include <stdbool.h>

struct tg_maybe {
    bool given;
    double value;
};

static inline struct tg_maybe tg_given(double value)
{
    struct tg_maybe m = {true, value};
    return m;
}

#endif
