/* tokenizer.model of SentencePiece: a protobuf ModelProto, of which the fields that say how text is
 * cut are read (sentencepiece_model.proto); ids as SentencePiece 0.2.3 gives them. */
#include "formats/tokenizer/sentencepiece.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/cursor.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/char_bpe.h"
#include "formats/tokenizer/charsmap.h"
#include "formats/tokenizer/unigram.h"

enum { UNIGRAM = 1, BPE, WORD, CHARACTER };
enum { MAX_PIECE = 8000 }; /* SentencePiece refuses pieces of that many bytes */

static const char UNK_SURFACE[] = " \xE2\x81\x87 ";

struct model {
    struct tg_tokenizer *t;
    struct tg_err *err;
    struct tg_sentencepiece_spec *spec; /* owned by the normalizer once it is made */
    uint8_t *roles;                     /* owned */
    size_t count, scores_cap, types_cap;
    int type;
    bool byte_fallback, denormalizes;
    struct tg_charsmap *map; /* owned by the normalizer once it is made */
    const char *bos, *eos;   /* borrowed from the file */
    size_t bos_len, eos_len;
    int32_t unk;
};

/* ---- protobuf ---- */

struct field {
    uint64_t number, value; /* value: varint, or 4 or 8 bytes, little endian */
    unsigned wire;
    const char *bytes;
    size_t len;
};

static uint64_t varint(struct tg_cursor *c)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = tg_cursor_u8(c);
        v |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80))
            return v;
    }
    c->failed = true;
    return 0;
}

/* 1: a field, 0: the end, negative: broken. */
static int next_field(const struct model *m, struct tg_cursor *c, struct field *f)
{
    *f = (struct field){0};
    if (c->at == c->len && !c->failed)
        return 0;
    size_t at = c->at;
    uint64_t key = varint(c);
    f->number = key >> 3;
    f->wire = key & 7;
    if (f->wire == 0)
        f->value = varint(c);
    else if (f->wire == 1)
        f->value = tg_cursor_u64(c);
    else if (f->wire == 5)
        f->value = tg_cursor_u32(c);
    else if (f->wire == 2) {
        uint64_t n = varint(c);
        f->bytes = n <= c->len ? (const char *)tg_cursor_bytes(c, (size_t)n) : NULL;
        f->len = (size_t)n;
    }
    bool known = f->wire == 0 || f->wire == 1 || f->wire == 5 || (f->wire == 2 && f->bytes);
    if (c->failed || !known || f->number == 0)
        return tg_fail(m->err, TG_ERR_FORMAT,
                       "%s: not a SentencePiece model: no field of a message at byte %zu of %zu",
                       m->t->name, at, c->len);
    return 1;
}

/* Field number `number` must have wire type `wire`. */
static int expect(const struct model *m, const struct field *f, unsigned wire, const char *name)
{
    return f->wire == wire ? TG_OK
                           : tg_fail(m->err, TG_ERR_FORMAT, "%s: %s has wire type %u instead of %u",
                                     m->t->name, name, f->wire, wire);
}

/* ---- messages ---- */

static int check_piece(const struct model *m, const struct field *text, float score, uint64_t type)
{
    const char *s = text->bytes;
    if (!s || text->len == 0 || text->len >= MAX_PIECE)
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: piece %zu has %zu bytes, not 1 to %d",
                       m->t->name, m->count, text->len, MAX_PIECE - 1);
    if (memchr(s, 0, text->len) || tg_utf8_check(s, text->len) < text->len)
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: piece %zu is not UTF-8 without NUL", m->t->name,
                       m->count);
    if (type < TG_PIECE_NORMAL || type > TG_PIECE_BYTE)
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: piece '%.*s' has type %llu, not 1 to 6",
                       m->t->name, (int)(text->len < 200 ? text->len : 200), s,
                       (unsigned long long)type);
    if (!isfinite(score))
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: the score of piece '%.*s' is not finite",
                       m->t->name, (int)(text->len < 200 ? text->len : 200), s);
    return TG_OK;
}

