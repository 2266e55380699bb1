#include "tools/card.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "linearize/surgery/surgery.h"
#include "tools/table.h"

enum { MAX_CARD = 1 << 24, MAX_TEXT = 400, MAX_STEPS = 64 };

void tg_card_title(const char *path, char *title, size_t size)
{
    size_t n = strlen(path), begin, out = 0;

    while (n && path[n - 1] == '/')
        n--;
    for (begin = n; begin && path[begin - 1] != '/'; begin--)
        ;
    for (size_t i = begin; i < n && out + 1 < size; i++) {
        const char c = path[i];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        title[out++] = plain ? c : '-';
    }
    title[out] = '\0';
    if (!strcmp(title, "") || !strcmp(title, ".") || !strcmp(title, ".."))
        snprintf(title, size, "hybrid");
}

void tg_card_text(struct tg_strbuf *out, const char *text)
{
    size_t n = 0;

    for (; *text && n < MAX_TEXT; text++, n++) {
        const unsigned char c = (unsigned char)*text;
        if (c < ' ' || c == 127)
            tg_strbuf_puts(out, " ");
        else {
            if (strchr("\\`*_{}[]<>#|~&!$", c) ||
                !strncmp(text, "://", 3)) /* no address is a link */
                tg_strbuf_puts(out, "\\");
            tg_strbuf_add(out, text, 1);
        }
    }
    /* not inside a character of several bytes */
    for (; ((unsigned char)*text & 0xC0) == 0x80; text++)
        tg_strbuf_add(out, text, 1);
    if (*text)
        tg_strbuf_puts(out, "...");
}

/* A block of one line of code, in a fence that is longer than any in it */
static void code_block(struct tg_strbuf *out, const char *text)
{
    enum { MAX_COMMAND = 1 << 13 };
    size_t fence = 3, run = 0;

    for (const char *at = text; *at; at++) {
        run = *at == '`' ? run + 1 : 0;
        fence = run >= fence ? run + 1 : fence;
    }
    for (size_t i = 0; i < fence; i++)
        tg_strbuf_puts(out, "`");
    tg_strbuf_puts(out, "\n");
    for (size_t n = 0; *text && n < MAX_COMMAND; text++, n++) {
        const char c = (unsigned char)*text < ' ' || *text == 127 ? ' ' : *text;
        tg_strbuf_add(out, &c, 1);
    }
    tg_strbuf_puts(out, "\n");
    for (size_t i = 0; i < fence; i++)
        tg_strbuf_puts(out, "`");
    tg_strbuf_puts(out, "\n\n");
}

/* A scalar of YAML in double quotes: "no" is a language, not a truth value */
static void yaml(struct tg_strbuf *out, const char *key, const char *text)
{
    if (!text[0])
        return;
    tg_strbuf_printf(out, "%s \"", key);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            tg_strbuf_puts(out, "\\");
        if ((unsigned char)*text >= ' ' && *text != 127)
            tg_strbuf_add(out, text, 1);
    }
    tg_strbuf_puts(out, "\"\n");
}

static struct tg_json member(const struct tg_card *card, const char *key)
{
    return tg_json_key(tg_record_root(card->record), key);
}

static const struct tg_target *target_of(const struct tg_card *card)
{
    return card->result ? card->result->target : NULL;
}

/* Does its cache grow with the text? */
static bool grows(const struct tg_layer_spec *l)
{
    return !(l->mixer->flags & TG_MIXER_LINEAR);
}

static size_t growing_layers(const struct tg_model_spec *spec)
{
    size_t n = 0;

    for (size_t l = 0; l < spec->layer_count; l++)
        n += grows(&spec->layers[l]);
    return n;
}

/* Is l the first layer with its mixer? */
static bool is_first(const struct tg_model_spec *spec, size_t l)
{
    for (size_t k = 0; k < l; k++)
        if (spec->layers[k].mixer == spec->layers[l].mixer)
            return false;
    return true;
}

