/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bench/guest/rows cannot do with Debian's own programs: one job an argument, and how much of it.
 *
 *	work JOB COUNT [TIMES]
 *
 * Every job ends with a checksum on standard output, so that engines can be compared by result as well as by time.
 * TIMES repeats the whole job in the one process. The job "interrupts" measures itself and prints a rate instead.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <linux/membarrier.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCALAR __attribute__((noinline, optimize("no-tree-vectorize")))
#define AVX2 __attribute__((noinline, target("avx2,fma")))

static void
check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static uint64_t
next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* ---- the kernel's entrances ---- */

static double
syscalls(long n)
{
	int out = open("/dev/null", O_WRONLY), in = open("/dev/zero", O_RDONLY);
	long bytes = 0;
	char c = 0;

	check(out >= 0 && in >= 0, "open");
	for (long i = 0; i < n; i++)
		bytes += write(out, &c, 1) + read(in, &c, 1);
	return (double)bytes;
}

static double
processes(long n)
{
	int status = 0, sum = 0;

	for (long i = 0; i < n; i++) {
		pid_t p = fork();

		check(p >= 0, "fork");
		if (!p) {
			execl("/bin/true", "true", NULL);
			_exit(127);
		}
		check(waitpid(p, &status, 0) == p, "waitpid");
		sum += status;
	}
	return sum;
}

/* Two processes hand one byte to and fro: two switches a round. */
static double
switches(long n)
{
	int there[2], back[2];
	char c = 1;

	check(!pipe(there) && !pipe(back), "pipe");
	if (!fork()) {
		close(there[1]);
		while (read(there[0], &c, 1) == 1)
			check(write(back[1], &c, 1) == 1, "write");
		_exit(0);
	}
	for (long i = 0; i < n; i++)
		check(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1, "pipe");
	close(there[1]);
	wait(NULL);
	return c;
}

/* The first write to each page of fresh anonymous memory, 1024 pages a mapping. */
static double
page_faults(long n)
{
	const size_t size = 1024 * 4096;
	double sum = 0;

	for (long i = 0; i < n; i += 1024) {
		volatile char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check(p != MAP_FAILED, "mmap");
		madvise((void *)p, size, MADV_NOHUGEPAGE);
		for (size_t k = 0; k < size; k += 4096)
			p[k] = 1;
		sum += p[size - 4096];
		munmap((void *)p, size);
	}
	return sum;
}

/* ---- interrupts ---- */

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A timer that interrupts this processor all the time: the kernel's own profiler, whose samples nobody reads. */
#define PERIOD 200e-6

static int
start_timer(void)
{
	struct perf_event_attr a = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(a),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = (uint64_t)(PERIOD * 1e9),
		.disabled = 1,
	};
	int fd = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);

	check(fd >= 0, "perf_event_open");
	check(!ioctl(fd, PERF_EVENT_IOC_ENABLE, 0), "PERF_EVENT_IOC_ENABLE");
	return fd;
}

/*
 * What an interrupt costs the program under it. A loop that does nothing but read the time stamp counter sees every
 * interrupt as a gap. n periods of the timer make the n longest gaps (fewer, if a busy host could not tick so often:
 * what is not ten times the usual step is no interrupt); the median of those is the figure, so that neither the loop's
 * own step nor a host that is busy elsewhere counts. Gaps are sorted into classes 1/16 apart.
 */
#define CLASSES (64 * 16)

static unsigned
class_of(uint64_t gap)
{
	int top = 63 - __builtin_clzll(gap | 16);

	return (unsigned)(top * 16) + (unsigned)(gap >> (top - 4) & 15);
}

static double
middle_of(unsigned class)
{
	return (double)((16 + class % 16) * 2 + 1) / 2 * (double)(1ull << (class / 16 - 4));
}

static double
counter_rate(void)
{
	double start = seconds(), took;
	uint64_t first = __rdtsc();

	while ((took = seconds() - start) < 20e-3)
		;
	return (double)(__rdtsc() - first) / took;
}

static void
count_gaps(uint64_t *count, uint64_t duration)
{
	uint64_t last = __rdtsc(), end = last + duration;

	while (last < end) {
		uint64_t t = __rdtsc();

		count[class_of(t - last)]++;
		last = t;
	}
}

