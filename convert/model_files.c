#include "convert/model_files.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/names.h"

int tg_model_file_copy(const char *from_dir, const char *to_dir, const char *name,
                       struct tg_err *err)
{
    char *from = tg_path_join(from_dir, name), *to = tg_path_join(to_dir, name);
    struct tg_map map = {0};
    int rc = TG_OK;

    if (!from || !to)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    else if (tg_path_exists(from) && !(rc = tg_map_open(&map, from, err)))
        rc = tg_file_write(to, map.size ? (const void *)map.data : "", map.size, err);
    tg_map_close(&map);
    tg_free(from);
    tg_free(to);
    return rc;
}

static bool is_weights(const char *name)
{
    static const char *const patterns[] = {
        "*.safetensors", "*.bin",     "*.pt",   "*.pth", "*.ckpt", "*.gguf",
        "*.index.json",  "*.msgpack", "*.onnx", "*.h5",  "*.tmp",
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (tg_name_like(patterns[i], name))
            return strcmp(name, "tokenizer.gguf") != 0; /* a vocabulary alone */
    return false;
}

/* Where the value of a dtype key begins and ends, at or after *at: the text between its quotes.
 * Inside a string a quote has a backslash before it, so that only keys are found. */
static bool next_dtype(const char *text, size_t *at, size_t *begin, size_t *end)
{
    static const char *const keys[] = {"\"dtype\"", "\"torch_dtype\""};
    for (; text[*at]; ++*at) {
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const size_t n = strlen(keys[k]);
            size_t i = *at + n;
            if (strncmp(text + *at, keys[k], n) != 0 || (*at && text[*at - 1] == '\\'))
                continue;
            i += strspn(text + i, " \t\r\n");
            if (text[i] != ':')
                continue;
            i += 1 + strspn(text + i + 1, " \t\r\n");
            if (text[i] != '"')
                continue;
            *begin = i + 1;
            *end = *begin + strcspn(text + *begin, "\"");
            return true;
        }
    }
    return false;
}

/* The file as it is but for the value of its dtype keys, in whichever of the two spellings. */
static int copy_config(const char *from_dir, const char *to_dir, const char *dtype,
                       struct tg_err *err)
{
    enum { MAX_CONFIG = 1 << 26 };
    char *from = tg_path_join(from_dir, "config.json"), *to = tg_path_join(to_dir, "config.json");
    char *text = NULL;
    size_t len, at = 0, done = 0, begin, end;
    struct tg_strbuf made;
    int rc;

    tg_strbuf_init(&made, MAX_CONFIG * 2);
    if (!from || !to)
        rc = tg_fail(err, TG_ERR_NOMEM, "config.json: out of memory");
    else
        rc = tg_file_read(from, MAX_CONFIG, &text, &len, err);
    if (rc == TG_OK) {
        while (next_dtype(text, &at, &begin, &end)) {
            tg_strbuf_add(&made, text + done, begin - done);
            tg_strbuf_puts(&made, dtype);
            at = done = end;
        }
        tg_strbuf_puts(&made, text + done);
        rc = made.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory to write it", to)
                         : tg_file_write(to, made.text, made.len, err);
    }
    tg_free(text);
    tg_strbuf_release(&made);
    tg_free(from);
    tg_free(to);
    return rc;
}

int tg_model_files_copy(const char *from_dir, const char *to_dir, const char *dtype,
                        struct tg_err *err)
{
    char **names = NULL;
    size_t count = 0;
    int rc = tg_dir_list(from_dir, &names, &count, err);

    for (size_t i = 0; i < count && rc == TG_OK; i++) {
        if (is_weights(names[i]))
            continue;
        if (dtype && !strcmp(names[i], "config.json"))
            rc = copy_config(from_dir, to_dir, dtype, err);
        else
            rc = tg_model_file_copy(from_dir, to_dir, names[i], err);
    }
    tg_names_free(names, count);
    return rc;
}
