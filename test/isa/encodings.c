/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs over the whole instruction table (generate.h): the bare CPU, the translator and the interpreter have
 * to end in the same state; where the bare CPU cannot run them, the translator and the interpreter.
 *
 *	isa/encodings [--mode N] [--seed S] [--count N] [--seconds N] [--pieces N] [--engine interp|jit] [--show]
 *	isa/encodings --code HEX [--mode N] [--seed S]	 this code, from the state of that seed
 *
 * Without --mode all modes share the time. Without --seed the first seed is 1 (`clock`: the time of day), and each
 * program has the seed that follows. Programs run in a child process; one that dies or hangs is a failure like any
 * other. A failing program is made shorter as long as it fails; `--mode M --seed S --count 1` runs it again as it was.
 *
 * The lines of the result are as cmocka's, for tools/run-tests.
 *
 * Arithmetic flags that are written before they are read on every way on do not count in what the handler of an
 * exception finds (doc/translator.md); they do for the interpreter.
 */
#include <Zydis/Zydis.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "cpu/x86/x86.h"
#include "test/isa/generate.h"

#define FAILURES_MAX 6
#define SILENCE_S 20 /* a child that finishes no program for so long hangs */

struct options {
	int mode; /* -1: all */
	uint64_t seed, count;
	unsigned seconds, pieces;
	const struct cpu_engine *only;
	bool show;
	const char *code; /* in hexadecimal, or NULL */
};

/* What the child tells the parent. */
struct progress {
	volatile uint64_t seed, done, faults, timeouts;
	volatile bool failed;
};

struct runner {
	struct isa *isa;
	const struct cpu_engine *engine[ISA_ENGINES];
	unsigned engines;
};

/* ---- one program ---- */

/* One access may raise two exceptions, and which is reported depends on the processor: misaligned and elsewhere. */
static bool
same_fault_other_order(const struct isa_state *bare, const struct isa_state *out)
{
	return bare->rip == out->rip &&
	       ((bare->vector == EXC_GP && out->vector == EXC_SS) || (bare->vector == EXC_AC && out->vector == EXC_PF));
}

/* The word under the stack pointer as `bare` has it. */
static void
take_pushed(const struct isa_state *bare, struct isa_state *out)
{
	uint64_t at = bare->gpr[RSP] - 8;

	if (at >= ISA_CODE && at - ISA_CODE <= ISA_CODE_SIZE - 8)
		memcpy(out->code + (at - ISA_CODE), bare->code + (at - ISA_CODE), 8);
	if (at >= ISA_DATA && at - ISA_DATA <= ISA_DATA_SIZE - 8)
		memcpy(out->data + (at - ISA_DATA), bare->data + (at - ISA_DATA), 8);
	if (at >= ISA_STACK && at - ISA_STACK <= ISA_STACK_SIZE - 8)
		memcpy(out->stack + (at - ISA_STACK), bare->stack + (at - ISA_STACK), 8);
}

/*
 * Where the SDM leaves something open or the engines do not go into it: the address in a page that a vector access
 * with several elements is blamed for, and whether one that is misaligned comes before one that is absent; whether
 * MASKMOV may fault on bytes it leaves out; an x87 store that raises an unmasked exception does not look at its address;
 * whether a CALL to a non-canonical address has pushed.
 */
static bool
near_enough(const struct program *p, const struct isa_state *bare, struct isa_state *out)
{
	if (bare->vector == EXC_PF && out->vector == EXC_PF && (bare->cr2 ^ out->cr2) < PAGE_SIZE &&
		program_has(p, bare->rip, TRAIT_VECTOR))
		out->cr2 = bare->cr2;
	if (bare->vector == EXC_PF && out->vector == EXC_AC && bare->rip == out->rip &&
		program_has(p, bare->rip, TRAIT_VECTOR))
		return true;
	if (bare->vector == EXC_PF && program_has(p, bare->rip, TRAIT_MASKMOV))
		return true;
	if (bare->vector == EXC_GP && out->vector == EXC_GP && program_has(p, bare->rip, TRAIT_CALL))
		take_pushed(bare, out);
	return (out->vector == EXC_GP || out->vector == EXC_SS) && bare->fsw & 0x80 && !(out->fsw & 0x80) &&
	       program_has(p, out->rip, TRAIT_X87_STORE);
}