static int add_piece(struct model *m, const struct field *text, float score, uint64_t type)
{
    struct tg_tokenizer *t = m->t;
    /* "\0" that is unused holds a place. */
    bool hole = type == TG_PIECE_UNUSED && text->len == 1 && *text->bytes == 0;
    int rc = hole ? TG_OK : check_piece(m, text, score, type);
    if (rc != TG_OK)
        return rc;
    if (m->count == TG_MAX_ID)
        return tg_fail(m->err, TG_ERR_UNSUPPORTED, "%s: more than %d pieces", t->name, TG_MAX_ID);
    if (!tg_grow(&m->spec->scores, &m->scores_cap, m->count + 1, sizeof *m->spec->scores) ||
        !tg_grow(&m->spec->types, &m->types_cap, m->count + 1, 1))
        return tg_fail(m->err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    m->spec->scores[m->count] = score;
    m->spec->types[m->count] = hole ? 0 : (uint8_t)type;
    size_t id = m->count++;
    if (hole)
        return TG_OK;
    rc = tg_token_add(t, text->bytes, text->len, (int64_t)id, m->err);
    if (rc == TG_OK)
        t->tokens[id].special = type == TG_PIECE_CONTROL;
    return rc;
}

static int read_piece(struct model *m, struct field message)
{
    struct tg_cursor c = tg_cursor_over(message.bytes, message.len);
    struct field f, text = {0};
    float score = 0;
    uint64_t type = TG_PIECE_NORMAL;
    int rc = TG_OK, more = 1;
    while (rc == TG_OK && (more = next_field(m, &c, &f)) == 1) {
        uint32_t bits = (uint32_t)f.value;
        if (f.number == 1 && (rc = expect(m, &f, 2, "a piece's text")) == TG_OK)
            text = f;
        else if (f.number == 2 && (rc = expect(m, &f, 5, "a piece's score")) == TG_OK)
            memcpy(&score, &bits, sizeof score);
        else if (f.number == 3 && (rc = expect(m, &f, 0, "a piece's type")) == TG_OK)
            type = f.value;
    }
    if (rc != TG_OK || more < 0)
        return rc != TG_OK ? rc : more;
    if (!text.bytes)
        return check_piece(m, &text, score, type);
    return add_piece(m, &text, score, type);
}

static int read_trainer(struct model *m, struct field message)
{
    struct tg_cursor c = tg_cursor_over(message.bytes, message.len);
    struct field f;
    int rc = TG_OK, more = 1;
    while (rc == TG_OK && (more = next_field(m, &c, &f)) == 1) {
        if (f.number == 3 && (rc = expect(m, &f, 0, "model_type")) == TG_OK)
            m->type = f.value <= CHARACTER ? (int)f.value : 0;
        else if (f.number == 24 && (rc = expect(m, &f, 0, "treat_whitespace_as_suffix")) == TG_OK)
            m->spec->whitespace_as_suffix = f.value != 0;
        else if (f.number == 35 && (rc = expect(m, &f, 0, "byte_fallback")) == TG_OK)
            m->byte_fallback = f.value != 0;
        else if (f.number == 46 && (rc = expect(m, &f, 2, "bos_piece")) == TG_OK)
            m->bos = f.bytes, m->bos_len = f.len;
        else if (f.number == 47 && (rc = expect(m, &f, 2, "eos_piece")) == TG_OK)
            m->eos = f.bytes, m->eos_len = f.len;
        else if (f.number == 44 && (rc = expect(m, &f, 2, "unk_surface")) == TG_OK) {
            m->spec->unk_surface.len = 0;
            if (tg_utf8_check(f.bytes, f.len) < f.len)
                rc = tg_fail(m->err, TG_ERR_FORMAT, "%s: unk_surface is not UTF-8", m->t->name);
            else if (!tg_text_add(&m->spec->unk_surface, f.bytes, f.len))
                rc = tg_fail(m->err, TG_ERR_NOMEM, "%s: out of memory", m->t->name);
        }
    }
    return rc != TG_OK ? rc : more;
}

static int read_normalizer(struct model *m, struct field message)
{
    struct tg_cursor c = tg_cursor_over(message.bytes, message.len);
    struct field f;
    int rc = TG_OK, more = 1;
    while (rc == TG_OK && (more = next_field(m, &c, &f)) == 1) {
        if (f.number == 2 && (rc = expect(m, &f, 2, "precompiled_charsmap")) == TG_OK) {
            tg_charsmap_free(m->map);
            m->map = NULL;
            if (f.len)
                rc = tg_charsmap_make(&m->map, (const uint8_t *)f.bytes, f.len, m->t->name, m->err);
        } else if (f.number == 3 && (rc = expect(m, &f, 0, "add_dummy_prefix")) == TG_OK)
            m->spec->add_dummy_prefix = f.value != 0;
        else if (f.number == 4 && (rc = expect(m, &f, 0, "remove_extra_whitespaces")) == TG_OK)
            m->spec->remove_extra_whitespaces = f.value != 0;
        else if (f.number == 5 && (rc = expect(m, &f, 0, "escape_whitespaces")) == TG_OK)
            m->spec->escape_whitespaces = f.value != 0;
    }
    return rc != TG_OK ? rc : more;
}

static int read_denormalizer(struct model *m, struct field message)
{
    struct tg_cursor c = tg_cursor_over(message.bytes, message.len);
    struct field f;
    int more;
    while ((more = next_field(m, &c, &f)) == 1)
        m->denormalizes = m->denormalizes || (f.number == 2 && f.wire == 2 && f.len);
    return more;
}

static int read_model(struct model *m, const void *bytes, size_t len)
{
    static const struct {
        uint64_t number;
        const char *name;
        int (*read)(struct model *, struct field);
    } known[] = {{1, "pieces", read_piece},
                 {2, "trainer_spec", read_trainer},
                 {3, "normalizer_spec", read_normalizer},
                 {5, "denormalizer_spec", read_denormalizer}};
    struct tg_cursor c = tg_cursor_over(bytes, len);
    struct field f;
    int rc = TG_OK, more = 1;
    while (rc == TG_OK && (more = next_field(m, &c, &f)) == 1)
        for (size_t i = 0; i < sizeof known / sizeof known[0] && rc == TG_OK; i++)
            if (f.number == known[i].number && (rc = expect(m, &f, 2, known[i].name)) == TG_OK)
                rc = known[i].read(m, f);
    return rc != TG_OK ? rc : more;
}

/* ---- the whole ---- */

/* Can two parts of the piece meet in a text and join to it? Parts are characters or pieces. */
static bool can_be_joined(const struct model *m, size_t id)
{
    const struct tg_tokenizer *t = m->t;
    const struct tg_token *k = &t->tokens[id];
    const char *s = t->pool.data + k->off;
    size_t first, n;
    tg_char_at(s, &first);
    for (size_t i = first; i < k->len; i += n) {
        size_t last;
        tg_char_at(s + i, &n);
        int32_t a = tg_strmap_find(&t->by_name, t->pool.data, s, i);
        int32_t b = tg_strmap_find(&t->by_name, t->pool.data, s + i, k->len - i);
        tg_char_at(s + i, &last);
        bool left = i == first || (a >= 0 && (m->spec->types[a] == TG_PIECE_NORMAL ||
                                              m->spec->types[a] == TG_PIECE_UNUSED));
        bool right = last == k->len - i || (b >= 0 && (m->spec->types[b] == TG_PIECE_NORMAL ||
                                                       m->spec->types[b] == TG_PIECE_UNUSED));
        if (left && right)
            return true;
    }
    return false;
}

static int check_types(struct model *m)
{
    const struct tg_tokenizer *t = m->t;
    size_t bytes = 0;
    for (size_t id = 0; id < m->count; id++) {
        int type = m->spec->types[id];
        const struct tg_token *k = type ? &t->tokens[id] : NULL;
        const char *s = k ? t->pool.data + k->off : "";
        int shown = k ? (int)(k->len < 200 ? k->len : 200) : 0;
        if (type == TG_PIECE_UNKNOWN && m->unk >= 0)
            return tg_fail(m->err, TG_ERR_FORMAT, "%s: pieces %d and %zu are both unknown", t->name,
                           (int)m->unk, id);
        if (type == TG_PIECE_UNKNOWN)
            m->unk = (int32_t)id;
        if (type == TG_PIECE_BYTE && tg_byte_of_token(s, k->len) < 0)
            return tg_fail(m->err, TG_ERR_FORMAT,
                           "%s: the byte piece '%.*s' is not <0x00> to "
                           "<0xFF>",
                           t->name, shown, s);
        bytes += type == TG_PIECE_BYTE;
        if (type == TG_PIECE_UNUSED && m->type == BPE && can_be_joined(m, id))
            return tg_fail(m->err, TG_ERR_UNSUPPORTED,
                           "%s: the unused piece '%.*s' of a BPE model is not supported", t->name,
                           shown, s);
    }
    if (bytes != (m->byte_fallback ? 256 : 0))
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: %zu byte pieces, but byte_fallback is %s",
                       t->name, bytes, m->byte_fallback ? "true" : "false");
    if (m->unk < 0 && !m->byte_fallback)
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: no piece is unknown", t->name);
    return TG_OK;
}

