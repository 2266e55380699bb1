/* config.json: whatever the bytes are, reading ends with a message or with a spec that keeps its
 * promises; and a spec that was read survives being written as a native hybrid's config. */
#include <stdint.h>
#include <stdlib.h>

#include "convert/native.h"
#include "tests/specs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tg_native_meta meta = {"fuzz", "0", 1, "", "fuzz"};
    struct tg_model_spec spec, again;
    struct tg_param_list list;
    struct tg_strbuf text;
    struct tg_err err = {0};

    if (tg_config_parse((const char *)data, size, "config.json", &spec, &err) != TG_OK) {
        require(err.code < 0 && err.msg[0]);
        return 0;
    }
    require(tg_params_of(&spec, &list, &err) == TG_OK);
    for (size_t i = 0; i < list.count; i++)
        require(list.items[i].count > 0 && list.items[i].rank > 0 &&
                list.items[i].offset % 16 == 0);
    tg_params_release(&list);
    (void)tg_spec_state_bytes(&spec);
    if (spec.layer_count <= 64) { /* time: a config of thousands of layers is megabytes */
        tg_strbuf_init(&text, 1 << 24);
        tg_native_config(&text, &spec, TG_BF16, &meta);
        require(!text.failed &&
                tg_config_parse(text.text, text.len, "again", &again, &err) == TG_OK &&
                !tg_spec_difference(&spec, &again));
        tg_spec_release(&again);
        tg_strbuf_release(&text);
    }
    tg_spec_release(&spec);
    return 0;
}