static bool
same_as_bare(struct runner *r, struct program *p, const struct isa_state *in, struct progress *pr, FILE *f)
{
	static struct isa_state bare, out;
	bool good = true, changed;

	isa_run_bare(r->isa, p->code, p->len, in, &bare);
	pr->faults += bare.vector != EXC_UD;
	changed = memcmp(bare.code + (p->at - ISA_CODE), p->code, p->len);
	for (unsigned n = 0; n < r->engines; n++) {
		unsigned flags = ISA_FLAGS, what = ISA_VECTORS;

		isa_run_engine(r->isa, n, p->code, p->len, in, &out);
		if (bare.vector == out.vector && bare.vector != EXC_UD && program_fault_varies(p, bare.rip))
			continue;
		if (same_fault_other_order(&bare, &out) || near_enough(p, &bare, &out))
			continue;
		if (bare.vector == ISA_TIMEOUT && out.vector == ISA_TIMEOUT) {
			pr->timeouts++;
			continue;
		}
		/* A single step may end between an instruction whose flags vary and the one that sets them all behind it. */
		if (r->engine[n] == &cpu_engine_jit || bare.vector == EXC_DB)
			flags = FLAG_DF | program_live_flags(p, bare.rip);
		if (changed && out.vector == EXC_GP && out.error & 0xfffc) /* a segment that only the host has */
			continue;
		if (r->engine[n] == &cpu_engine_jit && changed)
			flags = FLAG_DF; /* the program changed itself: what is live in it now is not known */
		if (isa_equal(&bare, &out, what, flags, NULL))
			continue;
		if (f) {
			fprintf(f, "bare, %s:\n", r->engine[n]->name);
			isa_equal(&bare, &out, what, flags, f);
		}
		good = false;
	}
	return good;
}

static bool
same_in_engines(struct runner *r, struct program *p, const struct isa_state *in, struct progress *pr, FILE *f)
{
	static struct isa_state out[2];
	bool changed = false;
	unsigned flags;

	for (unsigned n = 0; n < 2; n++) {
		isa_run_engine(r->isa, n, p->code, p->len, in, &out[n]);
		changed |= memcmp(out[n].code + (p->at - ISA_CODE), p->code, p->len) != 0;
	}
	pr->faults += out[0].vector != EXC_UD;
	if (out[0].vector == ISA_TIMEOUT) {
		pr->timeouts++;
		return true;
	}
	flags = FLAG_DF;
	/* How many rounds a string store over itself does before it is read anew is a processor's own business. */
	if (changed && program_has(p, 0, TRAIT_STRING))
		return true;
	if (out[0].rip >= ISA_TABLES_SIZE && !changed) /* else it ran off into the tables, as code that nobody knows */
		flags |= program_live_flags(p, out[0].rip);
	if (out[0].vector == out[1].vector && out[0].vector != EXC_UD && program_fault_varies(p, out[0].rip))
		return true;
	/* of MOVS that cannot store, whether it has loaded before */
	if (out[0].vector == EXC_PF && program_has(p, out[0].rip, TRAIT_STRING) &&
		isa_equal(&out[0], &out[1], ISA_VECTORS, flags, NULL))
		return true;
	if (isa_engines_equal(r->isa, ISA_VECTORS, flags, NULL))
		return true;
	if (f) {
		fprintf(f, "%s, %s:\n", r->engine[0]->name, r->engine[1]->name);
		isa_equal(&out[0], &out[1], ISA_VECTORS, flags, f);
		isa_engines_equal(r->isa, ISA_VECTORS, flags, f);
	}
	return false;
}

