/* GGUF files as models: metadata to a spec, tensors to parameters, tokens to a tokenizer. What is
 * accepted can be read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/checkpoint.h"
#include "convert/gguf_model.h"
#include "convert/scaled.h"
#include "convert/tensor_map.h"
#include "formats/format.h"
#include "formats/gguf_vocab.h"
#include "tests/fuzz/fuzz.h"

static void map_tensors(const struct tg_tensors *t, const struct tg_family *names,
                        const struct tg_model_spec *spec)
{
    struct tg_param_list params;
    struct tg_tensor_map map;
    const struct tg_scaling none = {0};
    struct tg_err err = {0};
    if (spec->layer_count > 16 || tg_params_of(spec, &params, &err) != TG_OK)
        return;
    if (tg_tensor_map_make(&map, names, false, &none, spec, &params, t, "fuzz", &err) == TG_OK)
        tg_tensor_map_release(&map);
    else if (!*err.msg)
        abort();
    tg_params_release(&params);
}

static void as_model(const struct tg_tensors *t)
{
    const struct tg_gguf_arch *arch;
    struct tg_model_spec spec;
    struct tg_strbuf json;
    struct tg_err err = {0};
    tg_strbuf_init(&json, 1 << 20);
    if (tg_gguf_config(t, &json, &arch, &err) == TG_OK) {
        if (tg_config_parse(json.text, json.len, "fuzz", &spec, &err) == TG_OK) {
            tg_gguf_amend(arch, &spec);
            map_tensors(t, tg_gguf_names(arch), &spec);
            tg_spec_release(&spec);
        }
    } else if (!*err.msg)
        abort();
    tg_strbuf_release(&json);
}

static void as_vocabulary(const struct tg_tensors *t)
{
    static const char text[] = "Hello, w\xC3\xB6rld 123  \n it's <s>";
    struct tg_tokenizer *tok;
    struct tg_ids ids = {0};
    struct tg_err err = {0};
    char *back;
    size_t len;
    if (!tg_gguf_has_vocab(t))
        return;
    const int rc = tg_gguf_tokenizer(&tok, t, 0, &err);
    if ((rc == TG_OK) != (tok != NULL) || (rc != TG_OK && !*err.msg))
        abort();
    if (tok && tg_tokenizer_encode(tok, text, sizeof text - 1, true, &ids, &err) == TG_OK &&
        tg_tokenizer_decode(tok, ids.data, ids.count, false, &back, &len, &err) == TG_OK)
        tg_free(back);
    tg_ids_release(&ids);
    tg_tokenizer_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_tensors *t;
    struct tg_err err = {0};
    if (tg_tensors_over(&t, &tg_format_gguf, data, size, "fuzz", &err) != TG_OK)
        return 0;
    as_model(t);
    as_vocabulary(t);
    tg_tensors_close(t);
    return 0;
}
