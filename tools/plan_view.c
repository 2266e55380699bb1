#include "tools/plan_view.h"

#include <math.h>
#include <stdio.h>

#include "tools/table.h"

const char *tg_plan_kept(const struct tg_plan *p, char *buf, size_t size)
{
    size_t used = 0;
    snprintf(buf, size, "none");
    for (size_t l = 0; l < p->count; l++)
        if (!p->layers[l].mixer && used < size)
            used += (size_t)snprintf(buf + used, size - used, "%s%zu", used ? "," : "", l);
    return buf;
}

/* "conv=2, rotary=false": options that have no column, where they differ from the mixer's own */
static void other_options(size_t width, const struct tg_layer_spec *was,
                          const struct tg_layer_spec *is, char *buf, size_t size)
{
    const struct tg_plan_layer plain = {.mixer = is->mixer};
    struct tg_layer_spec own;
    char value[32];
    size_t used = 0;
    tg_plan_layer_spec(&plain, width, was, &own);
    buf[0] = '\0';
    for (int k = 0; k < TG_PLAN_KEYS; k++) {
        enum tg_plan_key key = (enum tg_plan_key)k;
        double now = tg_plan_value_in(key, width, is);
        if (key <= TG_PLAN_FEATURE_DIM || !tg_plan_rows[k].has(is->mixer) || isnan(now) ||
            now == tg_plan_value_in(key, width, &own) || used >= size)
            continue;
        used += (size_t)snprintf(buf + used, size - used, "%s%s=%s", used ? ", " : "",
                                 tg_plan_rows[k].name,
                                 tg_plan_value_text(key, now, value, sizeof value));
    }
}

/* A layer that became what it was, as far as a spec can say, is one that was kept. */
static bool changed(const struct tg_layer_spec *was, const struct tg_layer_spec *is)
{
    return is->mixer != was->mixer || is->window != was->window || is->sinks != was->sinks;
}

static void layer_row(struct tg_table *table, size_t width, size_t l,
                      const struct tg_layer_spec *was, const struct tg_layer_spec *is)
{
    char window[24] = "", sinks[24] = "", features[64] = "", others[TG_TABLE_CELL];
    if (!changed(was, is)) {
        tg_table_row(table, "%zu|%s|kept||||", l, was->mixer->name);
        return;
    }
    if (tg_plan_rows[TG_PLAN_WINDOW].has(is->mixer))
        snprintf(window, sizeof window, "%zu", is->window);
    if (tg_plan_rows[TG_PLAN_SINKS].has(is->mixer))
        snprintf(sinks, sizeof sinks, "%zu", is->sinks);
    if (tg_plan_rows[TG_PLAN_FEATURE_MAP].has(is->mixer))
        snprintf(features, sizeof features, "%s %zu", tg_feature_map_name(is->feature_map),
                 tg_feature_count(is));
    other_options(width, was, is, others, sizeof others);
    tg_table_row(table, "%zu|%s|%s|%s|%s|%s|%s", l, was->mixer->name, is->mixer->name, window,
                 sinks, features, others);
}

void tg_plan_print(const struct tg_tool *t, const struct tg_model_spec *teacher,
                   const struct tg_model_spec *student)
{
    struct tg_table table;
    tg_table_init(&table, "layer|now|becomes|window|sinks|features|options");
    for (size_t l = 0; l < student->layer_count; l++)
        layer_row(&table, teacher->width, l, &teacher->layers[l], &student->layers[l]);
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    char a[3][40], b[3][40];
    const struct tg_model_spec *both[2] = {teacher, student};
    printf("\n");
    tg_table_init(&table, "|teacher|hybrid");
    for (int i = 0; i < 2; i++) {
        char(*cell)[40] = i ? b : a;
        tg_thousands((double)tg_spec_param_count(both[i]), cell[0], 40);
        tg_bytes_text((double)tg_spec_kv_bytes_per_token(both[i], 2), cell[1], 40);
        tg_bytes_text((double)tg_spec_state_bytes(both[i]), cell[2], 40);
    }
    tg_table_row(&table, "parameters|%s|%s", a[0], b[0]);
    tg_table_row(&table, "KV cache per token (bf16)|%s|%s", a[1], b[1]);
    tg_table_row(&table, "constant state|%s|%s", a[2], b[2]);
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}