static bool
same(struct runner *r, struct program *p, struct progress *pr, FILE *f)
{
	static struct isa_state in;

	program_state(p, &in);
	return p->bare ? same_as_bare(r, p, &in, pr, f) : same_in_engines(r, p, &in, pr, f);
}

/* ---- children ---- */

static bool
open_runner(struct runner *r, enum isa_mode mode, const struct options *o)
{
	memset(r, 0, sizeof(*r));
	if (o->only) {
		r->engine[r->engines++] = o->only;
	} else {
		r->engine[r->engines++] = &cpu_engine_interp;
		r->engine[r->engines++] = &cpu_engine_jit;
	}
	r->isa = isa_open(mode, r->engine, r->engines);
	return r->isa != NULL;
}

/* Wait for a child that reports progress; kill it when it stops doing so. True: it ended with status 0. */
static bool
wait_for(pid_t pid, struct progress *pr, const char **how)
{
	uint64_t seen = UINT64_MAX;
	int status, silent = 0;

	for (;;) {
		pid_t r = waitpid(pid, &status, WNOHANG);

		if (r == pid)
			break;
		usleep(2000);
		silent = pr->done != seen ? 0 : silent + 1;
		seen = pr->done;
		if (silent > SILENCE_S * 500) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			*how = "it does not end";
			return false;
		}
	}
	*how = WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "differs";
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static pid_t
start_child(void)
{
	fflush(NULL);
	return fork();
}

/* Does it fail, in a process of its own? */
static bool
fails(const struct options *o, struct program *p, struct progress *pr, FILE *f, const char **how)
{
	pid_t pid = start_child();

	if (!pid) {
		struct runner r;

		if (!open_runner(&r, p->mode, o))
			_exit(2);
		if (same(&r, p, pr, f))
			_exit(0);
		if (f)
			fflush(f);
		_exit(1);
	}
	return !wait_for(pid, pr, how);
}

/* Leave out what does not matter. */
static void
shrink(const struct options *o, struct program *p, struct progress *pr)
{
	const char *how;

	for (unsigned k = p->pieces; k-- > 0;) {
		struct program without = *p;

		program_drop(&without, k);
		if (fails(o, &without, pr, NULL, &how))
			*p = without;
	}
}

static void
explain(const struct options *o, enum isa_mode mode, uint64_t seed, struct progress *pr)
{
	static struct program p;
	const char *how = "";
	unsigned n;

	for (n = 1; n < o->pieces; n++) {
		program_make(&p, seed, mode, isa_bare(mode), n);
		if (fails(o, &p, pr, NULL, &how))
			break;
	}
	program_make(&p, seed, mode, isa_bare(mode), n);
	if (!fails(o, &p, pr, NULL, &how)) {
		printf("--mode %d --seed %llu failed (%s), but not alone\n", mode, (unsigned long long)seed, how);
		return;
	}
	shrink(o, &p, pr);
	fails(o, &p, pr, stdout, &how);
	printf("FAILED (%s): isa/encodings --mode %d --seed %llu --count 1 --pieces %u; what matters of it:\n", how,
		mode, (unsigned long long)seed, n);
	program_print(&p, stdout);
}

/* Run seeds until time or count is up. */
static void
run_seeds(const struct options *o, enum isa_mode mode, uint64_t first, struct timespec end, struct progress *pr)
{
	static struct program p;
	struct runner r;

	if (!open_runner(&r, mode, o))
		_exit(2);
	for (uint64_t n = 0; !o->count || first + n < o->seed + o->count; n++) {
		struct timespec now;

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (o->seconds && (now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec > end.tv_nsec)))
			break;
		pr->seed = first + n;
		program_make(&p, first + n, mode, isa_bare(mode), o->pieces);
		if (o->show)
			program_print(&p, stdout);
		if (!same(&r, &p, pr, stdout)) {
			fflush(stdout);
			_exit(1);
		}
		pr->done++;
	}
	isa_close(r.isa);
	fflush(stdout);
	_exit(0);
}

