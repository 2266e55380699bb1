/* The picture of a sweep: what language and recall cost in constant state, and at which ratio. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/report/svg.h"
#include "tools/sweep.h"

enum { PANELS = 4 };
/* Points of one mixer, or of one untrained window */
struct group {
    char name[112];
    double *x[2], *y[2]; /* [count] each: state and ratio; KL and recall */
    size_t count;
};

static double state_of(const struct tg_sweep_row *row)
{
    return tg_results_get(&row->results, "state_bytes");
}

/* Changed layers to one that is kept; a model that keeps none has no place on this axis, which
 * ends at as many as it has layers. */
static double ratio_of(const struct tg_sweep_row *row)
{
    double changed = (double)(row->layers - row->kept);
    return row->kept ? changed / (double)row->kept : (double)row->layers;
}

static void name_of(const struct tg_sweep_row *row, char *buf, size_t size)
{
    snprintf(buf, size, "%s%s", row->mixer, row->trained ? "" : ", untrained");
}

/* The teacher changes nothing and holds no state: it has no mark. */
static bool has_mark(const struct tg_sweep_row *row)
{
    return row->kept < row->layers;
}

static struct group *group_of(struct group *groups, size_t *count, const struct tg_sweep_row *row)
{
    char name[sizeof groups->name];
    name_of(row, name, sizeof name);
    for (size_t i = 0; i < *count; i++)
        if (strcmp(groups[i].name, name) == 0)
            return &groups[i];
    if (*count == TG_CHART_SERIES)
        return NULL;
    snprintf(groups[*count].name, sizeof name, "%s", name);
    return &groups[(*count)++];
}

static int gather(const struct tg_sweep *s, struct group *groups, size_t *count, double *room,
                  struct tg_err *err)
{
    for (size_t i = 0; i < s->count; i++) {
        struct group *g = has_mark(&s->rows[i]) ? group_of(groups, count, &s->rows[i]) : NULL;
        if (g)
            g->count++;
        else if (has_mark(&s->rows[i]))
            return tg_fail(err, TG_ERR_VALUE, "the picture has no room for more than %d mixers",
                           TG_CHART_SERIES);
    }
    for (size_t k = 0; k < *count; k++) {
        for (size_t a = 0; a < 2; a++) {
            groups[k].x[a] = room;
            groups[k].y[a] = room + groups[k].count;
            room += 2 * groups[k].count;
        }
        groups[k].count = 0;
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct tg_sweep_row *row = &s->rows[i];
        struct group *g = has_mark(row) ? group_of(groups, count, row) : NULL;
        if (!g)
            continue;
        g->x[0][g->count] = state_of(row);
        g->x[1][g->count] = ratio_of(row);
        g->y[0][g->count] = tg_results_get(&row->results, "kl");
        g->y[1][g->count++] = tg_sweep_recall(row, NULL);
    }
    return TG_OK;
}

static void draw(struct tg_strbuf *out, const struct group *groups, size_t count)
{
    static const char *const titles[PANELS] = {
        "KL to the teacher against state", "recall against state",
        "KL to the teacher against the ratio", "recall against the ratio"};
    static const char *const x_labels[2] = {"constant state, bytes", "changed layers to one kept"};
    static const char *const y_labels[2] = {"KL, nats", "share of right answers"};
    struct tg_chart charts[PANELS];
    memset(charts, 0, sizeof charts);
    for (size_t p = 0; p < PANELS; p++) {
        struct tg_chart *c = &charts[p];
        c->title = titles[p];
        c->x_label = x_labels[p / 2];
        c->y_label = y_labels[p % 2];
        c->log_x = c->marks = true;
        c->series_count = count;
        for (size_t k = 0; k < count; k++) {
            c->series[k].name = groups[k].name;
            c->series[k].x = groups[k].x[p / 2];
            c->series[k].y = groups[k].y[p % 2];
            c->series[k].count = groups[k].count;
        }
    }
    tg_svg_page(out, charts, PANELS);
}

int tg_sweep_save_svg(const struct tg_sweep *s, const char *path, struct tg_err *err)
{
    struct group *groups = tg_alloc_array(TG_CHART_SERIES, sizeof *groups);
    double *room = tg_alloc_array(4 * s->count + 1, sizeof *room);
    struct tg_strbuf out;
    size_t count = 0;
    tg_strbuf_init(&out, 1 << 26);
    int status = groups && room ? gather(s, groups, &count, room, err)
                                : tg_fail(err, TG_ERR_NOMEM, "%s: no memory for it", path);
    if (status == TG_OK)
        draw(&out, groups, count);
    if (status == TG_OK)
        status = out.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory for it", path)
                            : tg_file_write(path, out.text, out.len, err);
    tg_strbuf_release(&out);
    tg_free(room);
    tg_free(groups);
    return status;
}
