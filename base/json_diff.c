/* Comparing parsed JSON, part of json.h. */
#include "base/json.h"

#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"

static bool equal_leaf(struct tg_json a, struct tg_json b)
{
    if (!tg_json_has(a) || !tg_json_has(b))
        return !tg_json_has(a) && !tg_json_has(b) && !a.node == !b.node;
    if (tg_json_is_number(a) && tg_json_is_number(b))
        return tg_json_number(a) == tg_json_number(b);
    if (tg_json_is_string(a) && tg_json_is_string(b))
        return strcmp(tg_json_string(a), tg_json_string(b)) == 0;
    return tg_json_is_bool(a) && tg_json_is_bool(b) && tg_json_bool(a) == tg_json_bool(b);
}

static bool equal_objects(struct tg_json a, struct tg_json b, struct tg_json *at_a,
                          struct tg_json *at_b)
{
    for (struct tg_json x = tg_json_first(a); x.node; x = tg_json_next(x))
        if (!tg_json_equal(x, tg_json_key(b, tg_json_name(x)), at_a, at_b))
            return false;
    for (struct tg_json y = tg_json_first(b); y.node; y = tg_json_next(y)) {
        *at_a = tg_json_key(a, tg_json_name(y));
        *at_b = y;
        if (!at_a->node)
            return false;
    }
    return true;
}

bool tg_json_equal(struct tg_json a, struct tg_json b, struct tg_json *at_a, struct tg_json *at_b)
{
    *at_a = a;
    *at_b = b;
    if (tg_json_is_object(a) && tg_json_is_object(b))
        return equal_objects(a, b, at_a, at_b);
    if (!tg_json_is_array(a) || !tg_json_is_array(b))
        return equal_leaf(a, b);
    struct tg_json x = tg_json_first(a), y = tg_json_first(b);
    for (; x.node || y.node; x = tg_json_next(x), y = tg_json_next(y))
        if (!tg_json_equal(x, y, at_a, at_b))
            return false;
    return true;
}

const char *tg_json_text(struct tg_json v, char *buf, size_t size)
{
    struct tg_strbuf s;
    struct tg_json_out out;
    if (!v.node) {
        snprintf(buf, size, "absent");
        return buf;
    }
    tg_strbuf_init(&s, (size_t)1 << 24);
    tg_jout_init(&out, &s, 0);
    tg_jout_copy(&out, NULL, v);
    snprintf(buf, size, "%s", s.text ? s.text : "?");
    tg_strbuf_release(&s);
    return buf;
}
