/* A plain main for fuzz targets where libFuzzer is missing: replays the files of the folders (or
 * files) named, then mutates them for some seconds. Deterministic: --seed N replays a run. The
 * input in hand is kept in a file until it has passed. fuzz_x [--seconds N] [--seed N] [--keep
 * FILE] PATH... */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_SEEDS = 4096, MAX_INPUT = 1 << 20 };

struct input {
    char *bytes;
    size_t len;
};

static struct input seeds[MAX_SEEDS];
static size_t seed_count;

static void add_file(const char *path)
{
    struct input in;
    struct tg_err err = {0};
    if (seed_count == MAX_SEEDS ||
        tg_file_read(path, MAX_INPUT, &in.bytes, &in.len, &err) != TG_OK) {
        fprintf(stderr, "left out: %s\n", err.code ? err.msg : path);
        return;
    }
    seeds[seed_count++] = in;
}

static void add_path(const char *path)
{
    char **names;
    size_t count;
    if (!tg_path_is_dir(path)) {
        add_file(path);
        return;
    }
    if (tg_dir_list(path, &names, &count, NULL) != TG_OK)
        return;
    for (size_t i = 0; i < count; i++) {
        char *full = tg_path_join(path, names[i]);
        if (full)
            add_file(full);
        tg_free(full);
    }
    tg_names_free(names, count);
}

/* One small change: a bit, a byte, a piece removed, doubled, or copied from another seed. */
static void mutate(struct tg_rng *r, struct input *in)
{
    static const char spice[] = "{}[]\",:0-9eE.\\u\x00\x7F\x80\xFF";
    size_t at = in->len ? tg_rng_below(r, in->len) : 0, n = 1 + tg_rng_below(r, 16),
           room = MAX_INPUT - in->len;
    const struct input *other = &seeds[tg_rng_below(r, seed_count)];
    if (n > in->len - at)
        n = in->len - at;
    switch (tg_rng_below(r, 6)) {
    case 0:
        if (in->len)
            in->bytes[at] ^= (char)(1u << tg_rng_below(r, 8));
        break;
    case 1:
        if (in->len)
            in->bytes[at] = (char)tg_rng_u32(r);
        break;
    case 2:
        if (in->len)
            in->bytes[at] = spice[tg_rng_below(r, sizeof spice - 1)];
        break;
    case 3:
        memmove(in->bytes + at, in->bytes + at + n, in->len - at - n);
        in->len -= n;
        break;
    case 4:
        if (n <= room) {
            memmove(in->bytes + at + n, in->bytes + at, in->len - at);
            in->len += n;
        }
        break;
    default:
        if (other->len && n <= room) {
            size_t from = tg_rng_below(r, other->len);
            n = n < other->len - from ? n : other->len - from;
            memmove(in->bytes + at + n, in->bytes + at, in->len - at);
            memcpy(in->bytes + at, other->bytes + from, n);
            in->len += n;
        }
    }
}

/* The target gets a block of exactly its size, so that a sanitizer sees a read past the end. */
static void run_one(const struct input *in)
{
    uint8_t *exact = tg_alloc(in->len);
    if (!exact)
        abort();
    memcpy(exact, in->bytes, in->len);
    LLVMFuzzerTestOneInput(exact, in->len);
    tg_free(exact);
}

/* Written over in place: to create a file for each input would cost more than most inputs. */
static void keep(int fd, const struct input *in)
{
    if (fd >= 0 && (pwrite(fd, in->bytes, in->len, 0) < 0 || ftruncate(fd, (off_t)in->len) != 0))
        perror("keep");
}

int main(int argc, char **argv)
{
    double seconds = 0;
    uint64_t seed = 1, runs = 0;
    const char *kept = NULL;
    int fd = -1;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more && strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[++i], NULL);
        else if (more && strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--keep") == 0)
            fd = open(kept = argv[++i], O_RDWR | O_CREAT, 0666);
        else
            add_path(argv[i]);
    }
    if (seed_count == 0)
        seeds[seed_count++] = (struct input){tg_alloc(1), 0};
    for (size_t i = 0; i < seed_count; i++, runs++)
        run_one(&seeds[i]);
    struct tg_rng r = tg_rng_make(seed, 0);
    struct input in = {tg_alloc(MAX_INPUT), 0};
    time_t begin = time(NULL);
    while (in.bytes && difftime(time(NULL), begin) < seconds) {
        const struct input *from = &seeds[tg_rng_below(&r, seed_count)];
        memcpy(in.bytes, from->bytes, from->len);
        in.len = from->len;
        for (uint64_t n = 1 + tg_rng_below(&r, 8); n > 0; n--)
            mutate(&r, &in);
        keep(fd, &in);
        run_one(&in);
        runs++;
    }
    if (fd >= 0) {
        close(fd);
        unlink(kept);
    }
    for (size_t i = 0; i < seed_count; i++)
        tg_free(seeds[i].bytes);
    tg_free(in.bytes);
    printf("%s: %llu inputs, nothing found\n", tg_path_base(argv[0]), (unsigned long long)runs);
    return 0;
}
