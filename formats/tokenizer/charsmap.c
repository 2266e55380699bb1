#include "formats/tokenizer/charsmap.h"

#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "base/utf8.h"

struct tg_charsmap {
    uint32_t *units; /* owned */
    size_t unit_count;
    char *blob; /* owned */
    size_t blob_len;
};

int tg_charsmap_make(struct tg_charsmap **out, const uint8_t *bytes, size_t len, const char *name,
                     struct tg_err *err)
{
    struct tg_cursor c = tg_cursor_over(bytes, len);
    size_t trie = tg_cursor_u32(&c);
    *out = NULL;
    if (c.failed || trie < 4 || trie % 4 || trie >= len - 4 || bytes[len - 1] != 0)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: precompiled_charsmap of %zu bytes: a trie of %zu bytes with texts "
                       "behind it does not fit",
                       name, len, trie);
    size_t blob_len = len - 4 - trie;
    const char *blob = (const char *)bytes + 4 + trie;
    if (tg_utf8_check(blob, blob_len) < blob_len)
        return tg_fail(err, TG_ERR_FORMAT, "%s: precompiled_charsmap: its texts are not UTF-8",
                       name);
    struct tg_charsmap *m = tg_alloc(sizeof *m);
    if (!m || !(m->units = tg_alloc_array(trie / 4, sizeof *m->units)) ||
        !(m->blob = tg_alloc(blob_len))) {
        tg_charsmap_free(m);
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    }
    m->unit_count = trie / 4;
    for (size_t i = 0; i < m->unit_count; i++)
        m->units[i] = tg_cursor_u32(&c);
    memcpy(m->blob, blob, blob_len);
    m->blob_len = blob_len;
    *out = m;
    return TG_OK;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int tg_charsmap_parse(struct tg_charsmap **out, const char *base64, const char *name,
                      struct tg_err *err)
{
    size_t n = strlen(base64), used = 0;
    uint32_t bits = 0, have = 0;
    uint8_t *bytes = tg_alloc(n / 4 * 3 + 3);
    *out = NULL;
    if (!bytes)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    while (n && base64[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int v = base64_value(base64[i]);
        if (v < 0) {
            tg_free(bytes);
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: precompiled_charsmap is not base64 at character %zu", name, i);
        }
        bits = (bits << 6 | (uint32_t)v) & 0xFFFFFF;
        have += 6;
        if (have >= 8) {
            have -= 8;
            bytes[used++] = (uint8_t)(bits >> have);
        }
    }
    int rc = tg_charsmap_make(out, bytes, used, name, err);
    tg_free(bytes);
    return rc;
}

void tg_charsmap_free(struct tg_charsmap *m)
{
    if (!m)
        return;
    tg_free(m->units);
    tg_free(m->blob);
    tg_free(m);
}

/* ---- units: 31 bits of value, or offset (22 bits, times 256 if bit 9), leaf (bit 8), label ----
 */

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200) >> 6);
}

/* The replacement at an offset of the blob; false: outside, or inside a character. */
static bool text_at(const struct tg_charsmap *m, uint32_t value, const char **to, size_t *to_len)
{
    if (value >= m->blob_len || ((unsigned char)m->blob[value] & 0xC0) == 0x80)
        return false;
    *to = m->blob + value;
    *to_len = strlen(*to); /* the blob ends in NUL */
    return true;
}

size_t tg_charsmap_match(const struct tg_charsmap *m, const char *s, size_t len, bool longest,
                         const char **to, size_t *to_len)
{
    size_t at = offset_of(m->units[0]), found = 0;
    for (size_t i = 0; i < len && s[i]; i++) {
        at ^= (unsigned char)s[i];
        if (at >= m->unit_count || (m->units[at] & 0x800000FFu) != (unsigned char)s[i])
            break;
        uint32_t unit = m->units[at];
        at ^= offset_of(unit);
        if (!(unit & 0x100))
            continue;
        if (at >= m->unit_count || !text_at(m, m->units[at] & 0x7FFFFFFF, to, to_len))
            break;
        found = i + 1;
        if (!longest)
            break;
    }
    return found;
}
