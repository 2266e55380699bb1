/* The runs of a sweep, from --mixers and --keep. */
#include "tools/sweep_choices.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tools/command.h"

/* "every:4", "none": such an item of --keep is a choice of its own; others belong to one list. */
static bool stands_alone(const char *item)
{
    return strchr(item, ':') || strcmp(item, "none") == 0;
}

static int add_keep(struct tg_sweep_choices *c, const char *item, bool joins, struct tg_err *err)
{
    char *last = c->keep_count ? c->keeps[c->keep_count - 1] : NULL;
    size_t used = joins ? strlen(last) : 0;
    if (used + strlen(item) + 2 > sizeof c->keeps[0])
        return tg_usage(err, "option --keep: '%.100s' is too long", item);
    if (joins) {
        snprintf(last + used, sizeof c->keeps[0] - used, ",%s", item);
        return TG_OK;
    }
    char(*more)[96] = tg_alloc_array(c->keep_count + 1, sizeof *more);
    if (!more)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the choices");
    for (size_t i = 0; i < c->keep_count; i++)
        memcpy(more[i], c->keeps[i], sizeof *more);
    snprintf(more[c->keep_count++], sizeof *more, "%s", item);
    tg_free(c->keeps);
    c->keeps = more;
    return TG_OK;
}

static int read_keeps(struct tg_sweep_choices *c, const struct tg_texts *keeps, struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; i < keeps->count && status == TG_OK; i++) {
        char *copy = tg_strdup(keeps->items[i]), *rest = copy;
        bool in_list = false;
        if (!copy)
            return tg_fail(err, TG_ERR_NOMEM, "no memory for the choices");
        for (char *item; status == TG_OK && (item = strsep(&rest, ","));) {
            bool alone = stands_alone(item);
            status = add_keep(c, item, in_list && !alone, err);
            in_list = !alone;
        }
        tg_free(copy);
    }
    return status;
}

void tg_sweep_name(const char *mixer, const char *keep, const char *more, char *buf, size_t size)
{
    snprintf(buf, size, "%s.%s%s", mixer, keep, more);
    for (char *c = buf; *c; c++)
        *c = *c == ':' ? '-' : *c == ',' ? '+' : *c == '/' ? '_' : *c;
}

static int read_choice(struct tg_sweep_choice *c, const char *mixer, const char *keep,
                       struct tg_err *err)
{
    struct tg_plan_layer layer;
    char text[sizeof c->mixer];
    if (strlen(mixer) >= sizeof c->mixer)
        return tg_usage(err, "option --mixers: '%.100s' is too long", mixer);
    snprintf(c->mixer, sizeof c->mixer, "%s", mixer);
    snprintf(c->keep, sizeof c->keep, "%s", keep);
    tg_sweep_name(mixer, keep, "", c->name, sizeof c->name);
    snprintf(text, sizeof text, "%s", mixer);
    for (char *at = text; *at; at++)
        *at = *at == ':' ? ',' : *at;
    if (tg_plan_mixer_read(text, &layer, err) != TG_OK) {
        tg_err_prefix(err, "option --mixers");
        return TG_EXIT_USAGE;
    }
    c->flags.mixer = layer.mixer->name;
    c->flags.keep = c->keep;
    memcpy(c->flags.set, layer.set, sizeof layer.set);
    return tg_plan_flags_read(&c->flags, &c->ask, err);
}

int tg_sweep_choices_read(struct tg_sweep_choices *c, const struct tg_texts *mixers,
                          const struct tg_texts *keeps, struct tg_err *err)
{
    int status = read_keeps(c, keeps, err);
    if (status)
        return status;
    c->count = mixers->count * c->keep_count;
    c->items = tg_alloc_array(c->count, sizeof *c->items);
    if (!c->items)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for %zu runs", c->count);
    for (size_t i = 0; i < c->count && status == TG_OK; i++) {
        struct tg_sweep_choice *one = &c->items[i];
        status =
            read_choice(one, mixers->items[i % mixers->count], c->keeps[i / mixers->count], err);
        for (size_t k = 0; k < i && status == TG_OK; k++)
            if (strcmp(c->items[k].name, one->name) == 0)
                status =
                    tg_usage(err, "%s with --keep %s is asked for twice", one->mixer, one->keep);
    }
    return status;
}

void tg_sweep_choices_release(struct tg_sweep_choices *c)
{
    tg_free(c->items);
    tg_free(c->keeps);
    memset(c, 0, sizeof *c);
}
