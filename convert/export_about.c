#include "convert/export_about.h"

#include <string.h>

#include "base/mem.h"

static void put_text(struct tg_gguf_list *out, const char *key, const char *text)
{
    if (text && text[0])
        tg_gguf_put_text(out, key, text);
}

/* general.base_model.0, of "ORGANIZATION/NAME" or "NAME" */
static void put_base(struct tg_gguf_list *out, const char *base)
{
    const char *slash = base ? strchr(base, '/') : NULL;

    if (!base || !base[0])
        return;
    tg_gguf_put(out, "general.base_model.count", tg_gguf_u32(1));
    put_text(out, "general.base_model.0.name", slash ? slash + 1 : base);
    if (slash) {
        char *organization = tg_gguf_own(out, tg_strdup(base));
        if (organization) {
            organization[slash - base] = '\0';
            put_text(out, "general.base_model.0.organization", organization);
        }
    }
}

static void put_list(struct tg_gguf_list *out, const char *key, const char *const *texts, size_t n)
{
    struct tg_gguf_string *s = tg_alloc_array(n ? n : 1, sizeof *s);

    for (size_t i = 0; s && i < n; i++)
        s[i] = (struct tg_gguf_string){texts[i], strlen(texts[i])};
    if (!s)
        out->failed = true;
    else if (n)
        tg_gguf_put_array(out, key, TG_GGUF_STRING, s, n);
    tg_free(s);
}

/* The mixers whose state does not grow, each once */
static void put_tags(struct tg_gguf_list *out, const struct tg_model_spec *spec)
{
    enum { MAX = 16 };
    const char *tags[MAX] = {"text-generation"};
    size_t n = 1, growing = 0;

    for (size_t l = 0; l < spec->layer_count; l++) {
        const struct tg_mixer_schema *m = spec->layers[l].mixer;
        bool known = !(m->flags & TG_MIXER_LINEAR);
        growing += known;
        for (size_t i = 0; i < n; i++)
            known = known || !strcmp(tags[i], m->name);
        if (!known && n + 2 < MAX)
            tags[n++] = m->name;
    }
    if (n > 1) {
        tags[n++] = "linear-attention";
        if (growing)
            tags[n++] = "hybrid";
    }
    put_list(out, "general.tags", tags, n);
}

void tg_export_about_keys(const struct tg_export_about *a, const struct tg_model_spec *spec,
                          struct tg_gguf_list *out)
{
    put_text(out, "general.name", a->name);
    put_text(out, "general.license", a->license);
    put_text(out, "general.license.name", a->license_name);
    put_text(out, "general.license.link", a->license_link);
    put_base(out, a->base_model);
    put_tags(out, spec);
    put_list(out, "general.languages", a->languages, a->language_count);
}
