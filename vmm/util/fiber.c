/* SPDX-License-Identifier: MIT */
/*
 * fiber.c - stacks, the switch between them, and who runs next.
 *
 * The loop's own stack switches to a fiber and the fiber switches back; fibers never
 * switch to each other.  A fiber lives as long as its pool: its stack holds a loop that
 * takes the next start, runs it, and goes back to the free list, so that starting is
 * one switch and nothing has to be set up.  Stacks that were never used cost nothing: a
 * program that lives for milliseconds uses two of them.
 *
 *   FREE --start--> READY --switch--> RUNNING --suspend--> WAITING --wake--> READY
 *                                        `--fn returns--> FREE
 *
 * A fiber that is woken while still RUNNING ("about to be suspended") does not suspend.
 *
 * The switch saves what the x86-64 System V ABI says a callee keeps.  The control
 * words of SSE and x87 are left out: nothing in this program changes them.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vmm/util/fiber.h"
#include "vmm/util/log.h"
#include "vmm/util/loop_int.h"

#ifndef __x86_64__
#error "the context switch below is written for x86-64"
#endif

#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (2 * FIBER_STACK)
#else
#define STACK_BYTES FIBER_STACK
#endif

enum fiber_state { FIBER_FREE, FIBER_READY, FIBER_RUNNING, FIBER_WAITING };

struct fiber {
	struct fiber_pool *pool;
	enum fiber_state state;
	bool woken;	  /* while RUNNING */
	void *sp;	  /* while not RUNNING; NULL: the stack was never used */
	char *stack;	  /* its lowest byte */
	void *asan_fake;
	struct fiber_start *start; /* what to run next */
	struct list link; /* free, ready, yielded, or a fiber_queue */
};

struct fiber_pool {
	struct loop *loop;
	void *loop_sp; /* while a fiber runs */
	void *loop_asan_fake;
	const void *loop_stack; /* ASan's view of it */
	size_t loop_stack_bytes;
	char *map;
	size_t map_bytes, guard; /* of one page, below each stack */
	unsigned n_free;
	struct list free;
	struct fiber fiber[FIBERS_MAX];
};

static _Thread_local struct fiber *current;

/* Not inlined: the address of a thread's variable must not be kept across a switch. */
__attribute__((noinline)) struct fiber *fiber_self(void)
{
	return current;
}

static __attribute__((noinline)) void set_current(struct fiber *f)
{
	current = f;
}

/* Saves this stack in *save, goes on with the other; returns when somebody comes back. */
void fiber_switch_stack(void **save, void *to);
__asm__(".text\n"
	".p2align 4\n"
	".globl fiber_switch_stack\n"
	".hidden fiber_switch_stack\n"
	".type fiber_switch_stack, @function\n"
	"fiber_switch_stack:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size fiber_switch_stack, . - fiber_switch_stack\n");

/* From the loop into f. */
static void switch_in(struct fiber *f)
{
	struct fiber_pool *p = f->pool;

	f->state = FIBER_RUNNING;
	set_current(f);
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(&p->loop_asan_fake, f->stack, STACK_BYTES);
#endif
	fiber_switch_stack(&p->loop_sp, f->sp);
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(p->loop_asan_fake, NULL, NULL);
#endif
	set_current(NULL);
}

/* From f, which is running, back into the loop; returns when f runs again. */
static void switch_out(struct fiber *f)
{
	struct fiber_pool *p = f->pool;

#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(&f->asan_fake, p->loop_stack, p->loop_stack_bytes);
#endif
	fiber_switch_stack(&f->sp, p->loop_sp);
#ifdef WITH_ASAN
	/* The loop may run in another thread, on another stack, than last time. */
	__sanitizer_finish_switch_fiber(f->asan_fake, &p->loop_stack, &p->loop_stack_bytes);
#endif
}