/* The class of the middle one of the n longest gaps, or of all that are ten times the usual. */
static unsigned
middle_gap(const uint64_t *count, uint64_t n)
{
	unsigned usual = 64, k;
	uint64_t longer = 0, seen = 0;

	for (k = 64; k < CLASSES; k++)
		if (count[k] > count[usual])
			usual = k;
	for (k = CLASSES - 1; middle_of(k) > 10 * middle_of(usual); k--)
		longer += count[k];
	n = longer < n ? longer : n;
	for (k = CLASSES - 1; k > usual && seen + count[k] < n / 2; k--)
		seen += count[k];
	return k;
}

static double
interrupts(long n)
{
	static uint64_t count[CLASSES];
	double rate = counter_rate();
	int timer = start_timer();

	count_gaps(count, (uint64_t)((double)n * PERIOD * rate));
	close(timer);
	return rate / middle_of(middle_gap(count, (uint64_t)n));
}

/* Interrupts from one processor to the other and back again: the barrier waits until the other has taken its own. */
static atomic_bool stop;

static void *
spin(void *started)
{
	*(atomic_bool *)started = true;
	while (!stop)
		_mm_pause();
	return NULL;
}

static double
ipis(long n)
{
	atomic_bool started = false;
	double failed = 0;
	pthread_t other;

	check(!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0), "membarrier");
	check(!pthread_create(&other, NULL, spin, &started), "pthread_create");
	while (!started)
		;
	for (long i = 0; i < n; i++)
		failed += syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0;
	stop = true;
	pthread_join(other, NULL);
	return failed;
}

/* ---- floating point ---- */

#define DIM 64
static double a[DIM][DIM], b[DIM][DIM], c[DIM][DIM];

static void
fill_matrices(void)
{
	memset(c, 0, sizeof(c));
	for (int i = 0; i < DIM; i++)
		for (int k = 0; k < DIM; k++) {
			a[i][k] = (i * 7 + k * 3) % 11 / 11.0;
			b[i][k] = (i * 5 + k * 13) % 17 / 17.0;
		}
}

SCALAR static void
multiply(void)
{
	for (int i = 0; i < DIM; i++)
		for (int j = 0; j < DIM; j++) {
			double sum = c[i][j] * 0.5;

			for (int k = 0; k < DIM; k++)
				sum += a[i][k] * b[k][j];
			c[i][j] = sum;
		}
}

AVX2 static void
multiply_avx2(void)
{
	const __m256d half = _mm256_set1_pd(0.5);

	for (int i = 0; i < DIM; i++)
		for (int j = 0; j < DIM; j += 4) {
			__m256d sum = _mm256_mul_pd(_mm256_loadu_pd(&c[i][j]), half);

			for (int k = 0; k < DIM; k++)
				sum = _mm256_fmadd_pd(_mm256_broadcast_sd(&a[i][k]), _mm256_loadu_pd(&b[k][j]), sum);
			_mm256_storeu_pd(&c[i][j], sum);
		}
}

static double
matrix(long n)
{
	fill_matrices();
	while (n--)
		multiply();
	return c[3][5];
}

static double
matrix_avx2(long n)
{
	fill_matrices();
	while (n--)
		multiply_avx2();
	return c[3][5];
}

/* Eight bodies that attract each other; coordinates as arrays, so that four fit one register. */
#define BODIES 8
static double pos[3][BODIES], speed[3][BODIES], mass[BODIES];

static void
place_bodies(void)
{
	uint64_t x = 1;

	memset(speed, 0, sizeof(speed));
	for (int i = 0; i < BODIES; i++) {
		mass[i] = 1 + i * 0.25;
		for (int d = 0; d < 3; d++)
			pos[d][i] = (double)(next_random(&x) % 1000) / 100;
	}
}

SCALAR static void
attract(void)
{
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < BODIES; k++) {
			double dx = pos[0][k] - pos[0][i], dy = pos[1][k] - pos[1][i], dz = pos[2][k] - pos[2][i];
			double square = dx * dx + dy * dy + dz * dz + 0.01;
			double force = mass[k] * 1e-4 / (square * __builtin_sqrt(square));

			speed[0][i] += dx * force;
			speed[1][i] += dy * force;
			speed[2][i] += dz * force;
		}
}

