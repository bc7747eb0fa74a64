/* SPDX-License-Identifier: MIT */
/*
 * driver.c - feeds damaged copies of a target's seeds to it, for a given time.
 *
 * What finds the faults are the sanitizers, assert() and a watchdog: an input must be done with in
 * HANG_S seconds, of which those do not count in which the whole process was stopped.  The input
 * that did it is left in a file, which as an argument replays it; so do several.
 * FUZZ_SECONDS (default 10) and FUZZ_SEED (default 1) are taken from the environment.
 * "--seeds FOLDER" writes the seeds there.  No coverage is measured here; see cover.c.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"
#include "vmm/util/base.h"

#define INPUT_MAX (4 * MiB)
#define SEEDS_MAX 16
#define HANG_S	  20

static uint8_t input[INPUT_MAX];
static size_t input_size;
static char crash_file[256];
static uint64_t random_state;
static atomic_uint inputs; /* that were begun */

void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

/* Also from a signal handler: system calls only. */
static void save_input(void)
{
	static const char words[] = "FAIL: the input is in ";
	int fd = open(crash_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, input, input_size) != (ssize_t)input_size)
		return;
	close(fd);
	if (write(2, words, sizeof(words) - 1) < 0 ||
		write(2, crash_file, strlen(crash_file)) < 0 || write(2, "\n", 1) < 0)
		_exit(1);
}

static void on_fatal(int sig)
{
	signal(SIGABRT, SIG_DFL);
	save_input();
	abort();
}

/* Seconds are counted by sleeping them: a clock would go on while the process is frozen. */
static void *watchdog(void *unused)
{
	unsigned last = atomic_load(&inputs), still = 0;

	while (still < HANG_S) {
		unsigned now;

		sleep(1);
		now = atomic_load(&inputs);
		still = now == last ? still + 1 : 0;
		last = now;
	}
	fprintf(stderr, "this input hangs\n");
	abort();
	return unused;
}

static int replay(const char *path)
{
	FILE *f = fopen(path, "re");

	if (!f) {
		perror(path);
		return 1;
	}
	input_size = fread(input, 1, sizeof(input), f);
	fclose(f);
	LLVMFuzzerTestOneInput(input, input_size);
	printf("ok %s: replayed %s\n", fuzz_name, path);
	return 0;
}

static int write_seeds(const char *folder)
{
	char path[512];

	for (unsigned n = 0; (input_size = fuzz_seed(input, sizeof(input), n)); n++) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s-%u", folder, fuzz_name, n);
		f = fopen(path, "we");
		if (!f || fwrite(input, 1, input_size, f) != input_size || fclose(f)) {
			perror(path);
			return 1;
		}
	}
	return 0;
}

static unsigned from_env(const char *name, unsigned by_default)
{
	const char *v = getenv(name);

	return v && *v ? (unsigned)strtoul(v, NULL, 10) : by_default;
}

int main(int argc, char **argv)
{
	static uint8_t *seeds[SEEDS_MAX];
	static size_t sizes[SEEDS_MAX];
	unsigned n = 0, runs = 0, seed = from_env("FUZZ_SEED", 1);
	pthread_t dog;
	time_t end = time(NULL) + from_env("FUZZ_SECONDS", 10);

	if (argc == 3 && !strcmp(argv[1], "--seeds"))
		return write_seeds(argv[2]);
	if (argc > 1) {
		while (*++argv)
			n += (unsigned)replay(*argv);
		return n != 0;
	}
	random_state = seed * 0x9e3779b97f4a7c15ULL | 1;
	snprintf(crash_file, sizeof(crash_file), "crash-%s-%u", fuzz_name, seed);
	signal(SIGABRT, on_fatal);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_input);
	while (n < SEEDS_MAX && (sizes[n] = fuzz_seed(input, sizeof(input), n))) {
		seeds[n] = malloc(sizes[n]);
		if (!seeds[n])
			return 1;
		memcpy(seeds[n], input, sizes[n]);
		n++;
	}
	if (!n || pthread_create(&dog, NULL, watchdog, NULL)) {
		printf("FAIL %s: no %s\n", fuzz_name, n ? "watchdog" : "seeds");
		return 1;
	}
	for (; time(NULL) < end; runs++) {
		unsigned k = (unsigned)fuzz_random(&random_state, n);

		input_size = sizes[k];
		memcpy(input, seeds[k], sizes[k]);
		/* The seeds themselves first; they must do no harm either. */
		for (uint64_t i = runs < n ? 0 : 1 + fuzz_random(&random_state, 8); i; i--)
			input_size = fuzz_damage(&random_state, input, input_size);
		atomic_fetch_add(&inputs, 1);
		LLVMFuzzerTestOneInput(input, input_size);
	}
	for (unsigned i = 0; i < n; i++)
		free(seeds[i]);
	printf("ok %s: %u inputs, seed %u\n", fuzz_name, runs, seed);
	return 0;
}
