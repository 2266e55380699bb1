/* Plans: what the user's words mean for each layer, and whether a layer can become that. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "linearize/surgery/surgery_internal.h"

bool tg_schema_has(const struct tg_mixer_schema *schema, unsigned param_flag)
{
    for (size_t i = 0; i < schema->param_count; i++)
        if (schema->params[i].flags & param_flag)
            return true;
    return false;
}

void tg_plan_defaults(struct tg_plan_layer *p)
{
    p->window = p->mixer->flags & TG_MIXER_WINDOW ? p->mixer->window : 0;
    p->sinks = p->mixer->sinks;
    p->feature_map = TG_MAP_HEDGEHOG_SOFTMAX;
}

int tg_plan_mixer(const char *name, const char *where, const struct tg_mixer_schema **out,
                  struct tg_err *err)
{
    const struct tg_mixer_schema *found = tg_mixer_schema_find(name);
    if (found && found->flags & TG_MIXER_PLAN) {
        *out = found;
        return TG_OK;
    }
    struct tg_strbuf list;
    tg_strbuf_init(&list, 4096);
    for (size_t i = 0; tg_mixer_schemas[i]; i++)
        if (tg_mixer_schemas[i]->flags & TG_MIXER_PLAN)
            tg_strbuf_printf(&list, "%s%s", list.len ? ", " : "", tg_mixer_schemas[i]->name);
    int status =
        tg_fail(err, TG_ERR_VALUE, "%s: mixer '%.64s' cannot replace softmax; there are %s", where,
                name, list.text ? list.text : "others");
    tg_strbuf_release(&list);
    return status;
}

int tg_plan_init(struct tg_plan *p, size_t layers, struct tg_err *err)
{
    p->count = layers;
    p->layers = tg_alloc_array(layers, sizeof *p->layers);
    return p->layers ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
}

void tg_plan_release(struct tg_plan *p)
{
    tg_free(p->layers);
    *p = (struct tg_plan){0};
}

static bool takes_sinks(const struct tg_plan_layer *p)
{
    for (size_t i = 0; i < p->mixer->param_count; i++) {
        unsigned flags = p->mixer->params[i].flags;
        if (flags & TG_PARAM_IF_SINKS && (p->gated || !(flags & TG_PARAM_IF_GATED)))
            return true;
    }
    return false;
}

static int check_layer(const struct tg_plan_layer *p, const struct tg_layer_spec *from, size_t l,
                       const char *where, struct tg_err *err)
{
    const struct tg_mixer_schema *to = p->mixer;
    bool windowed = to->flags & TG_MIXER_WINDOW, far = to->flags & TG_MIXER_FAR;
    if (!(from->mixer->flags & TG_MIXER_TEACHER))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu is '%s', only softmax and window layers can be changed",
                       where, l, from->mixer->name);
    if (!(to->flags & TG_MIXER_PLAN))
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: mixer '%s' cannot replace softmax", where,
                       l, to->name);
    if (windowed ? p->window < 1 || p->window > TG_PLAN_MAX_WINDOW : p->window != 0)
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: window %zu is not in [%d, %d] for '%s'",
                       where, l, p->window, windowed, windowed ? TG_PLAN_MAX_WINDOW : 0, to->name);
    if (from->window && !(to->flags & TG_MIXER_LINEAR))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu sees %zu tokens; '%s' keeps and sees all of them", where, l,
                       from->window, to->name);
    size_t most = takes_sinks(p) ? TG_PLAN_MAX_SINKS : 0;
    if (p->sinks > most)
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: sinks %zu is not in [0, %zu] for '%s'%s",
                       where, l, p->sinks, most, to->name, p->gated ? "" : " that is not gated");
    if (p->gated && !tg_schema_has(to, TG_PARAM_IF_GATED))
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: mixer '%s' has no gated form", where, l,
                       to->name);
    if (!far && p->feature_map != TG_MAP_HEDGEHOG_SOFTMAX)
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: mixer '%s' has no feature map", where, l,
                       to->name);
    most = far && tg_feature_map_has_weights(p->feature_map) ? TG_PLAN_MAX_FEATURES : 0;
    if (p->feature_dim > most)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu: feature_dim %zu is not in [0, %zu] for '%s' with map %s",
                       where, l, p->feature_dim, most, to->name,
                       far ? tg_feature_map_name(p->feature_map) : "none");
    return TG_OK;
}

int tg_plan_check(const struct tg_plan *p, const struct tg_model_spec *teacher, const char *where,
                  struct tg_err *err)
{
    if (p->count != teacher->layer_count)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: plan of %zu layers for a model of %zu", where,
                       p->count, teacher->layer_count);
    for (size_t l = 0; l < p->count; l++) {
        int status = p->layers[l].mixer
                         ? check_layer(&p->layers[l], &teacher->layers[l], l, where, err)
                         : TG_OK;
        if (status)
            return status;
    }
    return TG_OK;
}

/* A decimal number at *s, which moves past it; false if there is none or it is above 2^31. */
static bool take_number(const char **s, size_t *out)
{
    if (**s < '0' || **s > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(*s, &end, 10);
    *s = end;
    *out = (size_t)v;
    return errno == 0 && v <= (unsigned long long)1 << 31;
}

static int bad_keep(const char *keep, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE,
                   "keep: '%.64s' is not none, a list as 1,4 or 0-2,5, every:K or auto:N", keep);
}

