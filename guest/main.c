/* SPDX-License-Identifier: MIT */
/*
 * main.c - which words the command line may have, and the order of a run.
 *
 * Jobs run in the order of the table, whatever the order of the words; the first status that is
 * not 0 is the exit status.  A word that no chosen job knows ends the run before it begins, so that
 * a misspelt option cannot pass as a result.
 */
#include "guest/guest.h"

struct job {
	const char *name;
	int (*run)(void);
	bool timed;          /* needs the clock */
	const char *options; /* keys and words, separated and surrounded by spaces */
};

_Noreturn void guest_main(void);

static const char common_options[] = " tsc_khz bus disk wait timeout seg ring ";

static int job_hello(void)
{
	return STATUS_OK;
}

static int job_exit(void)
{
	return (int)option_u64("exit", 0, 0, 127);
}

static _Noreturn int job_spin(void)
{
	for (;;)
		__builtin_ia32_pause();
}

static _Noreturn int job_halt(void)
{
	for (;;)
		cpu_call(CALL_HALT, 0);
}

static int job_poweroff(void)
{
	outw(0x604, 0x2000);
	delay_usec(1000000);
	fail(STATUS_DEVICE, "poweroff: still running");
}

_Noreturn void machine_reset(void)
{
	outb(0xcf9, 6);
	delay_usec(100000);
	outb(0x64, 0xfe);
	delay_usec(1000000);
	fail(STATUS_DEVICE, "reset: still running");
}

static int job_reset(void)
{
	machine_reset();
}

static int job_triple(void)
{
	cpu_call(CALL_TRIPLE, 0);
	fail(STATUS_DEVICE, "triple: still running");
}

static const struct job jobs[] = {
	{"hello", job_hello, false, " "},
	{"mem", job_mem, true, " "},
	{"io", job_io, true, " rw bs depth seconds span queue flush_every "},
	{"install", job_install, true, " flush verify "},
	{"verify", job_verify, true, " verify "},
	{"wce", job_wce, true, " script "},
	{"churn", job_churn, true, " seed steps switches rounds span "},
	{"hostile", job_hostile, true, " seed count case "},
	{"hostile-ide", job_hostile_ide, true, " seed count "},
	{"smp", job_smp, true, " smp "},
	{"exit", job_exit, false, " exit "},
	{"spin", job_spin, false, " "},
	{"halt", job_halt, false, " "},
	{"poweroff", job_poweroff, true, " "},
	{"reset", job_reset, true, " "},
	{"triple", job_triple, false, " "},
};

static bool wanted(const struct job *j)
{
	return option_flag(j->name) || option_str(j->name, NULL);
}

/* Whether list has the word, as far as its '='. */
static bool listed(const char *list, const char *word)
{
	size_t len = 0;

	while (word[len] && word[len] != '=')
		len++;
	for (const char *p = list; *p; p++)
		if (p[0] == ' ' && strncmp(p + 1, word, len) == 0 && p[1 + len] == ' ')
			return len != 0;
	return false;
}

static bool known(const char *word)
{
	if (listed(common_options, word))
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++)
		if (strcmp(word, jobs[i].name) == 0 ||
			(wanted(&jobs[i]) && listed(jobs[i].options, word)))
			return true;
	return false;
}

_Noreturn void guest_main(void)
{
	int status = STATUS_OK, s;
	unsigned n = 0;
	bool timed = false;

	for (unsigned i = 0; option_word(i); i++)
		if (!known(option_word(i)))
			fail(STATUS_USAGE, "unknown word '%s'", option_word(i));
	for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++) {
		n += wanted(&jobs[i]);
		timed |= wanted(&jobs[i]) && jobs[i].timed;
	}
	if (!n)
		fail(STATUS_USAGE,
			"no job: hello, mem, io, install, verify, wce, churn, hostile, "
			"hostile-ide, smp, exit, spin, halt, poweroff, reset or triple");
	if (timed)
		clock_init();
	for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (!wanted(&jobs[i]))
			continue;
		s = jobs[i].run();
		if (status == STATUS_OK)
			status = s;
	}
	report("done status=%u", (unsigned)status);
	leave(status);
}
