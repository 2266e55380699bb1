/* Line charts as inline SVG. */
#ifndef TG_TOOLS_SVG_H
#define TG_TOOLS_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"

enum { TG_CHART_SERIES = 8 };
struct tg_chart {
    const char *title, *x_label, *y_label;
    bool log_x, log_y;
    struct {
        const char *name;
        const double *x, *y; /* borrowed; points that are not finite, or not positive on a log axis,
                                are left out */
        size_t count;
    } series[TG_CHART_SERIES];
    size_t series_count;
};
void tg_svg_chart(struct tg_strbuf *out, const struct tg_chart *c);
/* Text with the five characters escaped that HTML and SVG give a meaning */
void tg_html_text(struct tg_strbuf *out, const char *text);

#endif
