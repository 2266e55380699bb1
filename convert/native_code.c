#include "convert/native_code.h"

const struct tg_native_code tg_native_codes[] = {
#include "convert/native_code.inc"
    {NULL, NULL, 0},
};
