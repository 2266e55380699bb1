/* BPE over characters as the kind "llama" of a GGUF file, where two neighbours merge if together
 * they are a token, the one with the highest score first. Scores stand in a SentencePiece model; a
 * list of merges must say the same in its own way, as the lists that are made of such models do. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/gguf_vocab_file.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/sentencepiece.h"

static const char MARK[] = "\xE2\x96\x81";

/* ---- of tokenizer.json ---- */

static int check_prepend(struct tg_vocab_out *o, struct tg_json n, struct tg_err *err)
{
    const char *prepend = tg_json_string(tg_json_key(n, "prepend"));
    if (strcmp(prepend, MARK) != 0)
        return tg_vocab_out_refuse(o, err, "normalizer.prepend", prepend);
    o->space_prefix = true;
    return TG_OK;
}

static int check_replace(const struct tg_vocab_out *o, struct tg_json n, struct tg_err *err)
{
    const char *pattern = tg_json_string(tg_json_key(tg_json_key(n, "pattern"), "String"));
    const char *content = tg_json_string(tg_json_key(n, "content"));
    return strcmp(pattern, " ") == 0 && strcmp(content, MARK) == 0
               ? TG_OK
               : tg_vocab_out_refuse(o, err, "normalizer Replace other than of spaces", content);
}

/* Prepend, then Replace of spaces; *marks: spaces have become U+2581 */
static int check_normalizer(struct tg_vocab_out *o, struct tg_json n, bool *marks,
                            struct tg_err *err)
{
    const char *type = tg_type_of(n);
    int rc = TG_OK;
    if (!tg_json_has(n))
        return TG_OK;
    if (strcmp(type, "Prepend") == 0 && !*marks && !o->space_prefix)
        return check_prepend(o, n, err);
    if (strcmp(type, "Replace") == 0) {
        *marks = true;
        return check_replace(o, n, err);
    }
    if (strcmp(type, "Sequence") != 0)
        return tg_vocab_out_refuse(o, err, "normalizer", type);
    const struct tg_json list = tg_json_key(n, "normalizers");
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c))
        rc = check_normalizer(o, c, marks, err);
    return rc;
}