static int make_stages(struct model *m)
{
    struct tg_tokenizer *t = m->t;
    struct tg_normalizer *n = NULL;
    struct tg_decoder *d = NULL;
    int rc = tg_normalizer_new(t, &n, m->err);
    if (rc == TG_OK)
        rc = tg_decoder_new(t, &d, m->err);
    if (rc != TG_OK)
        return rc;
    n->run = tg_sentencepiece_normalize;
    n->spec = m->spec;
    n->map = m->map;
    d->run = tg_sentencepiece_decode;
    d->spec = m->spec;
    t->decodes = true;
    m->spec = NULL;
    m->map = NULL;
    return TG_OK;
}

static int index_user_pieces(struct model *m)
{
    struct tg_trie_key *keys = tg_alloc_array(m->count, sizeof *keys);
    size_t count = 0;
    bool ok = keys != NULL;
    for (size_t id = 0; id < m->count && ok; id++)
        if (m->spec->types[id] == TG_PIECE_USER)
            keys[count++] = (struct tg_trie_key){m->t->pool.data + m->t->tokens[id].off,
                                                 m->t->tokens[id].len, (int32_t)id};
    ok = ok && tg_trie_build(&m->spec->user, keys, count);
    tg_free(keys);
    return ok ? TG_OK : tg_fail(m->err, TG_ERR_NOMEM, "%s: out of memory", m->t->name);
}

