/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What the oracle's guest shows of BPF: a map of each kind that the readers know, filled, and a section of global
 * variables with a BTF written by hand. Needs bpf(), put() and the INSN macros of load.c.
 */
#include <sys/mman.h>

/* .bss of the scheduler: nr_enqueued, then stats, then uei as schedulers keep their end. */
enum { BSS_ENQUEUED = 0, BSS_STATS = 8, BSS_UEI = 48, BSS_FLAGS = 48 + 176, BSS_SIZE = 48 + 176 + 8 };
static char bss_strings[] = "\0unsigned int\0unsigned long\0char\0stats\0seen\0sum\0nr_enqueued\0uei\0user_exit_info\0kind\0"
	"exit_code\0reason\0msg\0.bss\0long\0mode\0IDLE\0BUSY\0flags\0int\0low\0high";

static uint32_t str(const char *s)
{
	for (uint32_t at = 1; at < sizeof bss_strings; at += strlen(bss_strings + at) + 1)
		if (!strcmp(bss_strings + at, s)) return at;
	printf("maps: no string %s\n", s);
	return 0;
}

static int bss_btf(void)
{
	static struct { struct hdr h; uint32_t t[256]; char s[sizeof bss_strings]; } b;
	uint32_t *t = b.t;
#define TYPE(name, kind, vlen, size) (*t++ = str(name), *t++ = (uint32_t)(kind) << 24 | (vlen), *t++ = (size))
#define WORDS(...) do { uint32_t w[] = { __VA_ARGS__ }; memcpy(t, w, sizeof w); t += sizeof w / 4; } while (0)
	TYPE("unsigned int", 1, 0, 4); WORDS(32);				/* 1 */
	TYPE("unsigned long", 1, 0, 8); WORDS(64);				/* 2 */
	TYPE("char", 1, 0, 1); WORDS(1u << 24 | 8);				/* 3 */
	*t++ = 0; *t++ = 3u << 24; *t++ = 0; WORDS(2, 1, 3);			/* 4: unsigned long [3] */
	TYPE("stats", 4, 2, 32); WORDS(str("seen"), 1, 0, str("sum"), 4, 64);	/* 5 */
	*t++ = 0; *t++ = 3u << 24; *t++ = 0; WORDS(3, 1, 64);			/* 6: char [64] */
	TYPE("long", 1, 0, 8); WORDS(1u << 24 | 64);				/* 7 */
	TYPE("user_exit_info", 4, 4, 144);					/* 8 */
	WORDS(str("kind"), 13, 0, str("exit_code"), 7, 64, str("reason"), 6, 128, str("msg"), 6, 640);
	TYPE("nr_enqueued", 14, 0, 2); WORDS(1);				/* 9 */
	TYPE("stats", 14, 0, 5); WORDS(1);					/* 10 */
	TYPE("uei", 14, 0, 8); WORDS(1);					/* 11 */
	TYPE(".bss", 15, 4, BSS_SIZE);						/* 12 */
	WORDS(9, BSS_ENQUEUED, 8, 10, BSS_STATS, 32, 11, BSS_UEI, 144, 16, BSS_FLAGS, 4);
	TYPE("int", 1, 0, 4); WORDS(1u << 24 | 32);				/* 13 */
	TYPE("mode", 6, 2, 4); WORDS(str("IDLE"), 0, str("BUSY"), 1);		/* 14 */
	TYPE("flags", 4, 0x80000000u >> 24 << 24 | 2, 4);			/* 15: bitfields */
	t[-2] = 1u << 31 | 4u << 24 | 2;
	WORDS(str("low"), 1, 3u << 24, str("high"), 14, 5u << 24 | 3);
	TYPE("flags", 14, 0, 15); WORDS(1);					/* 16 */
	uint32_t bytes = (t - b.t) * 4;
	b.h = (struct hdr){ 0xeb9f, 1, 0, 24, 0, bytes, bytes, sizeof bss_strings };
	memcpy(t, bss_strings, sizeof bss_strings);
	static char log[65536]; union bpf_attr a; memset(&a, 0, sizeof a);
	a.btf = (uintptr_t)&b; a.btf_size = 24 + bytes + sizeof bss_strings;
	a.btf_log_buf = (uintptr_t)log; a.btf_log_size = sizeof log; a.btf_log_level = 1;
	int fd = bpf(BPF_BTF_LOAD, &a);
	if (fd < 0) printf("maps: btf: %s\n%s\n", strerror(errno), log);
	return fd;
}

static int map_create(const char *name, int type, int key, int value, int entries, int flags, uint64_t extra)
{
	union bpf_attr a; memset(&a, 0, sizeof a);
	a.map_type = type; a.key_size = key; a.value_size = value; a.max_entries = entries; a.map_flags = flags;
	if (extra) memcpy((char *)&a + 64, &extra, 8); /* map_extra */
	snprintf(a.map_name, sizeof a.map_name, "%s", name);
	int fd = bpf(BPF_MAP_CREATE, &a);
	if (fd < 0) printf("maps: %s: %s\n", name, strerror(errno));
	return fd;
}

