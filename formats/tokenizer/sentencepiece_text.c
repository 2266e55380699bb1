/* What SentencePiece does to a text before it is cut, and to pieces when they become text. */
#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/charsmap.h"
#include "formats/tokenizer/sentencepiece.h"

static const char MARK[] = "\xE2\x96\x81"; /* stands for a space */
enum { MARK_LEN = 3 };

/* ---- normalizer ---- */

/* What the beginning of text[0..len) becomes: a user-defined piece stays, then the longest rule of
 * the map counts, any other character stays. Returns the length of the beginning. */
static size_t next_part(const struct tg_normalizer *n, const char *text, size_t len,
                        const char **to, size_t *to_len)
{
    int32_t value;
    size_t used = tg_trie_longest(&n->spec->user, text, len, &value);
    if (used == 0 && n->map && (used = tg_charsmap_match(n->map, text, len, true, to, to_len)))
        return used;
    if (used == 0)
        tg_char_at(text, &used);
    *to = text;
    *to_len = used;
    return used;
}

static bool add_part(const struct tg_sentencepiece_spec *s, struct tg_text *out, const char *part,
                     size_t len)
{
    bool ok = true;
    for (size_t i = 0, n; i < len && ok; i += n) {
        const char *space = memchr(part + i, ' ', len - i);
        n = space ? (size_t)(space - part) - i : len - i;
        ok = tg_text_add(out, part + i, n);
        if (space && ok) {
            ok =
                s->escape_whitespaces ? tg_text_add(out, MARK, MARK_LEN) : tg_text_add(out, " ", 1);
            n++;
        }
    }
    return ok;
}

static bool add_space(const struct tg_sentencepiece_spec *s, struct tg_text *out)
{
    return add_part(s, out, " ", 1);
}

static void drop_spaces_at_end(const struct tg_sentencepiece_spec *s, struct tg_text *out,
                               size_t from)
{
    const char *space = s->escape_whitespaces ? MARK : " ";
    size_t n = strlen(space);
    while (out->len - from >= n && memcmp(out->data + out->len - n, space, n) == 0)
        out->len -= n;
}

int tg_sentencepiece_normalize(const struct tg_normalizer *n, struct tg_normal_work *w)
{
    const struct tg_sentencepiece_spec *s = n->spec;
    const char *text = w->text, *part;
    size_t len = w->len, at = 0, from = w->out->len, part_len, used;
    bool after_space = s->remove_extra_whitespaces, ok = true;
    w->origin = 0;
    while (s->remove_extra_whitespaces && at < len) {
        used = next_part(n, text + at, len - at, &part, &part_len);
        if (part_len != 1 || *part != ' ')
            break;
        at += used;
    }
    if (at == len)
        return TG_OK;
    if (s->add_dummy_prefix && !s->whitespace_as_suffix)
        ok = add_space(s, w->out);
    for (; at < len && ok; at += used) {
        used = next_part(n, text + at, len - at, &part, &part_len);
        while (after_space && part_len && *part == ' ')
            part++, part_len--;
        if (part_len) {
            ok = add_part(s, w->out, part, part_len);
            after_space = s->remove_extra_whitespaces && part[part_len - 1] == ' ';
        }
    }
    if (s->remove_extra_whitespaces)
        drop_spaces_at_end(s, w->out, from);
    if (ok && s->add_dummy_prefix && s->whitespace_as_suffix)
        ok = add_space(s, w->out);
    return ok ? TG_OK : tg_fail(w->err, TG_ERR_NOMEM, "%s: out of memory", w->t->name);
}

/* ---- decoder ---- */

struct decoding {
    const struct tg_tokenizer *t;
    const struct tg_sentencepiece_spec *s;
    struct tg_text out, bytes;
    bool at_begin, dropped; /* no text yet; the last piece lost its mark */
};

/* Bytes that wait become text; each that belongs to no character becomes U+FFFD. */
static bool flush_bytes(struct decoding *d)
{
    bool ok = true;
    for (size_t i = 0, n; i < d->bytes.len && ok; i += n) {
        n = tg_char_length(d->bytes.data + i, d->bytes.len - i);
        ok = n ? tg_text_add(&d->out, d->bytes.data + i, n)
               : tg_text_add(&d->out, "\xEF\xBF\xBD", 3);
        n += n == 0;
    }
    d->bytes.len = 0;
    return ok;
}

static bool add_piece(struct decoding *d, const char *piece, size_t len)
{
    const struct tg_sentencepiece_spec *s = d->s;
    bool ok = true, strips = s->add_dummy_prefix || s->remove_extra_whitespaces;
    if (d->at_begin && strips && len >= MARK_LEN && memcmp(piece, MARK, MARK_LEN) == 0) {
        piece += MARK_LEN;
        len -= MARK_LEN;
        d->dropped = !s->remove_extra_whitespaces;
    }
    for (size_t i = 0, n; i < len && ok; i += n) {
        bool mark = len - i >= MARK_LEN && memcmp(piece + i, MARK, MARK_LEN) == 0;
        n = mark ? MARK_LEN : 1;
        ok = mark ? tg_text_add(&d->out, " ", 1) : tg_text_add(&d->out, piece + i, 1);
    }
    return ok;
}

static bool decode_piece(struct decoding *d, const char *piece, size_t len)
{
    int32_t id = tg_strmap_find(&d->t->by_name, d->t->pool.data, piece, len);
    int type = id < 0 ? TG_PIECE_NORMAL : d->s->types[id];
    if (type == TG_PIECE_BYTE) {
        int byte = tg_byte_of_token(piece, len);
        return tg_text_add(&d->bytes, (char[]){(char)byte}, 1);
    }
    if (!flush_bytes(d))
        return false;
    d->at_begin = d->at_begin && !d->dropped && d->out.len == 0;
    d->dropped = false;
    if (type == TG_PIECE_CONTROL)
        return tg_text_add(&d->out, piece, len);
    if (type == TG_PIECE_UNKNOWN)
        return tg_text_add(&d->out, d->s->unk_surface.data, d->s->unk_surface.len);
    return add_piece(d, piece, len);
}

int tg_sentencepiece_decode(const struct tg_tokenizer *t, const struct tg_decoder *how,
                            struct tg_pieces *p, struct tg_err *err)
{
    struct decoding d = {.t = t, .s = how->spec, .at_begin = true};
    struct tg_pieces out = {0};
    size_t from = 0;
    bool ok = true;
    for (size_t i = 0; i < p->count && ok; from = p->ends[i++])
        ok = decode_piece(&d, p->text.data + from, p->ends[i] - from);
    ok = ok && flush_bytes(&d) && tg_pieces_add(&out, d.out.data, d.out.len);
    tg_text_release(&d.out);
    tg_text_release(&d.bytes);
    if (!ok) {
        tg_pieces_release(&out);
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    }
    tg_pieces_release(p);
    *p = out;
    return TG_OK;
}