/* The bottom of every fiber's stack; never returns. */
static void fiber_main(void)
{
	struct fiber *f = fiber_self();
	struct fiber_pool *p = f->pool;

#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(f->asan_fake, &p->loop_stack, &p->loop_stack_bytes);
#endif
	for (;;) {
		struct fiber_start *s = f->start;

		f->start = NULL;
		s->fn(s);
		f->state = FIBER_FREE;
		f->woken = false;
		list_add(&p->free, &f->link);
		p->n_free++;
		switch_out(f);
	}
}

/*
 * As fiber_switch_stack() would have left it: six registers, then where to return to.  Below it a
 * page that faults: if the host refuses that, an overflow goes unseen, and nothing else.
 */
static void stack_prepare(struct fiber *f)
{
	void **sp = (void **)(f->stack + STACK_BYTES);

	mprotect(f->stack - f->pool->guard, f->pool->guard, PROT_NONE);
	*--sp = NULL; /* fiber_main's return address: rsp = 16n + 8, as a function starts */
	*--sp = (void *)(uintptr_t)fiber_main;
	for (int i = 0; i < 6; i++)
		*--sp = NULL;
	f->sp = sp;
}

int fiber_pool_init(struct loop *l)
{
	struct fiber_pool *p;

	if (l->fibers)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->guard = (size_t)sysconf(_SC_PAGESIZE);
	p->map_bytes = FIBERS_MAX * (p->guard + STACK_BYTES);
	p->map = mmap(NULL, p->map_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->map == MAP_FAILED) {
		free(p);
		return -ENOMEM;
	}
	p->loop = l;
	list_init(&p->free);
	for (size_t i = 0; i < FIBERS_MAX; i++) {
		struct fiber *f = &p->fiber[i];

		f->pool = p;
		f->stack = p->map + i * (p->guard + STACK_BYTES) + p->guard;
		list_add_tail(&p->free, &f->link);
	}
	p->n_free = FIBERS_MAX;
	l->fibers = p;
	return 0;
}

void fiber_pool_free(struct loop *l)
{
	struct fiber_pool *p = l->fibers;

	for (unsigned i = 0; i < FIBER_LEVELS; i++)
		assert(list_empty(&l->fiber_starts[i]));
	if (!p)
		return;
	assert(p->n_free == FIBERS_MAX);
	munmap(p->map, p->map_bytes);
	free(p);
	l->fibers = NULL;
}

/* Not inlined: gcc takes fiber_run()'s start, which is gone from the list in time, for dangling. */
__attribute__((noinline)) void fiber_start(struct loop *l, struct fiber_start *s)
{
	fiber_start_at(l, s, 0);
}

void fiber_start_at(struct loop *l, struct fiber_start *s, unsigned level)
{
	assert(level < FIBER_LEVELS);
	list_add_tail(&l->fiber_starts[level], &s->link);
}

/* How many stacks a start at a level leaves to those above it. */
static unsigned kept_above(unsigned level)
{
	return FIBERS_INNER / (FIBER_LEVELS - 1) * (FIBER_LEVELS - 1 - level);
}

static bool starts_can_run(const struct loop *l)
{
	unsigned n_free = l->fibers ? l->fibers->n_free : FIBERS_MAX;

	for (unsigned i = 0; i < FIBER_LEVELS; i++)
		if (!list_empty(&l->fiber_starts[i]) && n_free > kept_above(i))
			return true;
	return false;
}

bool fibers_can_run(const struct loop *l)
{
	return !list_empty(&l->fiber_ready) || !list_empty(&l->fiber_yielded) || starts_can_run(l);
}

/* Starts those in line while more than keep stacks are free. */
static bool run_starts(struct fiber_pool *p, struct list *line, unsigned keep)
{
	struct list batch;
	bool ran = false;

	list_init(&batch);
	list_splice_tail(&batch, line);
	while (p->n_free > keep && !list_empty(&batch)) {
		struct fiber *f = list_entry(list_pop(&p->free), struct fiber, link);

		f->start = list_entry(list_pop(&batch), struct fiber_start, link);
		p->n_free--;
		if (!f->sp)
			stack_prepare(f);
		switch_in(f);
		ran = true;
	}
	/* Those without a stack stay first in line. */
	list_splice_tail(&batch, line);
	list_splice_tail(line, &batch);
	return ran;
}