static void map_put(int fd, const void *key, const void *value)
{
	union bpf_attr a; memset(&a, 0, sizeof a);
	a.map_fd = fd; a.key = (uintptr_t)key; a.value = (uintptr_t)value;
	if (fd >= 0 && bpf(BPF_MAP_UPDATE_ELEM, &a)) printf("maps: update: %s\n", strerror(errno));
}

/* An array of one element, typed by the section: what libbpf makes of .bss. */
static int bss_create(void)
{
	int btf = bss_btf(); union bpf_attr a; memset(&a, 0, sizeof a);
	if (btf < 0) return -1;
	a.map_type = BPF_MAP_TYPE_ARRAY; a.key_size = 4; a.value_size = BSS_SIZE; a.max_entries = 1;
	a.map_flags = BPF_F_MMAPABLE; a.btf_fd = btf; a.btf_value_type_id = 12; strcpy(a.map_name, "oracle.bss");
	int fd = bpf(BPF_MAP_CREATE, &a);
	if (fd < 0) { printf("maps: .bss: %s\n", strerror(errno)); return fd; }
	char value[BSS_SIZE] = ""; uint32_t key = 0; int64_t code = -7;
	uint32_t seen = 4242, flags = 1 << 3 | 5, kind = 1024; memcpy(value + BSS_STATS, &seen, 4);
	for (uint64_t i = 0; i < 3; i++) { uint64_t sum = i * 1000003; memcpy(value + BSS_STATS + 8 + i * 8, &sum, 8); }
	memcpy(value + BSS_UEI, &kind, 4); memcpy(value + BSS_UEI + 8, &code, 8); memcpy(value + BSS_FLAGS, &flags, 4);
	strcpy(value + BSS_UEI + 16, "a reason"); strcpy(value + BSS_UEI + 80, "a message of the oracle");
	map_put(fd, &key, value);
	return fd;
}

/* A program that does nothing but, with a map, note where its caller is; 0 for a socket filter, else a raw tracepoint. */
static int small_prog(const char *name, int traces)
{
	struct bpf_insn note[] = { INSN(BPF_LD | BPF_DW | BPF_IMM, 2, BPF_PSEUDO_MAP_FD, 0, traces), INSN(0, 0, 0, 0, 0),
				   MOVI(3, 0), INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_stackid), MOVI(0, 0), EXIT };
	union bpf_attr a; memset(&a, 0, sizeof a);
	a.prog_type = traces ? BPF_PROG_TYPE_RAW_TRACEPOINT : BPF_PROG_TYPE_SOCKET_FILTER;
	a.insns = (uintptr_t)(traces ? note : note + 4); a.insn_cnt = traces ? 6 : 2; a.license = (uintptr_t)"GPL";
	snprintf(a.prog_name, sizeof a.prog_name, "%s", name);
	int fd = bpf(BPF_PROG_LOAD, &a);
	if (fd < 0) printf("maps: %s: %s\n", name, strerror(errno));
	return fd;
}

static int map_of_maps(const char *name, int type, int inner)
{
	union bpf_attr a; memset(&a, 0, sizeof a);
	a.map_type = type; a.key_size = 4; a.value_size = 4; a.max_entries = 4; a.inner_map_fd = inner;
	snprintf(a.map_name, sizeof a.map_name, "%s", name);
	int fd = bpf(BPF_MAP_CREATE, &a);
	if (fd < 0) printf("maps: %s: %s\n", name, strerror(errno));
	return fd;
}

/* Maps whose values are file descriptors to those who write them, IDs to those who read them. */
static void references(int inner)
{
	int programs = map_create("o_progs", BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 5, 0, 0);
	int prog = small_prog("o_nothing", 0), cgroup = open("/sys/fs/cgroup", O_RDONLY);
	int cgroups = map_create("o_cgroups", BPF_MAP_TYPE_CGROUP_ARRAY, 4, 4, 3, 0, 0);
	int array = map_of_maps("o_maps", BPF_MAP_TYPE_ARRAY_OF_MAPS, inner);
	int hash = map_of_maps("o_maphash", BPF_MAP_TYPE_HASH_OF_MAPS, inner);
	int traces = map_create("o_traces", BPF_MAP_TYPE_STACK_TRACE, 4, 8 * 20, 64, 0, 0);
	int queue = map_create("o_queue", BPF_MAP_TYPE_QUEUE, 0, 8, 6, 0, 0);
	int stack = map_create("o_stack", BPF_MAP_TYPE_STACK, 0, 8, 6, 0, 0);
	for (uint32_t key = 1; key < 5; key += 2) map_put(programs, &key, &prog);
	for (uint32_t key = 0; key < 3; key += 2) map_put(array, &key, &inner), map_put(cgroups, &key, &cgroup);
	for (uint32_t key = 77; key < 80; key++) map_put(hash, &key, &inner);
	for (uint64_t value = 100; value < 106; value++) map_put(queue, 0, &value), map_put(stack, 0, &value);
	union bpf_attr a; memset(&a, 0, sizeof a);
	int noting = traces < 0 ? -1 : small_prog("o_noting", traces);
	a.raw_tracepoint.name = (uintptr_t)"sched_switch"; a.raw_tracepoint.prog_fd = noting;
	if (noting >= 0 && bpf(BPF_RAW_TRACEPOINT_OPEN, &a) < 0) printf("maps: tracepoint: %s\n", strerror(errno));
}

