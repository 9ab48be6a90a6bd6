/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Static /init of the oracle guest: builds cgroups, starts tasks of every scheduling class and, when the word
 * "scx" stands on the kernel command line, attaches a sched_ext scheduler assembled here by hand (three tiny BPF
 * programs, so that no BPF compiler is needed) with a FIFO queue and one by virtual time. With "maps" it makes BPF maps
 * of each kind; a /module.ko is loaded. Then it prints what the kernel says of itself and READY.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DSQ_ID 1234
#define VTIME_ID 1235

/* ---- a reader of /sys/kernel/btf/vmlinux, just enough to find ids and offsets ---- */
struct hdr { uint16_t magic; uint8_t version, flags; uint32_t hdr_len, type_off, type_len, str_off, str_len; };
struct type { uint32_t name, info, size; };
static char *btf; static struct type *types[400000]; static uint32_t ntypes; static char *strs;

static void btf_load(void)
{
	static const int extra[20] = { 0, 4, 0, 12, -12, -12, -8, 0, 0, 0, 0, 0, 0, -8, 4, -12, 0, 4, 0, -12 };
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY), n; size_t cap = 16 << 20, at = 0;
	btf = malloc(cap);
	while (fd >= 0 && (n = read(fd, btf + at, cap - at)) > 0) at += n;
	if (!at) return;
	struct hdr *h = (void *)btf; char *p = btf + h->hdr_len + h->type_off, *end = p + h->type_len;
	strs = btf + h->hdr_len + h->str_off; ntypes = 1;
	while (p < end) {
		struct type *t = (void *)p; int kind = (t->info >> 24) & 0x1f, e = extra[kind]; uint32_t vlen = t->info & 0xffff;
		types[ntypes++] = t; p += 12 + (e >= 0 ? e : -e * (int)vlen);
		if (kind == 5 || kind == 4) continue;
	}
}
static uint32_t btf_find(const char *name, int kind)
{
	for (uint32_t i = 1; i < ntypes; i++)
		if (((types[i]->info >> 24) & 0x1f) == (uint32_t)kind && !strcmp(strs + types[i]->name, name)) return i;
	return 0;
}
static int member(uint32_t id, const char *name, int *index)
{
	uint32_t *m = (void *)(types[id] + 1);
	for (uint32_t i = 0; i < (types[id]->info & 0xffff); i++)
		if (!strcmp(strs + m[3 * i], name)) { if (index) *index = i; return (m[3 * i + 2] & 0xffffff) / 8; }
	return -1;
}

/* ---- the scheduler ---- */
static int bpf(int cmd, union bpf_attr *a) { return syscall(SYS_bpf, cmd, a, sizeof *a); }
#define INSN(c, d, s, o, i) { .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (int)(i) }
#define MOVI(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define MOVR(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define LDX(d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_DW, d, s, o, 0)
#define KFUNC(id) INSN(BPF_JMP | BPF_CALL, 0, 2, 0, id)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

#define KMAP(d, fd, at) INSN(BPF_LD | BPF_DW | BPF_IMM, d, BPF_PSEUDO_MAP_VALUE, 0, fd), INSN(0, 0, 0, 0, at)
#define LDXW(d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_W, d, s, o, 0)

#include "maps.h"

static int prog(struct bpf_insn *insns, int n, uint32_t ops, const char *op, int sleepable)
{
	static char log[65536]; union bpf_attr a; int index = -1;
	memset(&a, 0, sizeof a); member(ops, op, &index);
	a.prog_type = BPF_PROG_TYPE_STRUCT_OPS; a.insns = (uintptr_t)insns; a.insn_cnt = n; a.license = (uintptr_t)"GPL";
	a.attach_btf_id = ops; a.expected_attach_type = index; a.prog_flags = sleepable ? 1u << 4 : 0;
	a.log_buf = (uintptr_t)log; a.log_size = sizeof log; a.log_level = 1; snprintf(a.prog_name, 16, "oracle_%s", op);
	int fd = bpf(BPF_PROG_LOAD, &a);
	if (fd < 0) printf("scx: load %s: %s\n%s\n", op, strerror(errno), log);
	return fd;
}

