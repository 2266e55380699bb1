#include "tools/plan_view.h"

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

void tg_plan_print(const struct tg_tool *t, const struct tg_model_spec *teacher,
                   const struct tg_model_spec *student)
{
    struct tg_table table;
    tg_table_init(&table, "layer|now|becomes|window|sinks|features");
    for (size_t l = 0; l < student->layer_count; l++) {
        const struct tg_layer_spec *y = &student->layers[l];
        const char *was = teacher->layers[l].mixer->name;
        if (y->mixer == teacher->layers[l].mixer)
            tg_table_row(&table, "%zu|%s|kept|||", l, was);
        else if (y->mixer->flags & TG_MIXER_FAR)
            tg_table_row(&table, "%zu|%s|%s|%zu|%zu|%s %zu", l, was, y->mixer->name, y->window,
                         y->sinks, tg_feature_map_name(y->feature_map), tg_feature_count(y));
        else
            tg_table_row(&table, "%zu|%s|%s|%zu|%zu|", l, was, y->mixer->name, y->window, y->sinks);
    }
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
