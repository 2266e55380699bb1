#include "tools/rank_view.h"

#include <stdio.h>

#include "tools/table.h"

void tg_rank_print(const struct tg_tool *t, const struct tg_rank *r)
{
    struct tg_table table;
    printf("each layer alone with a window of %zu\n", r->window);
    tg_table_init(&table, "layer|kl|recall lost");
    for (size_t i = 0; i < r->count; i++)
        tg_table_row(&table, "%zu|%.4f|%.3f", r->rows[i].layer, r->rows[i].kl,
                     r->rows[i].recall_lost);
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    if (!r->pairs)
        return;
    printf("\ntwo layers kept, all others with the window\n");
    tg_table_init(&table, "kept|kl|recall lost");
    for (size_t i = 0; i < r->pairs; i++)
        tg_table_row(&table, "%zu,%zu|%.4f|%.3f", r->pair_a[i], r->pair_b[i], r->pair_kl[i],
                     r->pair_recall_lost[i]);
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}

int tg_rank_print_json(const struct tg_rank *r, struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_jout_int(out, "window", (int64_t)r->window);
    tg_jout_array(out, "layers");
    for (size_t i = 0; i < r->count; i++) {
        tg_jout_object(out, NULL);
        tg_jout_int(out, "layer", (int64_t)r->rows[i].layer);
        tg_jout_num(out, "kl", r->rows[i].kl);
        tg_jout_num(out, "recall_lost", r->rows[i].recall_lost);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
    tg_jout_array(out, "pairs");
    for (size_t i = 0; i < r->pairs; i++) {
        tg_jout_object(out, NULL);
        tg_jout_int(out, "a", (int64_t)r->pair_a[i]);
        tg_jout_int(out, "b", (int64_t)r->pair_b[i]);
        tg_jout_num(out, "kl", r->pair_kl[i]);
        tg_jout_num(out, "recall_lost", r->pair_recall_lost[i]);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
    return tg_print_json_end(&doc, err);
}
