/* SPDX-License-Identifier: MIT */
/*
 * offload.c - see offload.h.
 *
 * As many workers as there are CPUs, at most WORKERS_MAX; they start when jobs need them, and end
 * with the loop.  Where no thread is to be had, a job runs inside offload_start().
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "vmm/util/loop_int.h"
#include "vmm/util/offload.h"

#define WORKERS_MAX 8

struct offload_pool {
	unsigned n_workers, max_workers;
	pthread_t worker[WORKERS_MAX];
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t work;
	struct list queue; /* offload */
	unsigned n_idle, n_queued;
	bool quit;
};

/* On the loop: fn has returned. */
static void finished(struct loop_msg *m)
{
	struct offload *o = container_of(m, struct offload, msg);

	o->loop->in_flight--;
	o->over = true;
	if (o->waiter)
		fiber_wake(o->waiter);
}

static void *worker_main(void *arg)
{
	struct offload_pool *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct offload *o;

		while (list_empty(&p->queue) && !p->quit) {
			p->n_idle++;
			pthread_cond_wait(&p->work, &p->lock);
			p->n_idle--;
		}
		if (p->quit)
			break;
		o = list_entry(list_pop(&p->queue), struct offload, link);
		p->n_queued--;
		pthread_mutex_unlock(&p->lock);
		o->fn(o);
		loop_post(o->loop, &o->msg);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Signals are for the threads that expect them. */
static void worker_start(struct offload_pool *p)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&p->worker[p->n_workers], NULL, worker_main, p) == 0)
		p->n_workers++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static struct offload_pool *pool_new(void)
{
	struct offload_pool *p = calloc(1, sizeof(*p));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!p)
		return NULL;
	p->max_workers = cpus < 1 ? 1 : (unsigned)min_u64((uint64_t)cpus, WORKERS_MAX);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	list_init(&p->queue);
	return p;
}

/* Queues o for a worker; false: there is none. */
static bool queue(struct offload_pool *p, struct offload *o)
{
	bool need;

	pthread_mutex_lock(&p->lock);
	list_add_tail(&p->queue, &o->link);
	need = ++p->n_queued > p->n_idle;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	if (need && p->n_workers < p->max_workers)
		worker_start(p);
	if (p->n_workers)
		return true;
	list_del(&o->link); /* and nobody else can have it */
	p->n_queued--;
	return false;
}

void offload_start(struct loop *l, struct offload *o)
{
	o->loop = l;
	o->msg.fn = finished;
	o->waiter = NULL;
	o->over = false;
	if (!l->offload)
		l->offload = pool_new();
	l->in_flight++;
	if (l->offload && queue(l->offload, o))
		return;
	o->fn(o);
	finished(&o->msg);
}

void offload_wait(struct offload *o)
{
	if (o->over)
		return;
	o->waiter = fiber_self();
	while (!o->over)
		fiber_suspend();
}

void offload_free(struct loop *l)
{
	struct offload_pool *p = l->offload;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->n_workers; i++)
		pthread_join(p->worker[i], NULL);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
	l->offload = NULL;
}
