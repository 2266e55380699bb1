#include "tools/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 300, LEFT = 64, RIGHT = 16, TOP = 34, BOTTOM = 44 };

enum { COLORS = 8, MARKS = 256 };
static const char *const colors[COLORS] = {"#2563eb", "#ea580c", "#059669", "#9333ea",
                                           "#dc2626", "#0891b2", "#ca8a04", "#475569"};

struct axis {
    double lo, hi; /* of the transformed value */
    bool log;
};

static double transform(double v, bool log)
{
    return log ? (v > 0 ? log10(v) : NAN) : v;
}

static struct axis axis_over(const struct tg_chart *c, bool is_x)
{
    struct axis a = {INFINITY, -INFINITY, is_x ? c->log_x : c->log_y};
    for (size_t s = 0; s < c->series_count; s++)
        for (size_t i = 0; i < c->series[s].count; i++) {
            double v = transform((is_x ? c->series[s].x : c->series[s].y)[i], a.log);
            if (isfinite(v)) {
                a.lo = fmin(a.lo, v);
                a.hi = fmax(a.hi, v);
            }
        }
    if (!(a.lo <= a.hi)) {
        a.lo = 0;
        a.hi = 1;
    }
    if (!is_x && !a.log && a.lo > 0)
        a.lo = 0;
    if (a.hi - a.lo < 1e-12)
        a.hi = a.lo + 1;
    return a;
}

static double place(const struct axis *a, double v, double from, double to)
{
    return from + (transform(v, a->log) - a->lo) / (a->hi - a->lo) * (to - from);
}

/* The step among 1, 2, 5 x 10^n that gives about `wanted` ticks */
static double tick_step(double range, int wanted)
{
    double raw = range / wanted, power = pow(10, floor(log10(raw))), rest = raw / power;
    return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

static void one_tick(struct tg_strbuf *out, const struct axis *a, bool is_x, double at,
                     const char *text)
{
    double share = (at - a->lo) / (a->hi - a->lo);
    if (share < -1e-9 || share > 1 + 1e-9)
        return;
    if (is_x) {
        double x = LEFT + share * (WIDTH - LEFT - RIGHT);
        tg_strbuf_printf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"grid\"/>",
                         x, TOP, x, HEIGHT - BOTTOM);
        tg_strbuf_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x,
                         HEIGHT - BOTTOM + 16, text);
    } else {
        double y = HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
        tg_strbuf_printf(out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"grid\"/>",
                         LEFT, y, WIDTH - RIGHT, y);
        tg_strbuf_printf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 6,
                         y + 4, text);
    }
}

static void tick_text(double v, char *buf, size_t size)
{
    double a = fabs(v);
    if (a >= 1e6)
        snprintf(buf, size, "%gM", v / 1e6);
    else if (a >= 1e4)
        snprintf(buf, size, "%gk", v / 1e3);
    else
        snprintf(buf, size, "%g", v);
}

static void ticks(struct tg_strbuf *out, const struct axis *a, bool is_x)
{
    char text[32];
    if (a->log) {
        bool few = a->hi - a->lo < 2;
        static const double parts[] = {1, 2, 5};
        for (int e = (int)floor(a->lo); e <= (int)ceil(a->hi); e++)
            for (size_t p = 0; p < (few ? 3 : 1); p++) {
                double v = parts[p] * pow(10, e);
                tick_text(v, text, sizeof text);
                one_tick(out, a, is_x, log10(v), text);
            }
        return;
    }
    double step = tick_step(a->hi - a->lo, is_x ? 7 : 5);
    for (double v = ceil(a->lo / step) * step; v <= a->hi + step * 1e-6; v += step) {
        double shown = fabs(v) < step * 1e-6 ? 0 : v;
        tick_text(shown, text, sizeof text);
        one_tick(out, a, is_x, shown, text);
    }
}

void tg_html_text(struct tg_strbuf *out, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '&'    ? "&amp;"
                             : *text == '<'  ? "&lt;"
                             : *text == '>'  ? "&gt;"
                             : *text == '"'  ? "&quot;"
                             : *text == '\'' ? "&#39;"
                                             : NULL;
        if (entity)
            tg_strbuf_puts(out, entity);
        else
            tg_strbuf_add(out, text, 1);
    }
}

static void one_series(struct tg_strbuf *out, const struct tg_chart *c, size_t s,
                       const struct axis *x, const struct axis *y)
{
    bool open = false;
    for (size_t i = 0; i < c->series[s].count; i++) {
        double px = place(x, c->series[s].x[i], LEFT, WIDTH - RIGHT);
        double py = place(y, c->series[s].y[i], HEIGHT - BOTTOM, TOP);
        if (!isfinite(px) || !isfinite(py))
            continue;
        if (!open)
            tg_strbuf_printf(out,
                             "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" points=\"",
                             colors[s % COLORS]);
        open = true;
        tg_strbuf_printf(out, "%.1f,%.1f ", px, py);
    }
    tg_strbuf_puts(out, open ? "\"/>\n" : "");
    /* the legend stands above the plot, where no line can cross it */
    double lx = LEFT + 150 * (double)(s % 4), ly = 12 + 14 * (double)(s / 4);
    tg_strbuf_printf(out, "<rect x=\"%.0f\" y=\"%.0f\" width=\"14\" height=\"3\" fill=\"%s\"/>", lx,
                     ly - 5, colors[s % COLORS]);
    tg_strbuf_printf(out, "<text x=\"%.0f\" y=\"%.0f\">", lx + 20, ly);
    tg_html_text(out, c->series[s].name);
    tg_strbuf_puts(out, "</text>\n");
}

