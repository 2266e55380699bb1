#include "tools/table.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/mem.h"

static void add_row(struct tg_table *t, const char *text)
{
    if (!tg_grow(&t->cells, &t->cap, t->rows + 1, sizeof *t->cells)) {
        t->failed = true;
        return;
    }
    memset(t->cells[t->rows], 0, sizeof t->cells[t->rows]);
    size_t column = 0;
    for (;; text++) {
        size_t n = strcspn(text, "|");
        if (column < TG_TABLE_COLUMNS)
            snprintf(t->cells[t->rows][column++], TG_TABLE_CELL, "%.*s", (int)n, text);
        text += n;
        if (!*text)
            break;
    }
    if (column > t->columns)
        t->columns = column;
    t->rows++;
}

void tg_table_init(struct tg_table *t, const char *heads)
{
    memset(t, 0, sizeof *t);
    add_row(t, heads);
}

void tg_table_row(struct tg_table *t, const char *fmt, ...)
{
    char text[TG_TABLE_COLUMNS * TG_TABLE_CELL];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    add_row(t, text);
}

/* Cells are UTF-8; none of the program's own has wide characters. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static bool is_number(const char *s)
{
    return isdigit((unsigned char)*s) || *s == '-' || *s == '+' || *s == '.' || !*s;
}

void tg_table_print(const struct tg_table *t, FILE *to, bool color)
{
    if (t->failed) {
        fputs("(no memory for the table)\n", to);
        return;
    }
    size_t widest[TG_TABLE_COLUMNS] = {0};
    bool right[TG_TABLE_COLUMNS]; /* numbers, but for the first column */
    for (size_t c = 0; c < t->columns; c++) {
        right[c] = c > 0 && t->rows > 1;
        for (size_t r = 0; r < t->rows; r++) {
            size_t w = width(t->cells[r][c]);
            widest[c] = w > widest[c] ? w : widest[c];
            right[c] = right[c] && (r == 0 || is_number(t->cells[r][c]));
        }
    }
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->columns; c++) {
            const char *cell = t->cells[r][c];
            int gap = (int)(widest[c] - width(cell));
            bool bold = color && r == 0;
            fputs(c ? "  " : "", to);
            if (right[c])
                fprintf(to, "%*s", gap, "");
            fprintf(to, "%s%s%s", bold ? "\033[1m" : "", cell, bold ? "\033[0m" : "");
            if (!right[c] && c + 1 < t->columns)
                fprintf(to, "%*s", gap, "");
        }
        fputc('\n', to);
    }
}

void tg_table_release(struct tg_table *t)
{
    tg_free(t->cells);
    memset(t, 0, sizeof *t);
}

const char *tg_bytes_text(double bytes, char *buf, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (bytes >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        u++;
    }
    if (u == 0 || bytes == floor(bytes))
        snprintf(buf, size, "%.0f %s", bytes, units[u]);
    else
        snprintf(buf, size, "%.1f %s", bytes, units[u]);
    return buf;
}

const char *tg_number_text(double value, char *buf, size_t size)
{
    if (isnan(value))
        snprintf(buf, size, "-");
    else if (fabs(value) >= 1000)
        snprintf(buf, size, "%.1f", value);
    else
        snprintf(buf, size, "%.4g", value);
    return buf;
}
