/* tegu mqar: what mixers recall, by small models that are trained from nothing on multi-query
 * associative recall. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "distill/mqar.h"
#include "linearize/surgery/surgery.h"
#include "tools/command.h"
#include "tools/groups.h"
#include "tools/table.h"

static const char *choice(size_t i)
{
    return i ? tg_choice_mixer(i - 1) : "softmax";
}

enum { MOST_LAYERS = 64, MOST_MIXERS = 32 };

struct settings {
    struct tg_texts mixers;
    const char *before;
    int64_t vocab, length, pairs, fewest, width, heads, layers, steps, batch, test;
    double start, lr, decay, enough, least;
    bool tied;
    struct tg_maybe set[TG_PLAN_KEYS];
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "mixer", TG_OPT_WORDS, AT(mixers), "softmax,deltanet,gated_deltanet,kda", "LIST",
     "mixers to compare, softmax or any that a plan gives, with options of their own after colons: "
     "sse:partitions=1,sse:partitions=8:active=2",
     0, 0, NULL, false},
    {0, "before", TG_OPT_TEXT, AT(before), NULL, "MIXER",
     "before each layer one of this mixer, with options of its own after colons: hyena_y, short "
     "convolutions, is nearest to the paper's layers",
     0, 0, NULL, false},
    {0, "length", TG_OPT_COUNT, AT(length), "64", "T", "tokens of an example", 4, 1 << 20, NULL,
     false},
    {0, "pairs", TG_OPT_COUNT, AT(pairs), "8", "K",
     "pairs to remember, each asked once; at most a quarter of the length", 1, 1 << 18, NULL,
     false},
    {0, "fewest", TG_OPT_COUNT, AT(fewest), "0", "K",
     "the first half of training begins with K pairs and goes on with 2K, 4K ... for an equal part "
     "of the steps each; 0: the most from the start",
     0, 1 << 18, NULL, false},
    {0, "vocab", TG_OPT_COUNT, AT(vocab), "128", "N",
     "different tokens, half of them keys and half values; the paper has 8192", 4, 1 << 20, NULL,
     false},
    {0, "layers", TG_OPT_INT, AT(layers), "2", "L",
     "layers, of a mixer each and no mlp; those of --before are not counted", 1, MOST_LAYERS, NULL,
     false},
    {0, "width", TG_OPT_INT, AT(width), "64", "D", "of the hidden states", 2, 8192, NULL, false},
    {0, "heads", TG_OPT_INT, AT(heads), "2", "H", "of attention; a head has D / H channels", 1, 256,
     NULL, false},
    {0, "tied", TG_OPT_FLAG, AT(tied), NULL, NULL, "the head is the embedding", 0, 0, NULL, false},
    {0, "steps", TG_OPT_COUNT, AT(steps), "4000", "N",
     "updates at most; the learning rate falls to 0 over them", 1, 1e9, NULL, false},
    {0, "batch", TG_OPT_COUNT, AT(batch), "16", "N", "examples of an update", 1, 65536, NULL,
     false},
    {0, "start", TG_OPT_NUM, AT(start), "0.02", "X",
     "deviation of random weights; torch's own is (3 D)^-1/2", 0, 10, NULL, false},
    {0, "lr", TG_OPT_NUM, AT(lr), "0.003", "X", "learning rate", 0, 10, NULL, false},
    {0, "decay", TG_OPT_NUM, AT(decay), "0.1", "X", "weight decay", 0, 100, NULL, false},
    {0, "enough", TG_OPT_NUM, AT(enough), "0.999", "A",
     "training ends early at this accuracy on examples of their own; above 1: never", 0, 2, NULL,
     false},
    {0, "test", TG_OPT_COUNT, AT(test), "512", "N", "examples of the test", 1, 1e7, NULL, false},
    {0, "at-least", TG_OPT_NUM, AT(least), "0", "A",
     "exit status 3 if a mixer's accuracy is below this", 0, 1, NULL, false},
#define TG_PLAN_OPTION(id, name, flag, choice, lo, hi, has, store, meta, help)                     \
    {0, flag, TG_OPT_MAYBE, AT(set[TG_PLAN_##id]), NULL, meta, help, lo, hi, choice, false},
#include "linearize/surgery/options.def"
#undef TG_PLAN_OPTION
    {0},
};
#undef AT

struct row {
    const char *mixer;          /* with its options, as it was said */
    struct tg_plan_layer layer; /* mixer NULL: softmax */
    size_t params, state_bytes, kv_bytes;
    double seconds;
    struct tg_mqar_result result;
};