/* Where a label may stand that was not yet taken: [x, x + w] by [y - 10, y] */
struct labels {
    struct {
        double x, y, w;
    } taken[2 * MARKS];
    size_t count;
};

static bool is_free(const struct labels *l, double x, double y, double w)
{
    if (x < LEFT || x + w > WIDTH || y < TOP + 8 || y > HEIGHT - BOTTOM + 4)
        return false;
    for (size_t i = 0; i < l->count; i++)
        if (x < l->taken[i].x + l->taken[i].w && x + w > l->taken[i].x &&
            fabs(y - l->taken[i].y) < 11)
            return false;
    return true;
}

static void take(struct labels *l, double x, double y, double w)
{
    if (l->count == sizeof l->taken / sizeof l->taken[0])
        return;
    l->taken[l->count].x = x;
    l->taken[l->count].y = y;
    l->taken[l->count++].w = w;
}

/* A label beside its mark, at the first place of a few that is free; at the first if none is. */
static void one_label(struct tg_strbuf *out, struct labels *l, double px, double py,
                      const char *name)
{
    enum { RINGS = 6 };
    const double w = 5.6 * (double)strlen(name);
    double x = px + 7, y = py + 4;
    for (int ring = 0; ring < RINGS; ring++)
        for (int place = 0; place < 4; place++) {
            double at_x = place % 2 ? px - 7 - w : px + 7;
            double at_y = py + 4 + (place < 2 ? -1 : 1) * 11 * ring;
            if (!is_free(l, at_x, at_y, w))
                continue;
            x = at_x;
            y = at_y;
            place = 4;
            ring = RINGS;
        }
    take(l, x, y, w);
    tg_strbuf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"mark\">", x, y);
    tg_html_text(out, name);
    tg_strbuf_puts(out, "</text>\n");
}

/* All marks first: no label stands on one. */
static void all_marks(struct tg_strbuf *out, const struct tg_chart *c, const struct axis *x,
                      const struct axis *y)
{
    struct labels labels = {.count = 0};
    for (size_t pass = 0; pass < 2; pass++)
        for (size_t s = 0; s < c->series_count; s++)
            for (size_t i = 0; i < c->series[s].count; i++) {
                double px = place(x, c->series[s].x[i], LEFT, WIDTH - RIGHT);
                double py = place(y, c->series[s].y[i], HEIGHT - BOTTOM, TOP);
                if (!isfinite(px) || !isfinite(py))
                    continue;
                if (pass)
                    one_label(out, &labels, px, py, c->series[s].name);
                else
                    tg_strbuf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n",
                                     px, py, colors[s % COLORS]);
                if (!pass)
                    take(&labels, px - 4, py + 4, 8);
            }
}

/* Everything but the frame it stands in */
static void body(struct tg_strbuf *out, const struct tg_chart *c)
{
    struct axis x = axis_over(c, true), y = axis_over(c, false);
    ticks(out, &x, true);
    ticks(out, &y, false);
    if (c->marks)
        all_marks(out, c, &x, &y);
    for (size_t s = 0; s < c->series_count && !c->marks; s++)
        one_series(out, c, s, &x, &y);
    tg_strbuf_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">",
                     LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8);
    tg_html_text(out, c->x_label);
    tg_strbuf_printf(
        out, "</text><text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\">",
        TOP + (HEIGHT - TOP - BOTTOM) / 2);
    tg_html_text(out, c->y_label);
    tg_strbuf_puts(out, "</text>\n");
}

void tg_svg_chart(struct tg_strbuf *out, const struct tg_chart *c)
{
    tg_strbuf_printf(out, "<figure><figcaption>");
    tg_html_text(out, c->title);
    tg_strbuf_printf(out, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH,
                     HEIGHT);
    body(out, c);
    tg_strbuf_puts(out, "</svg></figure>\n");
}

void tg_svg_page(struct tg_strbuf *out, const struct tg_chart *charts, size_t count)
{
    size_t rows = (count + 1) / 2;
    tg_strbuf_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %zu\" role=\"img\">\n"
        "<style>text{font:11px sans-serif;fill:#334155}.title{font-weight:bold}"
        ".mark{font-size:10px}.grid{stroke:#e2e8f0}</style>\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        2 * WIDTH, rows * HEIGHT);
    for (size_t i = 0; i < count; i++) {
        tg_strbuf_printf(
            out, "<g transform=\"translate(%zu %zu)\"><text x=\"%d\" y=\"20\" class=\"title\">",
            i % 2 * WIDTH, i / 2 * HEIGHT, LEFT);
        tg_html_text(out, charts[i].title);
        tg_strbuf_puts(out, "</text>\n");
        body(out, &charts[i]);
        tg_strbuf_puts(out, "</g>\n");
    }
    tg_strbuf_puts(out, "</svg>\n");
}
