/* Tables on a terminal: columns as wide as their widest cell, numbers to the right. */
#ifndef TG_TOOLS_TABLE_H
#define TG_TOOLS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { TG_TABLE_COLUMNS = 12, TG_TABLE_CELL = 96 };
struct tg_table {
    size_t columns, rows, cap;
    char (*cells)[TG_TABLE_COLUMNS][TG_TABLE_CELL]; /* owned */
    bool failed;                                    /* out of memory: printing says so */
};

/* Heads separated by '|': "layer|mixer|window" */
void tg_table_init(struct tg_table *t, const char *heads);
/* A row, cells separated by '|' after formatting */
void tg_table_row(struct tg_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tg_table_print(const struct tg_table *t, FILE *to, bool color);
void tg_table_release(struct tg_table *t);

/* "1.6 MiB", "768 B" into buf */
const char *tg_bytes_text(double bytes, char *buf, size_t size);
/* A result for people: 4 significant digits, "-" for NaN */
const char *tg_number_text(double value, char *buf, size_t size);

#endif