/* None, a split at spaces when there are none left (Gemma), or a Metaspace that does not cut */
static int check_pretok(struct tg_vocab_out *o, struct tg_json p, bool *marks, struct tg_err *err)
{
    const struct tg_json pattern = tg_json_key(p, "pattern");
    const char *type = tg_type_of(p);
    enum tg_prepend prepend = TG_PREPEND_ALWAYS;
    bool split = true;
    if (!tg_json_has(p) || (*marks && strcmp(type, "Split") == 0 &&
                            strcmp(tg_json_string(tg_json_key(pattern, "String")), " ") == 0))
        return TG_OK;
    if (strcmp(type, "Metaspace") != 0 || *marks ||
        strcmp(tg_json_string(tg_json_key(p, "replacement")), MARK) != 0)
        return tg_vocab_out_refuse(o, err, "pre_tokenizer", type);
    int rc = tg_prepend_scheme(p, &prepend, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(p, "split", &split, err);
    if (rc == TG_OK && split)
        rc = tg_vocab_out_refuse(o, err, "pre_tokenizer.split of a Metaspace", "true");
    o->space_prefix = prepend != TG_PREPEND_NEVER;
    *marks = true;
    return rc;
}

/* Ways to cut a token in two others */
static size_t ways_to_cut(const struct tg_tokenizer *t, const struct tg_token *k)
{
    const char *s = t->pool.data + k->off;
    size_t ways = 0, n;
    for (size_t i = 0; i < k->len; i += n) {
        tg_char_at(s + i, &n);
        ways += i && tg_strmap_find(&t->by_name, t->pool.data, s, i) >= 0 &&
                tg_strmap_find(&t->by_name, t->pool.data, s + i, k->len - i) >= 0;
    }
    return ways;
}

/* The token that merge m makes; the list has been read before, so that there is one. */
static int32_t result_of(const struct tg_tokenizer *t, struct tg_json m, struct tg_text *both)
{
    const char *side[2] = {NULL, NULL};
    size_t len[2];
    both->len = 0;
    if (tg_json_is_string(m)) {
        const char *s = tg_json_string(m);
        if (!tg_merge_sides(s, strlen(s), side, len))
            return -1;
    } else {
        side[0] = tg_json_string(tg_json_first(m));
        side[1] = tg_json_string(tg_json_next(tg_json_first(m)));
        len[0] = strlen(side[0]), len[1] = strlen(side[1]);
    }
    if (!tg_text_add(both, side[0], len[0]) || !tg_text_add(both, side[1], len[1]))
        return -1;
    return tg_strmap_find(&t->by_name, t->pool.data, both->data, both->len);
}

static int refuse_merges(const struct tg_vocab_out *o, int32_t id, const char *why,
                         struct tg_err *err)
{
    const struct tg_token *k = &o->t->tokens[id];
    return tg_fail(err, TG_ERR_UNSUPPORTED,
                   "%s: model.merges: %s the token '%.*s', so that no scores of tokens give the "
                   "same merges; a GGUF file holds scores alone",
                   o->t->name, why, (int)(k->len < 200 ? k->len : 200), o->t->pool.data + k->off);
}

/* A token's score is less by one than that of the token which merges before it. */
static int score_merges(struct tg_vocab_out *o, uint32_t *ways, struct tg_err *err)
{
    const struct tg_json list = tg_json_key(tg_json_key(o->root, "model"), "merges");
    struct tg_text both = {0};
    int32_t before = -1;
    float score = 0;
    int rc = TG_OK;
    for (struct tg_json m = tg_json_first(list); m.node && rc == TG_OK; m = tg_json_next(m)) {
        const int32_t id = result_of(o->t, m, &both);
        if (id < 0 || (size_t)id >= o->vocab) {
            rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->t->name);
            break;
        }
        if (id != before && ways[id])
            rc = refuse_merges(o, id, "others stand between those of", err);
        if (id != before)
            o->scores[id] = score--;
        ways[id]++;
        before = id;
    }
    tg_text_release(&both);
    return rc;
}

static int scores_of_merges(struct tg_vocab_out *o, struct tg_err *err)
{
    uint32_t *ways = tg_alloc_array(o->vocab, sizeof *ways);
    int rc = ways ? score_merges(o, ways, err)
                  : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->t->name);
    for (size_t id = 0; id < o->t->vocab && rc == TG_OK; id++) {
        const struct tg_token *k = &o->t->tokens[id];
        if (k->used && o->types[id] == TG_GGUF_NORMAL && ways_to_cut(o->t, k) != ways[id])
            rc = refuse_merges(o, (int32_t)id, "not every way to cut is there of", err);
    }
    tg_free(ways);
    return rc;
}

static int check_bytes(const struct tg_vocab_out *o, struct tg_err *err)
{
    int32_t ids[256];
    tg_byte_tokens(o->t, ids);
    for (unsigned b = 0; b < 0xF5; b++)
        if (ids[b] < 0 && b != 0xC0 && b != 0xC1)
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: there is no token <0x%02X>, which engines that read GGUF need",
                           o->t->name, b);
    for (unsigned b = 0; b < 256; b++)
        if (ids[b] >= 0)
            o->types[ids[b]] = TG_GGUF_BYTE;
    return TG_OK;
}

/* Engines look for user-defined tokens in the text as it is, and put a space behind each of them,
 * if they put spaces at all. Those with marked spaces they would show with the marks; as tokens
 * like any other they come from merges. */
static int check_user(struct tg_vocab_out *o, bool metaspace, struct tg_err *err)
{
    for (size_t i = 0; i < o->t->added_count; i++) {
        const struct tg_added *a = &o->t->added[i];
        const struct tg_token *k = &o->t->tokens[a->id];
        if (!a->special && (a->normalized || (metaspace && o->space_prefix)))
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: added_tokens: '%.*s' is no special token, and %s cannot be said in "
                           "the metadata of a GGUF file",
                           o->t->name, (int)(k->len < 200 ? k->len : 200), o->t->pool.data + k->off,
                           a->normalized ? "that it is looked for in the normalised text"
                                         : "a Metaspace beside it");
        if (!a->special && memmem(o->t->pool.data + k->off, k->len, MARK, 3))
            o->types[a->id] = TG_GGUF_NORMAL;
    }
    return TG_OK;
}