static void front_matter(struct tg_strbuf *out, const struct tg_card *card)
{
    const struct tg_json base = member(card, "base_model");
    const struct tg_target *target = target_of(card);
    const char *name = tg_json_string(tg_json_key(base, "name"));
    const size_t growing = growing_layers(card->spec);

    tg_strbuf_puts(out, "---\n");
    yaml(out, "base_model:", name);
    if (name[0] && tg_record_is_made(card->record))
        tg_strbuf_puts(out, "base_model_relation: finetune\n");
    tg_strbuf_printf(out, "library_name: %s\npipeline_tag: text-generation\n",
                     tg_card_library(target));
    yaml(out, "license:", tg_json_string(tg_json_key(base, "license")));
    yaml(out, "license_name:", tg_json_string(tg_json_key(base, "license_name")));
    yaml(out, "license_link:", tg_json_string(tg_json_key(base, "license_link")));
    const struct tg_json languages = tg_json_key(base, "languages");
    if (tg_json_count(languages))
        tg_strbuf_puts(out, "language:\n");
    for (struct tg_json c = tg_json_first(languages); c.node; c = tg_json_next(c))
        yaml(out, "-", tg_json_string(c));
    tg_strbuf_puts(out, "tags:\n- tegu\n");
    if (growing < card->spec->layer_count)
        tg_strbuf_printf(out, "- %slinear-attention\n", growing ? "hybrid\n- " : "");
    for (size_t l = 0; l < card->spec->layer_count; l++)
        if (!grows(&card->spec->layers[l]) && is_first(card->spec, l))
            tg_strbuf_printf(out, "- %s\n", card->spec->layers[l].mixer->name);
    tg_card_engine_tags(out, target);
    tg_strbuf_puts(out, "---\n\n");
}

static void what_it_is(struct tg_strbuf *out, const struct tg_card *card, const char *title)
{
    const struct tg_json base = member(card, "base_model");
    const char *name = tg_json_string(tg_json_key(base, "name"));
    const char *license = tg_json_string(tg_json_key(base, "license"));
    const struct tg_target *target = target_of(card);
    const size_t layers = card->spec->layer_count, growing = growing_layers(card->spec);

    tg_strbuf_puts(out, "# ");
    tg_card_text(out, title);
    tg_strbuf_puts(out, "\n\n");
    if (growing == layers)
        tg_strbuf_puts(out, "A Transformer");
    else if (growing)
        tg_strbuf_printf(out,
                         "A hybrid: %zu of %zu layers have softmax attention over all earlier "
                         "tokens, the others mixers whose state does not grow with the text",
                         growing, layers);
    else
        tg_strbuf_printf(
            out,
            "A model without a growing cache: all %zu layers have mixers whose state does "
            "not grow with the text",
            layers);
    if (name[0]) {
        tg_strbuf_puts(out, tg_record_is_made(card->record) ? ". Made from " : ". Converted from ");
        tg_card_text(out, name);
    }
    tg_strbuf_printf(out, ".\n\nWritten as `%s`, weights in %s: loads in %s.\n",
                     target ? target->name : "tegu", card->dtype,
                     target ? target->engines : "Tegu, and in transformers with its own code");
    if (name[0] && !license[0])
        tg_strbuf_puts(out, "\nIts license is that of the base model, whose card was not there to "
                            "be read.\n");
    tg_strbuf_puts(out, "\n");
}

/* "heads=4, kv_heads=2, head_dim=64, window=128": what of a layer can differ between layers */
static void layer_options(struct tg_strbuf *out, size_t width, const struct tg_layer_spec *l)
{
    char value[32];

    if (l->heads) /* not of state space mixers */
        tg_strbuf_printf(out, "%zu heads of %zu, %zu kv heads", l->heads, l->head_dim, l->kv_heads);
    for (int k = 0; k < TG_PLAN_KEYS; k++) {
        const enum tg_plan_key key = (enum tg_plan_key)k;
        const struct tg_plan_option *row = &tg_plan_rows[k];
        const double v = row->has(l->mixer) ? tg_plan_value_in(key, width, l) : NAN;
        /* 0 of a number, and false, mean that there is none; nor of what is not there */
        if (isnan(v) || (key == TG_PLAN_WINDOW_FORM && !l->window) ||
            (key == TG_PLAN_ROTARY && !l->rotary_dim) ||
            (v == 0 && (!row->choice || row->choice == tg_plan_names_switch)))
            continue;
        tg_strbuf_printf(out, ", %s=%s", row->name,
                         tg_plan_value_text(key, v, value, sizeof value));
    }
}

