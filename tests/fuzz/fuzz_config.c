/* config.json: whatever the bytes are, reading ends with a message or with a spec that keeps its
 * promises; and a spec that was read survives being written as a native hybrid's config. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/native.h"
#include "tests/fuzz/fuzz.h"

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void write_config(struct tg_strbuf *text, const struct tg_model_spec *spec)
{
    const struct tg_native_meta meta = {"fuzz", "0", 1, "", "fuzz"};

    tg_strbuf_init(text, 1 << 24);
    tg_native_config(text, spec, TG_BF16, &meta);
    require(!text->failed);
}

static void check_params(const struct tg_model_spec *spec)
{
    struct tg_param_list list;
    size_t end = 0;

    require(tg_params_of(spec, &list, NULL) == TG_OK);
    for (size_t i = 0; i < list.count; i++) {
        const struct tg_param *p = &list.items[i];
        require(p->count > 0 && p->rank > 0 && p->offset % 16 == 0 && p->offset >= end);
        require(tg_add_size(&end, p->offset, p->count) && end <= list.floats);
    }
    tg_params_release(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_model_spec spec, again;
    struct tg_strbuf one, two;
    struct tg_err err = {0};

    if (tg_config_parse((const char *)data, size, "config.json", &spec, &err) != TG_OK) {
        require(err.code < 0 && err.code != TG_ERR_NOMEM && err.msg[0]);
        return 0;
    }
    check_params(&spec);
    (void)tg_spec_state_bytes(&spec);
    if (spec.layer_count <= 64) { /* thousands of layers would be megabytes of text */
        write_config(&one, &spec);
        require(tg_config_parse(one.text, one.len, "again", &again, &err) == TG_OK);
        write_config(&two, &again);
        require(!strcmp(one.text, two.text));
        tg_spec_release(&again);
        tg_strbuf_release(&one);
        tg_strbuf_release(&two);
    }
    tg_spec_release(&spec);
    return 0;
}
