/* Model cards: whatever the bytes are, what is read of them is text that ends, of one line,
 * for it goes into another card. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tools/front_matter.h"

static void require_text(const char *s, size_t size)
{
    if (!memchr(s, 0, size) || strpbrk(s, "\n\r"))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_front_matter f;

    tg_front_matter_read((const char *)data, size, &f);
    require_text(f.license, sizeof f.license);
    require_text(f.license_name, sizeof f.license_name);
    require_text(f.license_link, sizeof f.license_link);
    if (f.language_count > TG_MAX_LANGUAGES)
        abort();
    for (size_t i = 0; i < f.language_count; i++)
        require_text(f.languages[i], sizeof f.languages[i]);
    return 0;
}