static void flush_layers(struct tg_strbuf *out, size_t first, size_t last,
                         const struct tg_layer_spec *l, const char *options)
{
    const char *comma = options[0] == ',' ? options + 2 : options;

    if (first == last)
        tg_strbuf_printf(out, "| %zu", first);
    else
        tg_strbuf_printf(out, "| %zu-%zu", first, last);
    tg_strbuf_printf(out, " | %s | %s |\n", l->mixer->name, comma);
}

/* Neighbours that are equal share a row. */
static void layer_table(struct tg_strbuf *out, const struct tg_model_spec *spec)
{
    struct tg_strbuf text[2];
    size_t first = 0;
    char bytes[2][40], params[40];

    tg_strbuf_init(&text[0], MAX_CARD);
    tg_strbuf_init(&text[1], MAX_CARD);
    tg_strbuf_puts(out, "## Layers\n\n| layer | mixer | options |\n|---|---|---|\n");
    for (size_t l = 0; l < spec->layer_count; l++) {
        struct tg_strbuf *now = &text[l % 2], *before = &text[(l + 1) % 2];
        tg_strbuf_clear(now);
        layer_options(now, spec->width, &spec->layers[l]);
        if (l && (spec->layers[l].mixer != spec->layers[l - 1].mixer ||
                  strcmp(now->text, before->text) != 0)) {
            flush_layers(out, first, l - 1, &spec->layers[l - 1], before->text);
            first = l;
        }
        if (l + 1 == spec->layer_count)
            flush_layers(out, first, l, &spec->layers[l], now->text);
    }
    out->failed = out->failed || text[0].failed || text[1].failed;
    tg_strbuf_release(&text[0]);
    tg_strbuf_release(&text[1]);
    tg_strbuf_printf(
        out,
        "\n%s parameters. For each sequence: %s of key-value cache for each token (16 bits), and "
        "%s of state (float32), whatever the length.\n\n",
        tg_thousands((double)tg_spec_param_count(spec), params, sizeof params),
        tg_bytes_text((double)tg_spec_kv_bytes_per_token(spec, 2), bytes[0], sizeof bytes[0]),
        tg_bytes_text((double)tg_spec_state_bytes(spec), bytes[1], sizeof bytes[1]));
}

/* A number of JSON, or what it says as text */
static void json_cell(struct tg_strbuf *out, struct tg_json v)
{
    tg_strbuf_puts(out, "| ");
    if (tg_json_is_number(v))
        tg_strbuf_printf(out, "%.6g", tg_json_number(v));
    else
        tg_card_text(out, tg_json_string(v));
    tg_strbuf_puts(out, " ");
}

static double stage_table(struct tg_strbuf *out, struct tg_json stages)
{
    double total = 0;

    tg_strbuf_puts(out, "| stage | tokens | trains | learning rate | batch |\n"
                        "|---|---|---|---|---|\n");
    for (struct tg_json c = tg_json_first(stages); c.node; c = tg_json_next(c)) {
        const struct tg_json tokens = tg_json_key(c, "tokens");
        char text[40];
        total += tg_json_number(tokens);
        json_cell(out, tg_json_key(c, "kind"));
        tg_strbuf_printf(out, "| %s ", tg_thousands(tg_json_number(tokens), text, sizeof text));
        json_cell(out, tg_json_key(c, "train"));
        json_cell(out, tg_json_key(c, "lr"));
        json_cell(out, tg_json_key(c, "batch"));
        tg_strbuf_puts(out, "|\n");
    }
    return total;
}