static int keep_list(const char *keep, bool *kept, size_t layers, struct tg_err *err)
{
    for (const char *s = keep;; s++) {
        size_t first, last;
        if (!take_number(&s, &first))
            return bad_keep(keep, err);
        last = first;
        if (*s == '-' && (s++, !take_number(&s, &last) || last < first))
            return bad_keep(keep, err);
        if (last >= layers)
            return tg_fail(err, TG_ERR_VALUE,
                           "keep: there is no layer %zu, the model has %zu (0 to %zu)", last,
                           layers, layers - 1);
        for (size_t l = first; l <= last; l++)
            kept[l] = true;
        if (*s == '\0')
            return TG_OK;
        if (*s != ',')
            return bad_keep(keep, err);
    }
}

static int keep_every(const char *number, const char *keep, bool *kept, size_t layers,
                      struct tg_err *err)
{
    size_t every;
    if (!take_number(&number, &every) || *number)
        return bad_keep(keep, err);
    if (every < 2 || every > layers)
        return tg_fail(err, TG_ERR_VALUE, "keep: every:%zu is not in [2, %zu layers]", every,
                       layers);
    for (size_t l = every - 1; l < layers; l += every)
        kept[l] = true;
    return TG_OK;
}

/* Recall is a share of right answers over a few dozen items: differences under this step are noise
 * and KL decides. */
static const double RECALL_STEP = 0.02;

/* Negative if a loss of (recall_a, kl_a) is smaller than (recall_b, kl_b) */
static int compare_loss(double recall_a, double kl_a, double recall_b, double kl_b)
{
    double a = floor(recall_a / RECALL_STEP + 0.5), b = floor(recall_b / RECALL_STEP + 0.5);
    if (a != b)
        return a < b ? -1 : 1;
    return (kl_a > kl_b) - (kl_a < kl_b);
}

static size_t keep_best_pair(const struct tg_rank *rank, const bool *can_change, bool *kept)
{
    size_t best = rank->pairs;
    for (size_t i = 0; i < rank->pairs; i++) {
        bool usable = can_change[rank->pair_a[i]] && can_change[rank->pair_b[i]];
        if (usable && (best == rank->pairs ||
                       compare_loss(rank->pair_recall_lost[i], rank->pair_kl[i],
                                    rank->pair_recall_lost[best], rank->pair_kl[best]) < 0))
            best = i;
    }
    if (best == rank->pairs)
        return 0;
    kept[rank->pair_a[best]] = kept[rank->pair_b[best]] = true;
    return 2;
}