static void attach(void)
{
	btf_load();
	uint32_t ops = btf_find("sched_ext_ops", 4), value = btf_find("bpf_struct_ops_sched_ext_ops", 4);
	uint32_t create = btf_find("scx_bpf_create_dsq", 12), put = btf_find("scx_bpf_dsq_insert", 12);
	uint32_t get = btf_find("scx_bpf_dsq_move_to_local", 12);
	if (!put) put = btf_find("scx_bpf_dispatch", 12);
	if (!get) get = btf_find("scx_bpf_consume", 12);
	if (!ops || !value || !create || !put || !get) { printf("scx: absent (%u types)\n", ntypes); return; }
	uint32_t vtime = btf_find("scx_bpf_dsq_insert_vtime", 12), task = btf_find("task_struct", 4);
	if (!vtime) vtime = btf_find("scx_bpf_dispatch_vtime", 12);
	int bss = bss_create(), pid = member(task, "pid", 0);
	struct bpf_insn init[] = { MOVI(1, DSQ_ID), MOVI(2, -1), KFUNC(create), MOVI(1, VTIME_ID), MOVI(2, -1), KFUNC(create), EXIT };
	/* Counts, then queues even pids in order of arrival and odd ones by a virtual time out of the count. */
	struct bpf_insn enqueue[] = { LDX(6, 1, 0), LDX(7, 1, 8), KMAP(2, bss, BSS_ENQUEUED), MOVI(3, 1),
				      INSN(BPF_STX | BPF_ATOMIC | BPF_DW, 2, 3, 0, BPF_ADD | BPF_FETCH),
				      INSN(BPF_ALU64 | BPF_XOR | BPF_K, 3, 0, 0, 63), MOVR(8, 3), LDXW(9, 6, pid),
				      MOVR(1, 6), MOVI(3, 5000000), INSN(BPF_ALU64 | BPF_AND | BPF_K, 9, 0, 0, 1),
				      INSN(BPF_JMP | BPF_JNE | BPF_K, 9, 0, 4, 0),
				      MOVI(2, DSQ_ID), MOVR(4, 7), KFUNC(put), INSN(BPF_JMP | BPF_JA, 0, 0, 5, 0),
				      MOVI(2, VTIME_ID), MOVR(4, 8), MOVR(5, 7),
				      KFUNC(vtime), MOVI(0, 0), EXIT };
	struct bpf_insn dispatch[] = { MOVI(1, DSQ_ID), KFUNC(get), MOVI(1, VTIME_ID), KFUNC(get), MOVI(0, 0), EXIT };
#define COUNT(a) (sizeof a / sizeof *a)
	int f[3] = { prog(init, COUNT(init), ops, "init", 1), prog(enqueue, COUNT(enqueue), ops, "enqueue", 0),
		     prog(dispatch, COUNT(dispatch), ops, "dispatch", 0) };
	static struct { struct hdr h; uint32_t t[4]; char s[8]; } tiny = {
		{ 0xeb9f, 1, 0, 24, 0, 16, 16, 5 }, { 1, 1u << 24, 4, (1u << 24) | 32 }, "\0int" };
	union bpf_attr a; memset(&a, 0, sizeof a); a.btf = (uintptr_t)&tiny; a.btf_size = 24 + 16 + 5;
	int bfd = bpf(BPF_BTF_LOAD, &a);
	memset(&a, 0, sizeof a); a.map_type = BPF_MAP_TYPE_STRUCT_OPS; a.key_size = 4; a.value_size = types[value]->size;
	a.max_entries = 1; a.btf_fd = bfd; a.btf_vmlinux_value_type_id = value; strcpy(a.map_name, "oracle");
	int map = bpf(BPF_MAP_CREATE, &a);
	if (bfd < 0 || map < 0) { printf("scx: btf %d map %d: %s\n", bfd, map, strerror(errno)); return; }
	char *v = calloc(1, types[value]->size), *data = v + member(value, "data", 0); uint32_t key = 0;
	const char *name[3] = { "init", "enqueue", "dispatch" };
	for (int i = 0; i < 3; i++) { uint64_t fd = f[i]; memcpy(data + member(ops, name[i], 0), &fd, 8); }
	strcpy(data + member(ops, "name", 0), "oracle_fifo");
	uint32_t timeout = 25000; memcpy(data + member(ops, "timeout_ms", 0), &timeout, 4);
	memset(&a, 0, sizeof a); a.map_fd = map; a.key = (uintptr_t)&key; a.value = (uintptr_t)v;
	int r = bpf(BPF_MAP_UPDATE_ELEM, &a);
	printf("scx: attach %d %s\n", r, r ? strerror(errno) : "ok");
}

