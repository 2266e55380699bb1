#include "formats/gguf_list.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/gguf_file.h"

void *tg_gguf_own(struct tg_gguf_list *l, void *block)
{
    if (!block || !tg_grow(&l->owned, &l->owned_cap, l->owned_count + 1, sizeof *l->owned)) {
        tg_free(block);
        l->failed = true;
        return NULL;
    }
    return l->owned[l->owned_count++] = block;
}

static char *own_text(struct tg_gguf_list *l, const char *text)
{
    return tg_gguf_own(l, tg_strdup(text));
}

void tg_gguf_put(struct tg_gguf_list *l, const char *key, struct tg_gguf_value v)
{
    const char *own = own_text(l, key);

    if (!own)
        return;
    if (!tg_grow(&l->items, &l->cap, l->count + 1, sizeof *l->items)) {
        l->failed = true;
        return;
    }
    l->items[l->count++] = (struct tg_gguf_kv){own, v};
}

void tg_gguf_put_arch(struct tg_gguf_list *l, const char *arch, const char *suffix,
                      struct tg_gguf_value v)
{
    char key[128];

    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    tg_gguf_put(l, key, v);
}

void tg_gguf_put_text(struct tg_gguf_list *l, const char *key, const char *text)
{
    const char *own = own_text(l, text);

    if (own)
        tg_gguf_put(l, key, tg_gguf_text(own, strlen(own)));
}

void tg_gguf_put_array(struct tg_gguf_list *l, const char *key, enum tg_gguf_type type,
                       const void *data, size_t count)
{
    const size_t size = type == TG_GGUF_STRING ? sizeof(struct tg_gguf_string)
                                               : tg_gguf_type_info((uint32_t)type)->size;
    void *copy = tg_gguf_own(l, tg_alloc_array(count ? count : 1, size));

    if (!copy)
        return;
    memcpy(copy, data, count * size);
    struct tg_gguf_string *s = copy;
    for (size_t i = 0; type == TG_GGUF_STRING && i < count; i++) {
        char *bytes = tg_gguf_own(l, tg_alloc(s[i].len + 1));
        if (!bytes)
            return;
        memcpy(bytes, s[i].text, s[i].len);
        s[i].text = bytes;
    }
    tg_gguf_put(l, key, tg_gguf_array(type, copy, count));
}

void tg_gguf_list_release(struct tg_gguf_list *l)
{
    for (size_t i = 0; i < l->owned_count; i++)
        tg_free(l->owned[i]);
    tg_free(l->owned);
    tg_free(l->items);
    *l = (struct tg_gguf_list){0};
}