static int keep_auto(const char *number, const char *keep, const struct tg_rank *rank,
                     const bool *can_change, bool *kept, size_t layers, struct tg_err *err)
{
    size_t want, candidates = 0, have = 0;
    if (!take_number(&number, &want) || *number)
        return bad_keep(keep, err);
    for (size_t l = 0; l < layers; l++)
        candidates += can_change[l];
    if (want > candidates)
        return tg_fail(err, TG_ERR_VALUE, "keep: auto:%zu keeps more than the %zu layers there are",
                       want, candidates);
    if (want == 0)
        return TG_OK;
    if (!rank)
        return tg_fail(err, TG_ERR_VALUE, "keep: %s needs a ranking of the layers", keep);
    if (rank->count != layers)
        return tg_fail(err, TG_ERR_MISMATCH, "keep: the ranking has %zu layers, the model has %zu",
                       rank->count, layers);
    if (want >= 2)
        have = keep_best_pair(rank, can_change, kept);
    for (; have < want; have++) {
        size_t worst = layers; /* whose loss hurts most */
        for (size_t l = 0; l < layers; l++) {
            const struct tg_rank_row *row = &rank->rows[l], *top = &rank->rows[worst % layers];
            if (can_change[l] && !kept[l] &&
                (worst == layers ||
                 compare_loss(row->recall_lost, row->kl, top->recall_lost, top->kl) > 0))
                worst = l;
        }
        kept[worst] = true;
    }
    return TG_OK;
}

static int apply_keep(const char *keep, const struct tg_rank *rank, const bool *can_change,
                      bool *kept, size_t layers, struct tg_err *err)
{
    if (strcmp(keep, "none") == 0)
        return TG_OK;
    if (strncmp(keep, "every:", 6) == 0)
        return keep_every(keep + 6, keep, kept, layers, err);
    if (strncmp(keep, "auto:", 5) == 0)
        return keep_auto(keep + 5, keep, rank, can_change, kept, layers, err);
    return keep_list(keep, kept, layers, err);
}

static int replacement(const struct tg_plan_options *o, struct tg_plan_layer *to,
                       struct tg_err *err)
{
    int status = tg_plan_mixer(o->mixer ? o->mixer : "gated_window", "plan", &to->mixer, err);
    if (status)
        return status;
    tg_plan_defaults(to);
    if (o->window)
        to->window = o->window;
    if (o->sinks >= 0)
        to->sinks = (size_t)o->sinks;
    to->gated = o->sinks > 0 && tg_schema_has(to->mixer, TG_PARAM_IF_GATED);
    to->feature_dim = o->feature_dim;
    if (o->feature_map && !tg_feature_map_parse(o->feature_map, &to->feature_map))
        return tg_fail(err, TG_ERR_VALUE, "feature_map: '%.64s' is unknown", o->feature_map);
    if (o->feature_map && !(to->mixer->flags & TG_MIXER_FAR))
        return tg_fail(err, TG_ERR_VALUE, "feature_map: mixer '%s' has none", to->mixer->name);
    return TG_OK;
}

int tg_plan_make(struct tg_plan *p, const struct tg_model_spec *teacher,
                 const struct tg_plan_options *o, const struct tg_rank *rank, struct tg_err *err)
{
    size_t layers = teacher->layer_count;
    struct tg_plan_layer to = {0};
    bool *can_change = NULL, *kept = NULL;
    *p = (struct tg_plan){0};
    int status = replacement(o, &to, err);
    if (!status)
        status = tg_plan_init(p, layers, err);
    if (status)
        return status;
    can_change = tg_alloc_array(layers, sizeof *can_change);
    kept = tg_alloc_array(layers, sizeof *kept);
    if (!can_change || !kept)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
    for (size_t l = 0; l < layers && !status; l++) {
        const struct tg_layer_spec *from = &teacher->layers[l];
        bool small = from->mixer->flags & TG_MIXER_TEACHER && from->window > 0;
        bool constant = to.mixer->flags & TG_MIXER_LINEAR;
        can_change[l] = !small || (constant && from->window > to.window);
    }
    if (!status)
        status = apply_keep(o->keep ? o->keep : "auto:2", rank, can_change, kept, layers, err);
    for (size_t l = 0; l < layers && !status; l++)
        if (can_change[l] && !kept[l])
            p->layers[l] = to;
    if (!status)
        status = tg_plan_check(p, teacher, "plan", err);
    tg_free(can_change);
    tg_free(kept);
    if (status)
        tg_plan_release(p);
    return status;
}