static void step_files(struct tg_strbuf *out, struct tg_json data)
{
    const struct tg_json files = tg_json_key(data, "files");

    for (struct tg_json c = tg_json_first(files); c.node; c = tg_json_next(c)) {
        tg_strbuf_puts(out, "- text: ");
        tg_card_text(out, tg_json_string(tg_json_key(c, "file")));
        tg_strbuf_puts(out, ", SHA-256 `");
        tg_card_text(out, tg_json_string(tg_json_key(c, "sha256")));
        tg_strbuf_puts(out, "`\n");
    }
    if (tg_json_is_number(tg_json_key(data, "sample_tokens")))
        tg_strbuf_printf(out, "- text: %.0f tokens sampled from the teacher\n",
                         tg_json_number(tg_json_key(data, "sample_tokens")));
}

static void step(struct tg_strbuf *out, struct tg_json s)
{
    const struct tg_json settings = tg_json_key(s, "settings");
    const struct tg_json stages = tg_json_key(settings, "stages");
    char total[40];

    code_block(out, tg_json_string(tg_json_key(s, "command")));
    tg_strbuf_puts(out, "- Tegu ");
    tg_card_text(out, tg_json_string(tg_json_key(s, "version")));
    tg_strbuf_puts(out, ", seed ");
    tg_card_text(out, tg_json_string(tg_json_key(s, "seed")));
    tg_strbuf_puts(out, "\n");
    step_files(out, tg_json_key(settings, "data"));
    tg_strbuf_puts(out, "\n");
    if (!tg_json_count(stages))
        return;
    const double tokens = stage_table(out, stages);
    tg_strbuf_printf(out, "\n%s tokens in all.\n\n", tg_thousands(tokens, total, sizeof total));
}

static void training(struct tg_strbuf *out, const struct tg_card *card)
{
    const struct tg_json teacher = member(card, "teacher"), steps = member(card, "steps");
    const char *name = tg_json_string(tg_json_key(teacher, "name"));
    const char *hash = tg_json_string(tg_json_key(teacher, "sha256"));
    size_t n = 0;

    if (!tg_json_count(steps))
        return;
    tg_strbuf_puts(out, "## How it was made\n\n");
    if (name[0]) {
        tg_strbuf_puts(out, "Teacher: ");
        tg_card_text(out, name);
        tg_strbuf_puts(out, hash[0] ? ", SHA-256 of its config, tokenizer and weights `" : "");
        tg_card_text(out, hash);
        tg_strbuf_puts(out, hash[0] ? "`.\n\n" : ".\n\n");
    }
    for (struct tg_json c = tg_json_first(steps); c.node && n < MAX_STEPS; c = tg_json_next(c), n++)
        step(out, c);
}

static void result_rows(struct tg_strbuf *out, const struct tg_report *r)
{
    const bool untrained = tg_report_has_untrained(r);
    struct tg_report_row row;

    tg_strbuf_printf(out, "| | teacher | %sthis model |\n|---|---|%s---|\n",
                     untrained ? "untrained window | " : "", untrained ? "---|" : "");
    for (size_t i = 0; tg_report_row_at(r, i, &row); i++) {
        tg_strbuf_puts(out, "| ");
        tg_card_text(out, row.label);
        tg_strbuf_printf(out, " | %s | ", row.teacher);
        if (untrained)
            tg_strbuf_printf(out, "%s | ", row.untrained);
        tg_strbuf_printf(out, "%s |\n", row.student);
    }
    if (untrained)
        tg_strbuf_puts(out, "\n\"untrained window\": the same layers with nothing but a sliding "
                            "window, before any training.\n");
}