/* ---- load ---- */
static void put(const char *path, const char *text)
{
	int f = open(path, O_WRONLY);
	if (f < 0 || write(f, text, strlen(text)) < 0) printf("%s <- %s: %s\n", path, text, strerror(errno));
	if (f >= 0) close(f);
}
static void cat(const char *p)
{
	char b[4096]; int n, f = open(p, O_RDONLY);
	printf("== %s\n", p); fflush(stdout);
	while (f >= 0 && (n = read(f, b, sizeof b)) > 0) if (write(1, b, n) < 0) break;
	if (f >= 0) close(f);
}
/* Every 199th line of /proc/kallsyms and the number of lines: all of it would take minutes on a serial line. */
static void symbols(void)
{
	char b[1024]; unsigned long n = 0; FILE *f = fopen("/proc/kallsyms", "r");
	printf("== /proc/kallsyms\n");
	while (f && fgets(b, sizeof b, f))
		if (!strchr(b, '[') && n++ % 199 == 0) printf("sym %s", b);
	printf("symbols %lu\n", n);
}
/* FNV-1a of each file of /sys/kernel/btf. */
static void sums(void)
{
	DIR *d = opendir("/sys/kernel/btf"); struct dirent *e;
	printf("== btf sums\n");
	while (d && (e = readdir(d))) {
		char p[300]; snprintf(p, sizeof p, "/sys/kernel/btf/%s", e->d_name);
		int f = open(p, O_RDONLY), n; static unsigned char b[65536]; uint64_t h = 0xcbf29ce484222325; size_t all = 0;
		if (e->d_name[0] == '.' || f < 0) continue;
		while ((n = read(f, b, sizeof b)) > 0) { all += n; for (int i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3; }
		close(f); printf("btfsum %s %zu %llu\n", e->d_name, all, (unsigned long long)h);
	}
}
static pid_t task(const char *name, const char *cgroup, int cpu, int policy, int prio, int busy_us, int idle_us)
{
	pid_t p = fork();
	if (p) return p;
	char b[64]; prctl(PR_SET_NAME, name); snprintf(b, sizeof b, "%d", getpid());
	if (cgroup) put(cgroup, b);
	if (cpu >= 0) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(cpu, &s); sched_setaffinity(0, sizeof s, &s); }
	if (policy == SCHED_FIFO) { struct sched_param sp = { prio }; if (sched_setscheduler(0, policy, &sp)) perror("fifo"); }
	if (policy == 6) {
		struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t prio; uint64_t runtime, deadline, period; }
			at = { 48, 6, 0, 0, 0, 3000000, 20000000, 20000000 };
		if (syscall(SYS_sched_setattr, 0, &at, 0)) perror("deadline");
	}
	if (policy == SCHED_OTHER && prio) nice(prio);
	for (;;) {
		struct timespec a, b2; clock_gettime(CLOCK_MONOTONIC, &a);
		do clock_gettime(CLOCK_MONOTONIC, &b2);
		while ((b2.tv_sec - a.tv_sec) * 1000000L + (b2.tv_nsec - a.tv_nsec) / 1000 < busy_us);
		if (idle_us) usleep(idle_us);
	}
}

/* One task holds a lock with priority inheritance and never lets it go; a more urgent one sleeps for it. */
static void lock(void)
{
	uint32_t *word = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int waiter = 0; waiter < 2; waiter++) {
		if (fork()) { while (!*(volatile uint32_t *)word) usleep(1000); continue; }
		prctl(PR_SET_NAME, waiter ? "lock-waiter" : "lock-holder");
		if (!waiter) { *(volatile uint32_t *)word = getpid(); for (;;) pause(); }
		struct sched_param sp = { 10 };
		if (sched_setscheduler(0, SCHED_FIFO, &sp)) perror("fifo");
		syscall(SYS_futex, word, FUTEX_LOCK_PI, 0, 0, 0, 0);
		perror("the lock that nobody lets go"); _exit(1);
	}
}
/* A line of /proc/PID/stat of each process. */
static void processes(void)
{
	DIR *d = opendir("/proc"); struct dirent *e;
	printf("== /proc/PID/stat\n");
	while (d && (e = readdir(d))) {
		char p[300], b[1024]; snprintf(p, sizeof p, "/proc/%s/stat", e->d_name);
		FILE *f = e->d_name[0] >= '0' && e->d_name[0] <= '9' ? fopen(p, "r") : 0;
		if (f && fgets(b, sizeof b, f)) printf("%s", b);
		if (f) fclose(f);
	}
}

/* Starts /scheduler with the arguments in /scheduler.args, one a line, and waits until the kernel says that it runs. */
static void scheduler(void)
{
	static char text[4096]; char *argv[32] = { "/scheduler" }; int n = 1, f = open("/scheduler.args", O_RDONLY);
	if (access("/scheduler", X_OK)) return;
	if (f >= 0 && read(f, text, sizeof text - 1) > 0)
		for (char *a = strtok(text, "\n"); a && n < 31; a = strtok(0, "\n")) argv[n++] = a;
	if (!fork()) { execv(argv[0], argv); _exit(127); }
	for (int i = 0; i < 600; i++) {
		char state[32] = ""; f = open("/sys/kernel/sched_ext/state", O_RDONLY);
		if (f >= 0) { if (read(f, state, 31) < 0) state[0] = 0; close(f); }
		if (!strncmp(state, "enabled", 7)) { printf("scx: enabled after %d00 ms\n", i); return; }
		usleep(100000);
	}
	printf("scx: /scheduler never ran\n");
}

