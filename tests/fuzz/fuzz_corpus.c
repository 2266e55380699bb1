/* Corpora: any bytes as a file of text, JSON lines or token ids, plain and gzip. The first byte
 * says the kind:
 *
 *   t  the rest is the file c.txt: plain text, gzip or .npy, whichever it begins like
 *   j  the file c.jsonl, likewise
 *   s  the file c.safetensors
 *   T  J  the rest as two gzip members, which must give what it gives plain
 *   N  the rest up to a newline is the dict of an .npy whose length field is right; data follows
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "formats/corpus.h"
#include "tests/fuzz/fuzz.h"

enum { TEXT_MAX = 1 << 18, NPY_HEAD = 10, LIMIT = 9 };

static char folder[] = "/tmp/tegu-fuzz-corpus-XXXXXX";
static struct tg_tokenizer *tok;

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void clean_up(void)
{
    tg_tokenizer_free(tok);
    tg_dir_remove(folder, NULL);
}

static void begin(void)
{
    static const char json[] =
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":8,\"content\":\"<|endoftext|>\","
        "\"special\":"
        "true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
        "\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"?\",\"fuse_unk\":false,"
        "\"byte_fallback\":false,\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\" \":3,\"e\":4,\"ab\":5,"
        "\" a\":6,\"\\n\":7},\"merges\":[[\"a\",\"b\"],[\" \",\"a\"]]}}";
    struct tg_err err = {0};
    if (tok)
        return;
    require(mkdtemp(folder) != NULL);
    if (tg_tokenizer_parse(&tok, json, sizeof json - 1, "fuzz", 0, &err) != TG_OK) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    atexit(clean_up);
}

/* One reading of a part; on failure nothing is appended and the message names the file. */
static int read_part(char *path, double from, double to, size_t limit, struct tg_ids *ids)
{
    const struct tg_corpus_spec spec = {
        .path = path, .begin = from, .end = to, .begin_share = true, .end_share = true};
    const size_t before = ids->count;
    struct tg_err err = {0};
    const int rc = tg_corpus_read(&spec, tok, limit, ids, &err);
    if (rc == TG_OK) {
        require(ids->count > before);
    } else {
        require(rc != TG_ERR_NOMEM && err.code == rc && ids->count == before);
        require(strstr(err.msg, path) != NULL);
    }
    for (size_t i = before; i < ids->count; i++)
        require(ids->data[i] >= 0 && (limit == 0 || (size_t)ids->data[i] < limit));
    return rc;
}

/* The whole file into `all`; its halves must make up the same. */
static int read_file(char *path, struct tg_ids *all)
{
    struct tg_ids parts = {0};
    const int rc = read_part(path, 0, 1, 0, all);
    if (rc == TG_OK && all->count > 1) {
        require(read_part(path, 0, 0.5, 0, &parts) == TG_OK);
        require(read_part(path, 0.5, 1, 0, &parts) == TG_OK);
        require(parts.count == all->count);
        require(!memcmp(parts.data, all->data, all->count * sizeof *all->data));
    }
    parts.count = 0;
    read_part(path, 0, 1, LIMIT, &parts);
    tg_ids_release(&parts);
    return rc;
}

/* False if the text is too long to be encoded here: so much stays out of memory as well. */
static bool short_enough(const char *path)
{
    struct tg_err err = {0};
    char *text = NULL;
    size_t len = 0;
    const int rc = tg_text_read(path, TEXT_MAX, &text, &len, &err);
    if (rc == TG_OK) {
        require(len > 0 && len <= TEXT_MAX && text[len] == '\0');
        require(tg_utf8_check(text, len) == len);
        tg_free(text);
    } else {
        require(rc != TG_ERR_NOMEM && err.code == rc && strstr(err.msg, path));
    }
    return !strstr(err.msg, "is larger than");
}

/* Without the fsync of tg_file_write, which would be most of the time */
static void put(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    require(f && fwrite(bytes, 1, size, f) == size);
    require(fclose(f) == 0);
}

static int try_file(const char *name, const void *bytes, size_t size, struct tg_ids *ids)
{
    char *path = tg_path_join(folder, name);
    int rc = TG_ERR_VALUE;
    require(path != NULL);
    put(path, bytes, size);
    if (short_enough(path))
        rc = read_file(path, ids);
    tg_free(path);
    return rc;
}

static size_t member(const uint8_t *data, size_t size, unsigned char *out, size_t room)
{
    z_stream z = {0};
    require(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_in = (unsigned char *)(size ? data : (const uint8_t *)"");
    z.avail_in = (unsigned)size;
    z.next_out = out;
    z.avail_out = (unsigned)room;
    require(deflate(&z, Z_FINISH) == Z_STREAM_END);
    const size_t n = z.total_out;
    deflateEnd(&z);
    return n;
}

static void try_gzip(bool lines, const uint8_t *data, size_t size)
{
    const size_t half = size / 2, room = 2 * size + 256;
    unsigned char *z = tg_alloc(room);
    struct tg_ids packed = {0}, plain = {0};
    size_t n = member(data, half, z, room);
    n += member(data + half, size - half, z + n, room - n);
    const int rc = try_file(lines ? "c.jsonl.gz" : "c.txt.gz", z, n, &packed);
    /* plain bytes that begin like another kind are read as that */
    if (size < 2 || !((data[0] == 0x1F && data[1] == 0x8B) || data[0] == 0x93)) {
        require(try_file(lines ? "c.jsonl" : "c.txt", data, size, &plain) == rc);
        require(packed.count == plain.count);
        require(!plain.count || !memcmp(packed.data, plain.data, plain.count * sizeof *plain.data));
    }
    tg_ids_release(&packed);
    tg_ids_release(&plain);
    tg_free(z);
}

static void try_npy(const uint8_t *data, size_t size, struct tg_ids *ids)
{
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    const size_t dict = line ? (size_t)(line - data) + 1 : size;
    unsigned char *file = tg_alloc(NPY_HEAD + size);
    memcpy(file, "\x93NUMPY\x01", 8);
    file[8] = (unsigned char)dict;
    file[9] = (unsigned char)(dict >> 8);
    if (size)
        memcpy(file + NPY_HEAD, data, size);
    try_file("c.npy", file, NPY_HEAD + size, ids);
    tg_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_ids ids = {0};
    begin();
    if (size == 0)
        return 0;
    const uint8_t kind = *data++;
    size--;
    if (kind == 't' || kind == 'j' || kind == 's')
        try_file(kind == 't'   ? "c.txt"
                 : kind == 'j' ? "c.jsonl"
                               : "c.safetensors",
                 data, size, &ids);
    else if (kind == 'T' || kind == 'J')
        try_gzip(kind == 'J', data, size);
    else if (kind == 'N')
        try_npy(data, size, &ids);
    tg_ids_release(&ids);
    return 0;
}
