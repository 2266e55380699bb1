/* Post-processors: what stands before and after the ids of a text. */
#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/pipeline.h"

static int add_template_ids(struct tg_tokenizer *t, struct tg_json token, struct tg_ids *to,
                            struct tg_err *err)
{
    struct tg_json ids = tg_json_key(token, "ids");
    if (!tg_json_is_array(ids))
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: post_processor.special_tokens: '%s' has no array of ids", t->name,
                       tg_json_name(token));
    for (struct tg_json c = tg_json_first(ids); c.node; c = tg_json_next(c)) {
        double id = tg_json_number(c);
        if (!tg_json_is_number(c) || !(id >= 0 && id < (double)t->vocab) ||
            id != (double)(int64_t)id)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: post_processor.special_tokens: '%s': id %.17g is not in [0, %zu)",
                           t->name, tg_json_name(token), id, t->vocab);
        int rc = tg_ids_push(to, (int32_t)id, err);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

/* One element of the template; *seen: the text has stood already. */
static int load_element(struct tg_tokenizer *t, struct tg_json element, struct tg_json specials,
                        bool *seen, struct tg_err *err)
{
    struct tg_json sequence = tg_json_key(element, "Sequence");
    const char *id;
    if (tg_json_has(sequence)) {
        int rc = tg_json_get_str(sequence, "id", &id, err);
        if (rc != TG_OK)
            return rc;
        if (strcmp(id, "A") != 0 || *seen)
            return tg_unsupported(t, err, "post_processor.single.Sequence", *seen ? "A twice" : id);
        *seen = true;
        return TG_OK;
    }
    int rc = tg_json_get_str(tg_json_key(element, "SpecialToken"), "id", &id, err);
    if (rc != TG_OK)
        return rc;
    struct tg_json token = tg_json_key(specials, id);
    if (!tg_json_has(token))
        return tg_fail(err, TG_ERR_FORMAT, "%s: post_processor.special_tokens has no '%s'", t->name,
                       id);
    return add_template_ids(t, token, *seen ? &t->after : &t->before, err);
}

static int load_template(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_json single = tg_json_key(o, "single");
    bool seen = false;
    if (t->before.count || t->after.count) /* HF cannot do it either */
        return tg_unsupported(t, err, "post_processor", "a second TemplateProcessing");
    int rc = tg_json_is_array(single)
                 ? TG_OK
                 : tg_unsupported(t, err, "post_processor.single", "not an array");
    for (struct tg_json c = tg_json_first(single); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = load_element(t, c, tg_json_key(o, "special_tokens"), &seen, err);
    if (rc == TG_OK && !seen)
        rc = tg_unsupported(t, err, "post_processor.single", "without the sequence A");
    return rc;
}

/* It trims offsets, which nobody asks for here; ids stay. */
static int load_byte_level(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    (void)t, (void)o, (void)err;
    return TG_OK;
}

static int load_sequence(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    struct tg_json list = tg_json_key(o, "processors");
    int rc = TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: post_processor.processors is not an array",
                       t->name);
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = tg_post_load(t, c, err);
    return rc;
}

int tg_post_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err)
{
    static const struct {
        const char *type;
        int (*load)(struct tg_tokenizer *, struct tg_json, struct tg_err *);
    } known[] = {
        {"Sequence", load_sequence},
        {"TemplateProcessing", load_template},
        {"ByteLevel", load_byte_level},
    };
    const char *type = tg_type_of(o);
    if (!tg_json_has(o))
        return TG_OK;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(type, known[i].type) == 0)
            return known[i].load(t, o, err);
    return tg_unsupported(t, err, "post_processor.type", type);
}
