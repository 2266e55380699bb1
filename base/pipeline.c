#include "base/pipeline.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/mem.h"

struct slot {
    bool ready;
    int status;
    struct tg_err err;
};

struct conveyor {
    const struct tg_pipeline *p;
    struct slot *slots;
    size_t next, used; /* next item to make; items used */
    bool stop;
    int workers; /* begun, to number them */
    pthread_mutex_t lock;
    pthread_cond_t made, freed;
};

/* The next item whose slot is free; false at the end. */
static bool take_item(struct conveyor *c, size_t *item)
{
    bool got;
    pthread_mutex_lock(&c->lock);
    while (!c->stop && c->next < c->p->items && c->next >= c->used + c->p->slots)
        pthread_cond_wait(&c->freed, &c->lock);
    got = !c->stop && c->next < c->p->items;
    if (got)
        *item = c->next++;
    pthread_mutex_unlock(&c->lock);
    return got;
}

static void *work(void *ud)
{
    struct conveyor *c = ud;
    pthread_mutex_lock(&c->lock);
    const int worker = c->workers++;
    pthread_mutex_unlock(&c->lock);
    for (size_t item; take_item(c, &item);) {
        const size_t at = item % c->p->slots;
        struct slot *s = &c->slots[at];
        s->err = (struct tg_err){0};
        s->status = c->p->make(c->p->ud, item, at, worker, &s->err);
        pthread_mutex_lock(&c->lock);
        s->ready = true;
        pthread_cond_signal(&c->made);
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

static int use_all(struct conveyor *c, struct tg_err *err)
{
    int status = TG_OK;
    for (size_t item = 0; item < c->p->items && status == TG_OK; item++) {
        const size_t at = item % c->p->slots;
        struct slot *s = &c->slots[at];
        pthread_mutex_lock(&c->lock);
        while (!s->ready)
            pthread_cond_wait(&c->made, &c->lock);
        s->ready = false;
        pthread_mutex_unlock(&c->lock);
        if (s->status)
            status = tg_fail(err, s->status, "%s", s->err.msg);
        else
            status = c->p->use(c->p->ud, item, at, err);
        pthread_mutex_lock(&c->lock);
        c->used++;
        pthread_cond_broadcast(&c->freed);
        pthread_mutex_unlock(&c->lock);
    }
    return status;
}

static int run_alone(const struct tg_pipeline *p, struct tg_err *err)
{
    int status = TG_OK;
    for (size_t item = 0; item < p->items && status == TG_OK; item++) {
        status = p->make(p->ud, item, 0, 0, err);
        if (status == TG_OK)
            status = p->use(p->ud, item, 0, err);
    }
    return status;
}

int tg_pipeline_run(const struct tg_pipeline *p, struct tg_err *err)
{
    if (p->threads <= 1)
        return run_alone(p, err);
    struct conveyor c = {.p = p};
    pthread_t *threads = tg_alloc_array((size_t)p->threads, sizeof *threads);
    int begun = 0, status = TG_OK;
    c.slots = tg_alloc_array(p->slots, sizeof *c.slots);
    if (!threads || !c.slots) {
        tg_free(threads);
        tg_free(c.slots);
        return tg_fail(err, TG_ERR_NOMEM, "no memory for %d threads", p->threads);
    }
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.made, NULL);
    pthread_cond_init(&c.freed, NULL);
    while (begun < p->threads && pthread_create(&threads[begun], NULL, work, &c) == 0)
        begun++;
    status = begun ? use_all(&c, err) : run_alone(p, err);
    pthread_mutex_lock(&c.lock);
    c.stop = true;
    pthread_cond_broadcast(&c.freed);
    pthread_mutex_unlock(&c.lock);
    for (int i = 0; i < begun; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&c.freed);
    pthread_cond_destroy(&c.made);
    pthread_mutex_destroy(&c.lock);
    tg_free(threads);
    tg_free(c.slots);
    return status;
}