AVX2 static void
attract_avx2(void)
{
	const __m256d soft = _mm256_set1_pd(0.01), dt = _mm256_set1_pd(1e-4);

	for (int i = 0; i < BODIES; i += 4)
		for (int k = 0; k < BODIES; k++) {
			__m256d delta[3], square = soft, force;

			for (int d = 0; d < 3; d++) {
				delta[d] = _mm256_sub_pd(_mm256_set1_pd(pos[d][k]), _mm256_loadu_pd(&pos[d][i]));
				square = _mm256_fmadd_pd(delta[d], delta[d], square);
			}
			force = _mm256_mul_pd(_mm256_set1_pd(mass[k]), dt);
			force = _mm256_div_pd(force, _mm256_mul_pd(square, _mm256_sqrt_pd(square)));
			for (int d = 0; d < 3; d++)
				_mm256_storeu_pd(
					&speed[d][i], _mm256_fmadd_pd(delta[d], force, _mm256_loadu_pd(&speed[d][i])));
		}
}

static void
move_bodies(void)
{
	for (int d = 0; d < 3; d++)
		for (int i = 0; i < BODIES; i++)
			pos[d][i] += speed[d][i];
}

static double
nbody(long n)
{
	place_bodies();
	for (; n--; move_bodies())
		attract();
	return pos[0][0];
}

static double
nbody_avx2(long n)
{
	place_bodies();
	for (; n--; move_bodies())
		attract_avx2();
	return pos[0][0];
}

/* ---- memory that no cache and no TLB likes ---- */

/* A Shell sort of n numbers: strides from half of the array down to one. */
static double
stride_sort(long n)
{
	uint64_t *m = malloc((size_t)n * sizeof(*m)), x = 88172645463325252u;

	check(m && n > 3, "malloc");
	for (long i = 0; i < n; i++)
		m[i] = next_random(&x);
	for (long gap = n / 2; gap; gap /= 2)
		for (long i = gap; i < n; i++) {
			uint64_t v = m[i];
			long k = i;

			for (; k >= gap && m[k - gap] > v; k -= gap)
				m[k] = m[k - gap];
			m[k] = v;
		}
	return (double)(m[0] ^ m[n / 2] ^ m[n - 1]);
}

/* n steps along a list through 32 MiB in random order, one node a cache line. */
static double
random_list(long n)
{
	const size_t count = 512 << 10;
	struct node {
		struct node *next;
		uint64_t value[7];
	} *list = calloc(count, sizeof(*list)), *p;
	uint64_t x = 88172645463325252u, sum = 0;
	size_t at = 0;

	check(list != NULL, "calloc");
	/* An odd step count through a power of two visits every node; the multiplier scatters neighbours. */
	for (size_t i = 0; i < count; i++) {
		size_t next = (at * 1664525 + 1013904223) % count;

		list[at].next = &list[next];
		list[at].value[0] = next_random(&x);
		at = next;
	}
	for (p = list; n--; p = p->next)
		sum += p->value[0];
	return (double)sum;
}

static const struct {
	const char *name;
	double (*run)(long n);
} jobs[] = {
	{ "syscalls", syscalls },
	{ "processes", processes },
	{ "switches", switches },
	{ "page-faults", page_faults },
	{ "interrupts", interrupts },
	{ "ipis", ipis },
	{ "matrix", matrix },
	{ "matrix-avx2", matrix_avx2 },
	{ "nbody", nbody },
	{ "nbody-avx2", nbody_avx2 },
	{ "stride-sort", stride_sort },
	{ "random-list", random_list },
};

int
main(int argc, char **argv)
{
	long times = argc > 3 ? atol(argv[3]) : 1;
	double result = 0;

	for (size_t i = 0; argc >= 3 && i < sizeof(jobs) / sizeof(jobs[0]); i++)
		if (!strcmp(argv[1], jobs[i].name)) {
			while (times-- > 0)
				result = jobs[i].run(atol(argv[2]));
			printf("%.9g\n", result);
			return 0;
		}
	fprintf(stderr, "usage: work JOB COUNT [TIMES]\n");
	return 2;
}