static unsigned
run_mode(const struct options *o, enum isa_mode mode, double seconds, struct progress *pr)
{
	struct timespec end;
	uint64_t first = o->seed;
	unsigned failures = 0;
	const char *how;

	memset(pr, 0, sizeof(*pr));
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (time_t)seconds;
	end.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
	if (end.tv_nsec >= 1000000000) {
		end.tv_nsec -= 1000000000;
		end.tv_sec++;
	}
	for (;;) {
		pid_t pid = start_child();

		if (!pid)
			run_seeds(o, mode, first, end, pr);
		if (wait_for(pid, pr, &how))
			break;
		explain(o, mode, pr->seed, pr);
		first = pr->seed + 1;
		if (++failures == FAILURES_MAX || (o->count && first >= o->seed + o->count))
			break;
	}
	printf("[%s] encodings, %s: %llu programs from seed %llu, %llu with faults, %llu without end, %u differ\n",
		failures ? "  FAILED  " : "       OK ", isa_mode_text(mode), (unsigned long long)pr->done,
		(unsigned long long)o->seed, (unsigned long long)pr->faults, (unsigned long long)pr->timeouts,
		failures);
	return failures;
}

static void
parse(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		const char *v = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--show")) {
			o->show = true;
			continue;
		}
		i++;
		if (!strcmp(argv[i - 1], "--mode"))
			o->mode = atoi(v);
		else if (!strcmp(argv[i - 1], "--seed"))
			o->seed = !strcmp(v, "clock") ? (uint64_t)time(NULL) << 20 : strtoull(v, NULL, 0);
		else if (!strcmp(argv[i - 1], "--count"))
			o->count = strtoull(v, NULL, 0);
		else if (!strcmp(argv[i - 1], "--seconds"))
			o->seconds = (unsigned)atoi(v);
		else if (!strcmp(argv[i - 1], "--code"))
			o->code = v;
		else if (!strcmp(argv[i - 1], "--pieces"))
			o->pieces = (unsigned)atoi(v);
		else if (!strcmp(argv[i - 1], "--engine"))
			o->only = !strcmp(v, "jit") ? &cpu_engine_jit : &cpu_engine_interp;
		else
			fprintf(stderr, "unknown option %s\n", argv[i - 1]);
	}
}

static int
run_code(const struct options *o, struct progress *pr)
{
	static struct program p;
	enum isa_mode mode = o->mode < 0 ? ISA_USER64 : (enum isa_mode)o->mode;
	const char *how = "the same";
	unsigned byte;

	program_make(&p, o->seed, mode, isa_bare(mode), 0);
	p.loop = false;
	p.len = 0;
	for (const char *c = o->code; sscanf(c, "%2x", &byte) == 1; c += c[2] == ' ' ? 3 : 2) {
		p.code[p.len++] = (uint8_t)byte;
		if (!c[1] || !c[2])
			break;
	}
	program_print(&p, stdout);
	if (!fails(o, &p, pr, stdout, &how))
		return 0;
	printf("%s\n", how);
	return 1;
}

int
main(int argc, char **argv)
{
	struct options o = { .mode = -1, .seed = 1, .pieces = 20 };
	struct progress *pr = mmap(NULL, sizeof(*pr), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned failures = 0;

	parse(argc, argv, &o);
	if (o.code)
		return run_code(&o, pr);
	if (!o.seconds && !o.count)
		o.seconds = 36;
	for (int mode = 0; mode < ISA_MODE_COUNT; mode++) {
		/* a third of the time for the first mode, the same for the second, the others share the rest */
		double share = o.mode >= 0 ? 1 : isa_bare((enum isa_mode)mode) ? 1 / 3. : 1 / 3. / (ISA_MODE_COUNT - 2);

		if ((o.mode >= 0 && mode != o.mode) || (o.only && !isa_bare((enum isa_mode)mode)))
			continue;
		failures += run_mode(&o, (enum isa_mode)mode, o.seconds * share, pr);
		fflush(stdout);
	}
	return failures != 0;
}