static int of_json(struct tg_vocab_out *o, struct tg_err *err)
{
    const struct tg_json model = tg_json_key(o->root, "model");
    const struct tg_json pretok = tg_json_key(o->root, "pre_tokenizer");
    const char *unk = tg_json_string(tg_json_key(model, "unk_token"));
    bool marks = false;
    int rc = check_normalizer(o, tg_json_key(o->root, "normalizer"), &marks, err);
    if (rc == TG_OK)
        rc = check_pretok(o, pretok, &marks, err);
    if (rc == TG_OK && !marks)
        rc = tg_vocab_out_refuse(o, err, "normalizer", "nothing that marks spaces");
    if (rc == TG_OK && !tg_json_bool(tg_json_key(model, "byte_fallback")))
        rc = tg_vocab_out_refuse(o, err, "model.byte_fallback", "false");
    if (rc == TG_OK && tg_json_bool(tg_json_key(model, "ignore_merges")))
        rc = tg_vocab_out_refuse(o, err, "model.ignore_merges", "true");
    if (rc == TG_OK)
        rc = tg_vocab_out_added(o, err);
    if (rc == TG_OK)
        rc = check_user(o, strcmp(tg_type_of(pretok), "Metaspace") == 0, err);
    if (rc == TG_OK)
        rc = check_bytes(o, err);
    if (rc == TG_OK && *unk && (o->unk = tg_tokenizer_id(o->t, unk)) >= 0)
        o->types[o->unk] = TG_GGUF_UNKNOWN;
    return rc == TG_OK ? scores_of_merges(o, err) : rc;
}

/* ---- of tokenizer.model ---- */

/* Found in the text with its spaces marked, and without a space behind it */
static int refuse_piece(const struct tg_vocab_out *o, size_t id, struct tg_err *err)
{
    char text[201];
    const struct tg_token *k = &o->t->tokens[id];
    snprintf(text, sizeof text, "%.*s", (int)k->len, o->t->pool.data + k->off);
    return tg_vocab_out_refuse(o, err, "the user-defined piece", text);
}

static int of_model(struct tg_vocab_out *o, struct tg_err *err)
{
    const struct tg_normalizer *n = &o->t->normalizers[0];
    const struct tg_sentencepiece_spec *spec = n->spec;
    size_t bytes = 0;
    if (n->map)
        return tg_vocab_out_refuse(o, err, "normalizer_spec.precompiled_charsmap", "a map");
    if (spec->remove_extra_whitespaces)
        return tg_vocab_out_refuse(o, err, "normalizer_spec.remove_extra_whitespaces", "true");
    if (!spec->escape_whitespaces)
        return tg_vocab_out_refuse(o, err, "normalizer_spec.escape_whitespaces", "false");
    if (spec->whitespace_as_suffix)
        return tg_vocab_out_refuse(o, err, "trainer_spec.treat_whitespace_as_suffix", "true");
    o->space_prefix = spec->add_dummy_prefix;
    for (size_t id = 0; id < o->t->vocab; id++) {
        if (!spec->types[id])
            continue;
        o->types[id] = spec->types[id];
        o->scores[id] = spec->scores[id];
        if (spec->types[id] == TG_PIECE_USER)
            return refuse_piece(o, id, err);
        if (spec->types[id] == TG_PIECE_UNKNOWN)
            o->unk = (int32_t)id;
        bytes += spec->types[id] == TG_PIECE_BYTE;
    }
    return bytes ? check_bytes(o, err)
                 : tg_vocab_out_refuse(o, err, "trainer_spec.byte_fallback", "false");
}

int tg_vocab_out_scores(struct tg_vocab_out *o, struct tg_err *err)
{
    o->llama = true;
    o->pre = "default";
    return tg_json_has(o->root) ? of_json(o, err) : of_model(o, err);
}
