/* Any bytes as a tokenizer.json; if it loads, encodes and decodes with it. The text to encode is
 * what follows the first NUL byte of the input, or the whole input. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t json_len = nul ? (size_t)(nul - data) : size;
    const char *text = nul ? (const char *)nul + 1 : json;
    size_t text_len = nul ? size - json_len - 1 : size, len;
    struct tg_tokenizer *t;
    struct tg_ids ids = {0};
    char *back = NULL;
    if (tg_tokenizer_parse(&t, json, json_len, "fuzz", 0, NULL) != TG_OK)
        return 0;
    if (tg_tokenizer_encode(t, text, text_len, true, &ids, NULL) == TG_OK &&
        tg_tokenizer_decode(t, ids.data, ids.count, true, &back, &len, NULL) == TG_OK)
        tg_free(back);
    tg_ids_release(&ids);
    tg_tokenizer_free(t);
    return 0;
}
