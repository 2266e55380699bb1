/* Recipes: whatever the bytes are, reading ends with a message that names the recipe, or with
 * settings that keep the limits of their options. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/fuzz/fuzz.h"
#include "tools/command.h"
#include "tools/groups.h"
#include "tools/recipe.h"

struct all {
    struct tg_plan_flags plan;
    struct tg_rank_flags rank;
    struct tg_data_flags data;
    struct tg_validation validation;
    struct tg_validation_data vdata;
    struct tg_export_flags export;
    struct tg_common common;
};

static void require(bool holds)
{
    if (!holds)
        abort();
}

static bool in_limits(const struct tg_option *o, double v)
{
    return (o->lo == 0 && o->hi == 0) || (v >= o->lo && v <= o->hi);
}

static void check_options(const struct tg_parse *p)
{
    for (size_t i = 0; i < p->slots; i++) {
        const struct tg_option *o = p->slot[i].option;
        const void *at = p->slot[i].target;
        const struct tg_texts *texts = at;
        switch (o->type) {
        case TG_OPT_NUM:
            require(in_limits(o, *(const double *)at));
            break;
        case TG_OPT_INT:
        case TG_OPT_COUNT:
        case TG_OPT_BYTES:
            require(in_limits(o, (double)*(const int64_t *)at));
            break;
        case TG_OPT_MAYBE_NUM:
        case TG_OPT_MAYBE: {
            const struct tg_maybe *m = at;
            require(!m->given || o->choice || in_limits(o, m->value));
            require(!m->given || !o->choice || o->choice((size_t)m->value));
            break;
        }
        case TG_OPT_TEXTS:
        case TG_OPT_WORDS:
            for (size_t k = 0; k < texts->count; k++)
                require(texts->items[k][0] != 0);
            break;
        default:
            break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct all all;
    struct tg_parse parse = {0};
    struct tg_recipe recipe;
    struct tg_err err = {0};
    const struct tg_texts no_stages = {0};
    memset(&all, 0, sizeof all);
    require(tg_parse_add(&parse, tg_plan_flag_options, &all.plan, &err) == TG_OK);
    require(tg_parse_add(&parse, tg_rank_options, &all.rank, &err) == TG_OK);
    require(tg_parse_add(&parse, tg_data_options, &all.data, &err) == TG_OK);
    require(tg_parse_add(&parse, tg_validation_options, &all.validation, &err) == TG_OK);
    require(tg_parse_add(&parse, tg_validation_data_options, &all.vdata, &err) == TG_OK);
    require(tg_parse_add(&parse, tg_export_options, &all.export, &err) == TG_OK);
    require(tg_parse_add(&parse, tg_common_options, &all.common, &err) == TG_OK);
    int status = tg_recipe_parse(&recipe, (const char *)data, size, "fuzz", &parse, &err);
    if (status == TG_OK) {
        check_options(&parse);
        require(tg_recipe_stages(&recipe, &no_stages, &err) == TG_OK);
        require(recipe.stage_count > 0 && recipe.stage_count <= TG_MAX_STAGES);
    } else {
        require(strncmp(err.msg, "fuzz", 4) == 0);
    }
    tg_recipe_release(&recipe);
    tg_parse_release(&parse);
    return 0;
}