bool fibers_run(struct loop *l)
{
	struct list batch;
	struct list *n;
	bool ran = false;

	/* One batch a round, so that completions get their turn between. */
	list_init(&batch);
	list_splice_tail(&batch, &l->fiber_ready);
	while ((n = list_pop(&batch))) {
		switch_in(list_entry(n, struct fiber, link));
		ran = true;
	}
	if (!starts_can_run(l))
		return ran;
	if (!l->fibers && fiber_pool_init(l)) {
		/* Whoever cannot live with this calls fiber_pool_init() and handles it. */
		log_error("no memory for fibers");
		abort();
	}
	for (unsigned i = 0; i < FIBER_LEVELS; i++)
		if (!list_empty(&l->fiber_starts[i]))
			ran |= run_starts(l->fibers, &l->fiber_starts[i], kept_above(i));
	return ran;
}

void fibers_next_turn(struct loop *l)
{
	list_splice_tail(&l->fiber_ready, &l->fiber_yielded);
}

void fiber_suspend(void)
{
	struct fiber *f = fiber_self();

	assert(f && f->state == FIBER_RUNNING);
	if (!f->woken) {
		f->state = FIBER_WAITING;
		switch_out(f);
	}
	f->woken = false;
}

void fiber_wake(struct fiber *f)
{
	assert(!f->woken);
	if (f->state == FIBER_RUNNING) {
		f->woken = true;
		return;
	}
	assert(f->state == FIBER_WAITING);
	f->state = FIBER_READY;
	list_add_tail(&f->pool->loop->fiber_ready, &f->link);
}

void fiber_yield(void)
{
	struct fiber *f = fiber_self();

	assert(f && f->state == FIBER_RUNNING && !f->woken);
	f->state = FIBER_READY;
	list_add_tail(&f->pool->loop->fiber_yielded, &f->link);
	switch_out(f);
}

void fiber_queue_init(struct fiber_queue *q)
{
	list_init(&q->waiters);
}

void fiber_queue_wait(struct fiber_queue *q)
{
	struct fiber *f = fiber_self();

	assert(f && !f->woken);
	list_add_tail(&q->waiters, &f->link);
	fiber_suspend();
}

bool fiber_queue_wake_one(struct fiber_queue *q)
{
	struct list *n = list_pop(&q->waiters);

	if (n)
		fiber_wake(list_entry(n, struct fiber, link));
	return n != NULL;
}

void fiber_queue_wake_all(struct fiber_queue *q)
{
	while (fiber_queue_wake_one(q))
		;
}

void fiber_lock_init(struct fiber_lock *lock)
{
	lock->held = false;
	fiber_queue_init(&lock->q);
}

void fiber_lock(struct fiber_lock *lock)
{
	/* unlock hands it over held, so nobody can overtake who waits. */
	if (lock->held)
		fiber_queue_wait(&lock->q);
	lock->held = true;
}

void fiber_unlock(struct fiber_lock *lock)
{
	assert(lock->held);
	if (!fiber_queue_wake_one(&lock->q))
		lock->held = false;
}

struct run {
	struct fiber_start start;
	int (*fn)(void *arg);
	void *arg;
	int ret;
	bool done;
};

static void run_main(struct fiber_start *s)
{
	struct run *r = container_of(s, struct run, start);

	r->ret = r->fn(r->arg);
	r->done = true;
}

int fiber_run(struct loop *l, int (*fn)(void *arg), void *arg)
{
	struct run r = {.start.fn = run_main, .fn = fn, .arg = arg};
	int err = fiber_pool_init(l);

	if (err)
		return err;
	fiber_start(l, &r.start);
	while (!r.done)
		(void)!loop_turn(l, true); /* it goes on after an error */
	return r.ret;
}