/* Fills and empties hashes without end, so that elements are freed and taken again while they are read. */
static void churn(int a, int b)
{
	if (fork()) return;
	for (uint64_t i = 0;; i++) {
		uint32_t key[3] = { i % 40, i % 40, ~0u }; uint64_t value[3] = { i, i, i };
		for (int k = 0; k < 2; k++) {
			union bpf_attr at; memset(&at, 0, sizeof at);
			at.map_fd = k ? b : a; at.key = (uintptr_t)key; at.value = (uintptr_t)value;
			bpf(i / 40 % 2 ? BPF_MAP_DELETE_ELEM : BPF_MAP_UPDATE_ELEM, &at);
		}
	}
}

static void maps(int busy)
{
	char value[256]; int array = map_create("o_array", BPF_MAP_TYPE_ARRAY, 4, 12, 7, 0, 0);
	int per_cpu = map_create("o_pcarray", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 12, 3, 0, 0);
	int hash = map_create("o_hash", BPF_MAP_TYPE_HASH, 12, 24, 50, 0, 0);
	int sparse = map_create("o_hash_np", BPF_MAP_TYPE_HASH, 8, 4, 1000, BPF_F_NO_PREALLOC, 0);
	int lru = map_create("o_lru", BPF_MAP_TYPE_LRU_HASH, 4, 8, 20, 0, 0);
	int pc_hash = map_create("o_pchash", BPF_MAP_TYPE_PERCPU_HASH, 4, 10, 9, 0, 0);
	int pc_lru = map_create("o_pclru", BPF_MAP_TYPE_LRU_PERCPU_HASH, 4, 8, 9, 0, 0);
	map_create("o_ringbuf", BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0, 0);
	for (uint32_t i = 0; i < 40; i++) {
		for (int b = 0; b < 256; b++) value[b] = i * 7 + b * 13;
		uint32_t key[3] = { i, i * i, ~i };
		if (i < 7) map_put(array, &i, value);
		if (i < 3) map_put(per_cpu, &i, value);
		map_put(hash, key, value); map_put(sparse, key, value);
		if (i < 9) { map_put(lru, &i, value); map_put(pc_hash, &i, value); }
		if (i < 5) map_put(pc_lru, &i, value);
	}
	references(array);
	if (busy) churn(hash, sparse);
	int arena = map_create("o_arena", 33, 0, 0, 700, BPF_F_MMAPABLE, 1ull << 44 | 0x7ffe0000);
	if (arena < 0) return;
	char *at = mmap((void *)(1ull << 44 | 0x7ffe0000), 700 << 12, PROT_READ | PROT_WRITE, MAP_SHARED, arena, 0);
	if (at == MAP_FAILED) { printf("maps: arena: %s\n", strerror(errno)); return; }
	int pages[] = { 0, 3, 70, 255, 256, 699 };
	for (int i = 0; i < 6; i++)
		for (int b = 0; b < 4096; b++) at[pages[i] * 4096 + b] = pages[i] + b * 3;
}

/* What the kernel tells bpftool, as JSON. */
static void run(const char *title, char *const *argv)
{
	printf("== %s\n", title); fflush(stdout);
	pid_t p = fork();
	if (!p) { execv(argv[0], argv); _exit(127); }
	int status; waitpid(p, &status, 0);
	printf("\n== exit %d\n", status);
}

static void bpftool(void)
{
	if (access("/bpftool", X_OK)) return;
	run("bpftool prog", (char *[]){ "/bpftool", "-j", "prog", "show", 0 });
	run("bpftool map", (char *[]){ "/bpftool", "-j", "map", "show", 0 });
	const char *names[] = { "oracle.bss", "o_array", "o_pcarray", "o_hash", "o_hash_np", "o_lru", "o_pchash", "o_pclru",
				"o_progs", "o_maps", "o_maphash" };
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		char title[64]; snprintf(title, sizeof title, "bpftool dump %s", names[i]);
		run(title, (char *[]){ "/bpftool", "-j", "map", "dump", "name", (char *)names[i], 0 });
	}
}