int main(void)
{
	mkdir("/proc", 0755); mkdir("/sys", 0755);
	mount("proc", "/proc", "proc", 0, 0); mount("sysfs", "/sys", "sysfs", 0, 0);
	mount("none", "/sys/fs/cgroup", "cgroup2", 0, 0);
	char line[4096] = ""; int f = open("/proc/cmdline", O_RDONLY); if (read(f, line, sizeof line - 1) < 0) return 1;
	put("/proc/sys/kernel/sched_schedstats", "1");
	put("/proc/sys/kernel/kptr_restrict", "0");
	put("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +cpuset +pids");
	mkdir("/sys/fs/cgroup/left", 0755); mkdir("/sys/fs/cgroup/right", 0755); mkdir("/sys/fs/cgroup/cold", 0755);
	put("/sys/fs/cgroup/left/cgroup.subtree_control", "+cpu +cpuset +pids");
	mkdir("/sys/fs/cgroup/left/inner", 0755);
	put("/sys/fs/cgroup/left/cpuset.cpus", "0-1"); put("/sys/fs/cgroup/right/cpuset.cpus", "2-3");
	put("/sys/fs/cgroup/left/cpu.weight", "300"); put("/sys/fs/cgroup/right/cpu.max", "150000 100000");
	put("/sys/fs/cgroup/right/pids.max", "77");
	put("/proc/sys/kernel/bpf_stats_enabled", "1");
	int ko = open("/module.ko", O_RDONLY);
	if (ko >= 0) printf("module %ld\n", syscall(SYS_finit_module, ko, "", 0));
	if (strstr(line, " maps")) maps(strstr(line, " churn") != 0);
	scheduler();
	if (strstr(line, " scx")) attach();
	for (int i = 0; i < 5; i++) { char n[16]; snprintf(n, 16, "spin-l%d", i);
		task(n, "/sys/fs/cgroup/left/inner/cgroup.procs", -1, SCHED_OTHER, i, 50000, 0); }
	for (int i = 0; i < 4; i++) { char n[16]; snprintf(n, 16, "spin-r%d", i);
		task(n, "/sys/fs/cgroup/right/cgroup.procs", -1, SCHED_OTHER, 0, 50000, i == 3 ? 3000 : 0); }
	task("cold", "/sys/fs/cgroup/cold/cgroup.procs", -1, SCHED_OTHER, 0, 1000, 1000);
	task("fifo", 0, 1, SCHED_FIFO, 42, 2000, 4000);
	task("fifo2", 0, 1, SCHED_FIFO, 41, 2000, 4000);
	task("dead", 0, -1, 6, 0, 1000, 10000);
	lock();
	for (int i = 0; i < 3; i++) task("root-spin", 0, -1, SCHED_OTHER, 5, 50000, 0);
	if (strstr(line, " churn") && !fork())
		for (;;) { pid_t p = fork(); if (!p) _exit(0); waitpid(p, 0, 0);
			mkdir("/sys/fs/cgroup/brief", 0755); rmdir("/sys/fs/cgroup/brief"); }
	sleep(1); put("/sys/fs/cgroup/cold/cgroup.freeze", "1"); sleep(3);
	cat("/sys/kernel/sched_ext/state"); cat("/sys/kernel/sched_ext/root/ops"); cat("/sys/kernel/sched_ext/nr_rejected");
	cat("/sys/kernel/sched_ext/enable_seq"); cat("/proc/schedstat"); cat("/sys/fs/cgroup/right/cpu.stat");
	cat("/proc/1/status"); processes();
	cat("/proc/pressure/cpu"); cat("/proc/pressure/io"); cat("/proc/pressure/memory"); cat("/proc/pressure/irq");
	for (int i = 0; i < 4; i++) {
		static const char *const groups[] = { "left", "left/inner", "right", "cold" };
		static const char *const files[] = { "cgroup.events", "cpu.weight", "cpuset.cpus.effective", "cgroup.procs" };
		for (int k = 0; k < 4; k++) { char p[128]; snprintf(p, sizeof p, "/sys/fs/cgroup/%s/%s", groups[i], files[k]); cat(p); }
	}
	sums();
	if (strstr(line, " maps")) bpftool();
	if (strstr(line, " symbols")) symbols();
	printf("READY\n"); fflush(stdout);
	for (;;) pause();
}
