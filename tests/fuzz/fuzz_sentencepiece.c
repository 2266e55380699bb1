/* Any bytes as a SentencePiece model; if it loads, encodes and decodes with it: the text is the end
 * of the input, as far as it is UTF-8, and a few signs that normalizers and pieces look for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static void round_trip(const struct tg_tokenizer *t, const char *text, size_t len)
{
    struct tg_ids ids = {0};
    char *back = NULL;
    size_t back_len;
    if (tg_tokenizer_encode(t, text, len, true, &ids, NULL) == TG_OK &&
        tg_tokenizer_decode(t, ids.data, ids.count, false, &back, &back_len, NULL) == TG_OK) {
        if (tg_utf8_check(back, back_len) < back_len)
            abort(); /* pieces, replacements and bytes make valid text */
    }
    tg_free(back);
    tg_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char fixed[] = " the a\xEF\xAC\x81  \xE2\x96\x81 e\xCC\x81 12 \xE2\x80\xA6<s> ";
    const char *text = (const char *)data + (size > 200 ? size - 200 : 0);
    size_t len = size > 200 ? 200 : size;
    struct tg_tokenizer *t;
    if (tg_tokenizer_parse_model(&t, data, size, "fuzz", 0, NULL) != TG_OK)
        return 0;
    round_trip(t, fixed, sizeof fixed - 1);
    if (size)
        round_trip(t, text, tg_utf8_check(text, len));
    tg_tokenizer_free(t);
    return 0;
}