static int32_t control_piece(const struct model *m, const char *s, size_t len, const char *usual)
{
    if (len == 0)
        s = usual, len = strlen(usual);
    int32_t id = tg_strmap_find(&m->t->by_name, m->t->pool.data, s, len);
    return id >= 0 && m->spec->types[id] == TG_PIECE_CONTROL ? id : -1;
}

static int make_model(struct model *m)
{
    struct tg_tokenizer *t = m->t;
    float min_score = FLT_MAX;
    m->roles = tg_alloc(m->count + 1);
    if (!m->roles)
        return tg_fail(m->err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (size_t id = 0; id < m->count; id++) {
        int type = m->spec->types[id];
        m->roles[id] = type == TG_PIECE_NORMAL ? TG_PIECE_MERGES
                       : type == TG_PIECE_USER ? TG_PIECE_WHOLE
                                               : TG_PIECE_APART;
        if (type == TG_PIECE_NORMAL && m->spec->scores[id] < min_score)
            min_score = m->spec->scores[id];
    }
    return m->type == BPE ? tg_char_bpe_from_scores(t, m->spec->scores, m->roles, m->byte_fallback,
                                                    m->unk, m->err)
                          : tg_unigram_from_scores(t, m->spec->scores, m->roles, min_score,
                                                   m->byte_fallback, m->unk, m->err);
}

static int finish(struct model *m)
{
    struct tg_tokenizer *t = m->t;
    if (m->count == 0)
        return tg_fail(m->err, TG_ERR_FORMAT, "%s: not a SentencePiece model: it has no pieces",
                       t->name);
    if (m->denormalizes)
        return tg_unsupported(t, m->err, "denormalizer_spec", "precompiled_charsmap");
    if (m->type != UNIGRAM && m->type != BPE)
        return tg_unsupported(t, m->err, "trainer_spec.model_type",
                              m->type == WORD        ? "WORD"
                              : m->type == CHARACTER ? "CHAR"
                                                     : "an unknown one");
    /* Holes at the end have places too. */
    if (!tg_grow(&t->tokens, &t->tokens_cap, m->count, sizeof *t->tokens))
        return tg_fail(m->err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    t->vocab = m->count;
    int rc = check_types(m);
    if (rc == TG_OK)
        rc = make_model(m);
    if (rc == TG_OK)
        rc = index_user_pieces(m);
    if (rc != TG_OK)
        return rc;
    m->spec->bos = control_piece(m, m->bos, m->bos_len, "<s>");
    m->spec->eos = control_piece(m, m->eos, m->eos_len, "</s>");
    return make_stages(m);
}

int tg_sentencepiece_build(struct tg_tokenizer *t, const void *bytes, size_t len,
                           struct tg_err *err)
{
    struct model m = {.t = t, .err = err, .type = UNIGRAM, .unk = -1};
    m.spec = tg_alloc(sizeof *m.spec);
    int rc = TG_OK;
    if (!m.spec || !tg_strmap_init(&t->by_name, 1024) ||
        !tg_text_add(&m.spec->unk_surface, UNK_SURFACE, strlen(UNK_SURFACE)))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    if (rc == TG_OK) {
        m.spec->add_dummy_prefix = m.spec->remove_extra_whitespaces = true;
        m.spec->escape_whitespaces = true;
        rc = read_model(&m, bytes, len);
    }
    if (rc == TG_OK)
        rc = finish(&m);
    tg_sentencepiece_spec_free(m.spec);
    tg_charsmap_free(m.map);
    tg_free(m.roles);
    return rc;
}

void tg_sentencepiece_spec_free(struct tg_sentencepiece_spec *spec)
{
    if (!spec)
        return;
    tg_trie_release(&spec->user);
    tg_text_release(&spec->unk_surface);
    tg_free(spec->types);
    tg_free(spec->scores);
    tg_free(spec);
}

/* ---- ids around the text ---- */

static int surround(struct tg_tokenizer *t, struct tg_json config, struct tg_err *err)
{
    static const struct {
        const char *class;
        bool bos, eos;
    } habits[] = {{"LlamaTokenizer", true, false},     {"LlamaTokenizerFast", true, false},
                  {"CodeLlamaTokenizer", true, false}, {"CodeLlamaTokenizerFast", true, false},
                  {"GemmaTokenizer", true, false},     {"GemmaTokenizerFast", true, false},
                  {"T5Tokenizer", false, true},        {"T5TokenizerFast", false, true}};
    const struct tg_sentencepiece_spec *spec = t->normalizers[0].spec;
    const char *class = "";
    bool bos = false, eos = false;
    int rc = tg_json_get_str_or(config, "tokenizer_class", &class, err);
    for (size_t i = 0; i < sizeof habits / sizeof habits[0]; i++)
        if (strcmp(class, habits[i].class) == 0)
            bos = habits[i].bos, eos = habits[i].eos;
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(config, "add_bos_token", &bos, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(config, "add_eos_token", &eos, err);
    if (rc != TG_OK)
        return rc;
    if ((bos && spec->bos < 0) || (eos && spec->eos < 0))
        return tg_json_fail(config, bos && spec->bos < 0 ? "add_bos_token" : "add_eos_token",
                            TG_ERR_MISMATCH, err, "the model has no such control piece");
    if (bos)
        rc = tg_ids_push(&t->before, spec->bos, err);
    return rc == TG_OK && eos ? tg_ids_push(&t->after, spec->eos, err) : rc;
}

int tg_sentencepiece_surround(struct tg_tokenizer *t, const char *dir, struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    char *path = tg_path_join(dir, "tokenizer_config.json");
    char *more = tg_path_join(dir, "added_tokens.json");
    int rc = path && more ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);
    if (rc == TG_OK && tg_path_exists(more))
        rc = tg_fail(err, TG_ERR_UNSUPPORTED,
                     "%s: tokens added to a tokenizer.model are not "
                     "supported without a tokenizer.json",
                     more);
    if (rc == TG_OK && tg_path_exists(path)) {
        rc = tg_json_load(&doc, path, 0, err);
        if (rc == TG_OK)
            rc = surround(t, tg_json_root(doc), err);
        tg_json_free(doc);
    }
    tg_free(path);
    tg_free(more);
    return rc;
}