/* "sse:partitions=8" */
static int read_mixer(const char *option, const char *text, struct tg_plan_layer *layer,
                      struct tg_err *err)
{
    const struct tg_option name = {.name = option, .type = TG_OPT_CHOICE, .choice = choice};
    char body[256];
    const char *found;
    *layer = (struct tg_plan_layer){0};
    snprintf(body, sizeof body, "%.*s", (int)strcspn(text, ":"), text);
    int status = tg_option_set(&name, &found, body, "mixer", err);
    if (status == TG_OK && strcmp(text, choice(0)) == 0)
        return TG_OK;
    snprintf(body, sizeof body, "%s", text);
    for (char *at = body; *at; at++)
        *at = *at == ':' ? ',' : *at;
    if (status == TG_OK)
        status = tg_plan_mixer_read(body, layer, err);
    if (status == TG_OK)
        return TG_OK;
    tg_err_prefix(err, "option --%s", option);
    return TG_EXIT_USAGE;
}

/* The model before surgery: softmax layers with rotary positions and no mlp */
static int base_spec(const struct settings *set, struct tg_layer_spec *layers,
                     struct tg_model_spec *spec, struct tg_err *err)
{
    const size_t D = (size_t)set->width, H = (size_t)set->heads;
    if (D % H || D / H % 2)
        return tg_usage(err, "--width %zu must be an even multiple of --heads %zu", D, H);
    *spec = (struct tg_model_spec){.vocab = (size_t)set->vocab,
                                   .width = D,
                                   .norm.eps = 1e-6,
                                   .tied_head = set->tied,
                                   .ropes = {{.theta = 10000}},
                                   .bos_id = -1,
                                   .layer_count = (size_t)set->layers * (set->before ? 2 : 1),
                                   .layers = layers};
    snprintf(spec->family, sizeof spec->family, "tegu");
    snprintf(spec->base_family, sizeof spec->base_family, "llama");
    for (size_t l = 0; l < spec->layer_count; l++)
        layers[l] = (struct tg_layer_spec){.mixer = tg_mixer_schema_find("softmax"),
                                           .heads = H,
                                           .kv_heads = H,
                                           .head_dim = D / H,
                                           .rotary_dim = D / H,
                                           .attn_scale = 1 / sqrt((double)(D / H)),
                                           .mlp_kind = TG_MLP_NONE};
    return TG_OK;
}

/* A mixer's layer: options that it does not say are the command's, where it has them */
static struct tg_plan_layer settled(const struct settings *set, const struct tg_plan_layer *said)
{
    struct tg_plan_layer to = *said;
    const struct tg_maybe quarter = tg_given((double)(set->length / 4));
    if (!to.mixer)
        return to;
    for (size_t k = 0; k < TG_PLAN_KEYS; k++)
        if (!to.set[k].given && tg_plan_rows[k].has(to.mixer))
            to.set[k] = set->set[k];
    if (to.mixer->flags & TG_MIXER_WINDOW && !to.set[TG_PLAN_WINDOW].given)
        to.set[TG_PLAN_WINDOW] = quarter;
    if (tg_plan_rows[TG_PLAN_CHUNK].has(to.mixer) && !to.set[TG_PLAN_CHUNK].given)
        to.set[TG_PLAN_CHUNK] = quarter;
    return to;
}

static int make_model(const struct tg_tool *t, const struct settings *set,
                      const struct tg_plan_layer *before, const struct tg_plan_layer *mixer,
                      const struct tg_model_spec *spec, struct tg_model **out, struct tg_err *err)
{
    struct tg_plan_override others[2] = {{.to = settled(set, set->before ? before : mixer)},
                                         {.layers = "every:2", .to = settled(set, mixer)}};
    const struct tg_plan_options o = {
        .keep = "none", .sinks = -1, .overrides = others, .override_count = set->before ? 2 : 1};
    struct tg_plan plan;
    snprintf(others[0].layers, sizeof others[0].layers, "0-%zu", spec->layer_count - 1);
    int status = tg_plan_make(&plan, spec, &o, NULL, err);
    if (status == TG_OK)
        status =
            tg_surgery_random(spec, &plan, &t->ctx, set->start, (uint64_t)t->set.seed, out, err);
    tg_plan_release(&plan);
    return status;
}

/* An option of mixers that none of those named has would be ignored silently. */
static int check_options(const struct settings *set, const struct tg_plan_layer *before,
                         const struct row *rows, struct tg_err *err)
{
    for (size_t k = 0; k < TG_PLAN_KEYS; k++) {
        bool used = !set->set[k].given || (before->mixer && tg_plan_rows[k].has(before->mixer));
        for (size_t i = 0; i < set->mixers.count && !used; i++) {
            const struct tg_mixer_schema *mixer = rows[i].layer.mixer;
            used = mixer && tg_plan_rows[k].has(mixer);
        }
        if (!used)
            return tg_usage(err, "option %s: none of the mixers has it", tg_plan_rows[k].name);
    }
    return TG_OK;
}

