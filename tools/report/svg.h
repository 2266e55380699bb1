/* Charts as SVG: lines inside a page of HTML, labelled marks as a file of their own. */
#ifndef TG_TOOLS_SVG_H
#define TG_TOOLS_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"

enum { TG_CHART_SERIES = 64 };
struct tg_chart {
    const char *title, *x_label, *y_label;
    bool log_x, log_y;
    bool marks; /* a mark for each point, with the name of its series beside it, and no lines */
    struct {
        const char *name;
        const double *x, *y; /* borrowed; points that are not finite, or not positive on a log axis,
                                are left out */
        size_t count;
    } series[TG_CHART_SERIES];
    size_t series_count;
};
void tg_svg_chart(struct tg_strbuf *out, const struct tg_chart *c);
/* Charts two to a row as one SVG file */
void tg_svg_page(struct tg_strbuf *out, const struct tg_chart *charts, size_t count);
/* Text with the five characters escaped that HTML and SVG give a meaning */
void tg_html_text(struct tg_strbuf *out, const char *text);

#endif