static void checks(struct tg_strbuf *out, struct tg_json list)
{
    if (tg_json_count(list))
        tg_strbuf_puts(out, "\n");
    for (struct tg_json c = tg_json_first(list); c.node; c = tg_json_next(c)) {
        tg_strbuf_printf(out, "- %s: fail if `",
                         tg_json_bool(tg_json_key(c, "failed")) ? "FAILED" : "passed");
        /* inside `code` nothing but the mark itself has a meaning; it is of names and numbers */
        for (const char *t = tg_json_string(tg_json_key(c, "fail_if")); *t; t++)
            if ((unsigned char)*t >= ' ' && *t != '`' && *t != 127)
                tg_strbuf_add(out, t, 1);
        tg_strbuf_printf(out, "`, it is %.6g\n", tg_json_number(tg_json_key(c, "value")));
    }
}

static int results(struct tg_strbuf *out, const struct tg_card *card, struct tg_err *err)
{
    const struct tg_json of = member(card, "results_of"), values = member(card, "results");
    const char *arch = tg_json_string(tg_json_key(of, "arch"));
    const char *dtype = tg_json_string(tg_json_key(of, "dtype"));
    const struct tg_target *target = target_of(card);
    struct tg_report r = {.teacher_path = ""};
    int rc;

    if (!tg_json_count(values))
        return TG_OK;
    if (!(rc = tg_results_read_json(&r.results, values, err))) {
        tg_strbuf_puts(out, "## Results\n\n");
        if (!strcmp(arch, target ? target->name : "tegu") && !strcmp(dtype, card->dtype))
            tg_strbuf_puts(out, "Measured on these weights, read back from the files.\n\n");
        else if (arch[0] && dtype[0]) {
            tg_strbuf_puts(out, "Measured on the hybrid before it was converted: `");
            tg_card_text(out, arch);
            tg_strbuf_puts(out, "`, weights in ");
            tg_card_text(out, dtype);
            tg_strbuf_puts(out, ".\n\n");
        }
        result_rows(out, &r);
        checks(out, member(card, "checks"));
        tg_strbuf_puts(out, "\n");
    }
    tg_report_release(&r);
    return rc;
}

static void export_notes(struct tg_strbuf *out, const struct tg_card *card)
{
    const struct tg_export_result *r = card->result;

    if (!target_of(card))
        return;
    tg_strbuf_puts(out, "## The export\n\n");
    if (card->command)
        code_block(out, card->command);
    tg_strbuf_printf(out,
                     "Proved when it was written: every parameter comes back from the files as it "
                     "should be, bit for bit. RMS of the difference of logits over their RMS, on "
                     "random ids, against the model that it was made from:\n\n"
                     "| | |\n|---|---|\n| as `%s`, before rounding | %.2g |\n",
                     r->target->name, r->proof.exact);
    if (r->proof.rounded > 0)
        tg_strbuf_printf(out, "| the source itself, rounded to %s | %.2g |\n", card->dtype,
                         r->proof.rounded);
    tg_strbuf_printf(out, "| as written | %.2g |\n\n", r->proof.written);
    for (size_t i = 0; i < r->notes.count; i++) {
        tg_strbuf_puts(out, "- ");
        tg_card_text(out, r->notes.lines[i]);
        tg_strbuf_puts(out, "\n");
    }
    if (r->notes.count)
        tg_strbuf_puts(out, "\n");
}

int tg_card_write(const char *dir, const struct tg_card *card, struct tg_err *err)
{
    char *path = tg_path_join(dir, "README.md"), title[128];
    struct tg_strbuf out;
    int rc;

    tg_strbuf_init(&out, MAX_CARD);
    tg_card_title(card->path, title, sizeof title);
    front_matter(&out, card);
    what_it_is(&out, card, title);
    tg_card_engines(&out, card, title);
    layer_table(&out, card->spec);
    training(&out, card);
    rc = results(&out, card, err);
    export_notes(&out, card);
    while (out.len > 1 && out.text[out.len - 2] == '\n')
        out.text[--out.len] = '\0';
    if (rc == TG_OK)
        rc = !path || out.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir)
                                 : tg_file_write(path, out.text, out.len, err);
    tg_strbuf_release(&out);
    tg_free(path);
    return rc;
}