static int measure(struct tg_tool *t, const struct settings *set, struct tg_mqar *task,
                   const struct tg_model_spec *spec, const struct tg_plan_layer *before,
                   struct row *r, struct tg_err *err)
{
    struct tg_mqar_settings train = {.steps = (uint64_t)set->steps,
                                     .batch = (size_t)set->batch,
                                     .fewest = (size_t)set->fewest,
                                     .lr = set->lr,
                                     .decay = set->decay,
                                     .enough = set->enough,
                                     .examples = (size_t)set->test,
                                     .seed = (uint64_t)t->set.seed};
    struct tg_model *m = NULL;
    double began = tg_now();
    int status = make_model(t, set, before, &r->layer, spec, &m, err);
    if (status == TG_OK) {
        r->params = tg_spec_param_count(&m->spec);
        r->state_bytes = tg_spec_state_bytes(&m->spec);
        r->kv_bytes = tg_spec_kv_bytes_per_token(&m->spec, 2);
        status = tg_mqar_train(m, task, &train, r->mixer, &r->result, &t->progress, err);
    }
    r->seconds = tg_now() - began;
    tg_model_free(m);
    return status;
}

static int print_json(const struct settings *set, const struct row *rows, size_t count,
                      struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_jout_int(out, "vocab", set->vocab);
    tg_jout_int(out, "length", set->length);
    tg_jout_int(out, "pairs", set->pairs);
    tg_jout_int(out, "fewest", set->fewest);
    tg_jout_array(out, "results");
    for (size_t i = 0; i < count; i++) {
        const struct row *r = &rows[i];
        tg_jout_object(out, NULL);
        tg_jout_str(out, "mixer", r->mixer);
        tg_jout_int(out, "params", (int64_t)r->params);
        tg_jout_int(out, "state_bytes", (int64_t)r->state_bytes);
        tg_jout_int(out, "kv_bytes_per_token", (int64_t)r->kv_bytes);
        tg_jout_int(out, "steps", (int64_t)r->result.steps);
        tg_jout_num(out, "loss", r->result.loss);
        tg_jout_num(out, "accuracy", r->result.accuracy);
        tg_jout_num(out, "seconds", r->seconds);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
    return tg_print_json_end(&doc, err);
}

static void print_table(const struct tg_tool *t, const struct row *rows, size_t count)
{
    char params[32], state[40], kv[40], seconds[40];
    struct tg_table table;
    tg_table_init(&table, "mixer|parameters|state|KV a token|steps|loss|accuracy|time");
    for (size_t i = 0; i < count; i++) {
        const struct row *r = &rows[i];
        tg_table_row(&table, "%s|%s|%s|%s|%llu|%.4f|%.4f|%s", r->mixer,
                     tg_thousands((double)r->params, params, sizeof params),
                     tg_bytes_text((double)r->state_bytes, state, sizeof state),
                     tg_bytes_text((double)r->kv_bytes, kv, sizeof kv),
                     (unsigned long long)r->result.steps, r->result.loss, r->result.accuracy,
                     tg_duration(r->seconds, seconds, sizeof seconds));
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_mqar task = {0};
    struct tg_layer_spec layers[2 * MOST_LAYERS] = {{0}};
    struct tg_model_spec spec;
    struct tg_plan_layer before = {0};
    struct row rows[MOST_MIXERS];
    size_t count = set->mixers.count;
    if (count > MOST_MIXERS)
        return tg_usage(err, "--mixer names more than %d", MOST_MIXERS);
    if (set->fewest > set->pairs)
        return tg_usage(err, "--fewest %lld is more than --pairs %lld", (long long)set->fewest,
                        (long long)set->pairs);
    int status = set->before ? read_mixer("before", set->before, &before, err) : TG_OK;
    for (size_t i = 0; i < count && status == TG_OK; i++) {
        rows[i] = (struct row){.mixer = set->mixers.items[i]};
        status = read_mixer("mixer", rows[i].mixer, &rows[i].layer, err);
    }
    if (status == TG_OK)
        status = check_options(set, &before, rows, err);
    if (status == TG_OK)
        status = base_spec(set, layers, &spec, err);
    if (status == TG_OK)
        status =
            tg_mqar_init(&task, (size_t)set->vocab, (size_t)set->length, (size_t)set->pairs, err);
    for (size_t i = 0; i < count && status == TG_OK; i++)
        status = measure(t, set, &task, &spec, &before, &rows[i], err);
    if (status == TG_OK && t->set.json)
        status = print_json(set, rows, count, err);
    else if (status == TG_OK)
        print_table(t, rows, count);
    for (size_t i = 0; i < count && status == TG_OK; i++)
        if (!(rows[i].result.accuracy >= set->least))
            status = TG_EXIT_CHECK;
    tg_mqar_release(&task);
    return status;
}

const struct tg_command tg_cmd_mqar = {
    .name = "mqar",
    .args = "",
    .details =
        "Multi-query associative recall (Arora et al. 2023, arXiv:2312.04927): K pairs of key and "
        "value, then every key is\n"
        "asked once among other tokens. Each mixer gets a model of its own layers, with random "
        "weights, and fresh examples by\n"
        "the same seed. Accuracy is the share of a test's questions whose value is the most likely "
        "token.\n"
        "The options after --at-least are those of a plan (tegu plan): each goes to the mixers "
        "that "
        "have it and do not say\n"
        "otherwise in --mixer. Without, windows and chunks are a quarter of the length.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
