#include "tools/card.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

int tg_card_write(const char *dir, const struct tg_card *card, struct tg_err *err)
{
    char *path = tg_path_join(dir, "README.md");
    struct tg_strbuf text;
    int rc;

    tg_strbuf_init(&text, 1 << 20);
    tg_strbuf_printf(
        &text, "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# %s\n",
        card->title ? card->title : "Hybrid");
    rc = !path || text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir)
                              : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    tg_free(path);
    return rc;
}
