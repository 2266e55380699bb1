/* JSON: whatever is accepted survives being written and parsed again unchanged. The first byte
 * chooses the flags. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "tests/fuzz/fuzz.h"

static void walk(struct tg_json v)
{
    char path[32];
    int64_t i;
    tg_json_path(v, path, sizeof path);
    tg_json_get_int_or(v, "a", 0, 9, &i, NULL);
    for (struct tg_json c = tg_json_first(v); c.node; c = tg_json_next(c)) {
        if (tg_json_is_object(v) && tg_json_key(v, tg_json_name(c)).node != c.node)
            abort(); /* no key hides another */
        walk(c);
    }
}

static void print(const struct tg_json_doc *doc, struct tg_strbuf *s)
{
    struct tg_json_out j;
    tg_strbuf_init(s, (size_t)1 << 28);
    tg_jout_init(&j, s, 0);
    tg_jout_copy(&j, NULL, tg_json_root(doc));
    if (s->failed)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_json_doc *doc, *again;
    struct tg_strbuf one, two;
    struct tg_err err = {0};
    if (size == 0 || size > 1 << 16)
        return 0;
    unsigned flags = data[0] == 'I' ? TG_JSON_INFINITY : 0;
    int rc = tg_json_parse(&doc, (const char *)data + 1, size - 1, "fuzz", flags, &err);
    if ((rc == TG_OK) != (doc != NULL) || rc == TG_ERR_NOMEM)
        abort();
    if (rc != TG_OK)
        return 0;
    if (size < 4096) /* paths are searched from the root each time */
        walk(tg_json_root(doc));
    print(doc, &one);
    if (tg_json_parse(&again, one.text, one.len, "again", 0, &err) != TG_OK)
        abort();
    print(again, &two);
    if (strcmp(one.text, two.text) != 0)
        abort();
    tg_strbuf_release(&one);
    tg_strbuf_release(&two);
    tg_json_free(doc);
    tg_json_free(again);
    return 0;
}
