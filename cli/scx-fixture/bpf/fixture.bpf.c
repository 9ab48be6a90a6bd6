/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A scheduler to test a test framework with: one queue for all CPUs, ordered by weighted
 * run time, and faults that the loader plants.
 *
 * A fault is a number in read-only data: the verifier knows it and removes the code of
 * all others. It rests until the loader arms it, so that the scheduler is seen healthy
 * first. What a fault does to a task it does to `victims` only, never to kernel threads,
 * PID 1 or the loader: the machine must live on to tell of it.
 */
#include "kernel.h"

char _license[] SEC("license") = "GPL";

/* Mirrored by src/config.rs, in this order. */
enum fault {
	FAULT_NONE,
	FAULT_STALL_CPU,
	FAULT_DROP_TASK,
	FAULT_STARVE_CGROUP,
	FAULT_IGNORE_AFFINITY,
	FAULT_BURN_DISPATCH,
	FAULT_SCX_ERROR,
	FAULT_LEAK_DSQ,
	FAULT_CPUSET_CHANGE,
	FAULT_IGNORE_HOTPLUG,
};

/* Mirrored by src/config.rs. */
const volatile struct {
	u64 slice_ns;
	u64 burn_ns;
	u64 leak_every_ns;
	u64 starve_id;
	u32 fault;
	u32 cpu;
	u32 starve_factor;
	u32 loops;
	s32 user_tgid;
	char victim_comm[16];
	char starve_name[64];
	char message[128];
} config SEC(".rodata.config") = { .slice_ns = 20000000 };

/* Written by the loader while the scheduler runs. */
volatile struct {
	u32 armed;
} control SEC(".data.control") = {};

/* The first task that a fault was done to, and on which CPU; pid 0: none yet. */
struct {
	s32 pid;
	s32 cpu;
	u32 count;
	char comm[16];
} victim SEC(".data.victim") = {};

/* Why the kernel ended it; kind 0: it has not. */
struct {
	s64 code;
	s32 kind;
	char reason[64];
	char message[1024];
} ended SEC(".data.ended") = {};

/* The kernel's debug dump of that moment. */
char dump[32768] SEC(".bss.dump");

struct task_data {
	/* Its sum_exec_runtime when it was last picked. */
	u64 picked_at;
	/* One more than the CPU that it was on before it lost the right to be there. */
	s32 stale_cpu;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_data);
} tasks SEC(".maps");

enum {
	/* All tasks, by weighted run time. */
	DSQ_SHARED = 1,
	/* Those of the starved cgroup. */
	DSQ_STARVED = 2,
	/* Nothing is ever taken out of these. */
	DSQ_STALLED = 0x57a11,
	DSQ_LEAKED = 0x1eac,
	DSQ_OFFLINE = 0x0ff,
};

/* Others gone without, starved tasks get one of these in starve_factor of them. */
#define STARVED_SLICE_NS 1000000

static u64 vtime_now;
static u64 last_starved;
static u64 last_leak;
static s32 dropped_pid;
static s32 offline_cpu = -1;

static __always_inline bool faulty(u32 fault)
{
	return config.fault == fault && control.armed;
}

static __always_inline struct task_data *data_of(struct task_struct *p)
{
	return bpf_task_storage_get(&tasks, p, NULL, 0);
}

static bool may_suffer(struct task_struct *p)
{
	if ((p->flags & PF_KTHREAD) || p->tgid == 1 || p->tgid == config.user_tgid)
		return false;
	if (!config.victim_comm[0])
		return true;
	char comm[16];
	bpf_probe_read_kernel_str(comm, sizeof(comm), p->comm);
	return bpf_strncmp(comm, sizeof(comm), (const char *)config.victim_comm) == 0;
}

static void suffers(struct task_struct *p)
{
	if (__sync_fetch_and_add(&victim.count, 1) != 0)
		return;
	victim.cpu = scx_bpf_task_cpu(p);
	bpf_probe_read_kernel_str(victim.comm, sizeof(victim.comm), p->comm);
	/* Last: the loader waits for it. */
	__sync_val_compare_and_swap(&victim.pid, 0, p->pid);
}

static bool is_starved(struct task_struct *p)
{
	if (!faulty(FAULT_STARVE_CGROUP))
		return false;
	struct kernfs_node *node = p->cgroups->dfl_cgrp->kn;
	if (config.starve_id)
		return node->id == config.starve_id;
	char name[64];
	bpf_probe_read_kernel_str(name, sizeof(name), node->name);
	return bpf_strncmp(name, sizeof(name), (const char *)config.starve_name) == 0;
}

/* A CPU that the task may not use, or -1. */
static s32 forbidden_cpu(struct task_struct *p)
{
	u32 count = scx_bpf_nr_cpu_ids();

	for (u32 cpu = 0; cpu < 512 && cpu < count; cpu++)
		if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			return cpu;
	return -1;
}

/* Does this fault keep the task off idle CPUs, for `enqueue` to get it? */
static bool bypasses_idle(struct task_struct *p, s32 cpu)
{
	if (!control.armed)
		return true;
	switch (config.fault) {
	case FAULT_STALL_CPU:
		return cpu != config.cpu || !may_suffer(p);
	case FAULT_STARVE_CGROUP:
		return !is_starved(p);
	case FAULT_DROP_TASK:
	case FAULT_IGNORE_AFFINITY:
	case FAULT_LEAK_DSQ:
	case FAULT_CPUSET_CHANGE:
	case FAULT_IGNORE_HOTPLUG:
		return !may_suffer(p);
	}
	return true;
}

SEC("struct_ops/select_cpu")
s32 fixture_select_cpu(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, ctx[1], ctx[2], &is_idle);

	if (is_idle && bypasses_idle(p, cpu))
		insert(p, SCX_DSQ_LOCAL, config.slice_ns, 0);
	return cpu;
}

/* Does the planted fault to the task; true if that was the end of it. */
static bool mishandle(struct task_struct *p)
{
	if (!config.fault || !control.armed || !may_suffer(p))
		return false;
	s32 cpu, pid;
	struct task_data *data;
	u64 now;

	switch (config.fault) {
	case FAULT_STALL_CPU:
		if (scx_bpf_task_cpu(p) != config.cpu)
			return false;
		insert(p, DSQ_STALLED, config.slice_ns, 0);
		break;
	case FAULT_DROP_TASK:
		/* The first one is the one, for good. */
		pid = __sync_val_compare_and_swap(&dropped_pid, 0, p->pid);
		if (pid && pid != p->pid)
			return false;
		break;
	case FAULT_IGNORE_AFFINITY:
		cpu = forbidden_cpu(p);
		if (cpu < 0)
			return false;
		insert(p, SCX_DSQ_LOCAL_ON | cpu, config.slice_ns, 0);
		break;
	case FAULT_LEAK_DSQ:
		now = bpf_ktime_get_ns();
		if (now - last_leak < config.leak_every_ns)
			return false;
		last_leak = now;
		insert(p, DSQ_LEAKED, config.slice_ns, 0);
		break;
	case FAULT_CPUSET_CHANGE:
		data = data_of(p);
		if (!data || !data->stale_cpu)
			return false;
		cpu = data->stale_cpu - 1;
		if (cpu < 0 || bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			return false;
		insert(p, SCX_DSQ_LOCAL_ON | cpu, config.slice_ns, 0);
		break;
	case FAULT_IGNORE_HOTPLUG:
		/* Each task has a home, by its pid, and this one's is gone. */
		if (offline_cpu < 0 || (u32)p->pid % scx_bpf_nr_cpu_ids() != offline_cpu)
			return false;
		insert(p, DSQ_OFFLINE, config.slice_ns, 0);
		break;
	default:
		return false;
	}
	suffers(p);
	return true;
}

SEC("struct_ops/enqueue")
int fixture_enqueue(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	u64 enq_flags = ctx[1];
	u64 vtime = p->scx.dsq_vtime;
	u64 slice = config.slice_ns;
	s32 cpu;

	if (mishandle(p))
		return 0;
	/* Only with SCX_OPS_ENQ_LAST: nothing else wants this CPU. */
	if (enq_flags & SCX_ENQ_LAST) {
		insert(p, SCX_DSQ_LOCAL, slice, enq_flags);
		return 0;
	}
	/* Sleeping earns at most one slice. */
	if ((s64)(vtime - (vtime_now - slice)) < 0)
		vtime = vtime_now - slice;
	if (is_starved(p)) {
		suffers(p);
		insert_vtime(p, DSQ_STARVED, STARVED_SLICE_NS, vtime, enq_flags);
	} else {
		insert_vtime(p, DSQ_SHARED, slice, vtime, enq_flags);
	}
	/* select_cpu has woken a CPU where it was asked; else an idle one may sleep on. */
	if (!(enq_flags & SCX_ENQ_CPU_SELECTED)) {
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
		if (cpu >= 0)
			scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	}
	return 0;
}

static long burn_step(u32 index, u64 *until)
{
	return bpf_ktime_get_ns() >= *until;
}

SEC("struct_ops/dispatch")
int fixture_dispatch(u64 *ctx)
{
	s32 cpu = ctx[0];

	if (faulty(FAULT_BURN_DISPATCH)) {
		u64 until = bpf_ktime_get_ns() + config.burn_ns;
		bpf_loop(1 << 22, burn_step, &until, 0);
	}
	if (faulty(FAULT_SCX_ERROR)) {
		static char format[] = "%s (CPU %d)";
		u64 data[2] = { (u64)config.message, cpu };
		scx_bpf_error_bstr(format, data, sizeof(data));
	}
	if (move_to_local(DSQ_SHARED) || !faulty(FAULT_STARVE_CGROUP))
		return 0;
	/* A task whose slice is over is in no queue yet, and goes on if nothing else is found. */
	struct task_struct *prev = (void *)ctx[1];
	u64 now = bpf_ktime_get_ns();
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED) && !is_starved(prev) &&
	    now - last_starved < (u64)config.starve_factor * STARVED_SLICE_NS)
		return 0;
	if (move_to_local(DSQ_STARVED))
		last_starved = now;
	return 0;
}

SEC("struct_ops/running")
int fixture_running(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	struct task_data *data = data_of(p);

	if (data)
		data->picked_at = p->se.sum_exec_runtime;
	if ((s64)(p->scx.dsq_vtime - vtime_now) > 0)
		vtime_now = p->scx.dsq_vtime;
	return 0;
}

SEC("struct_ops/stopping")
int fixture_stopping(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	struct task_data *data = data_of(p);
	u32 weight = p->scx.weight;

	if (!data || !weight)
		return 0;
	u64 ran = p->se.sum_exec_runtime - data->picked_at;
	p->scx.dsq_vtime += ran * 100 / weight;
	return 0;
}

SEC("struct_ops/set_cpumask")
int fixture_set_cpumask(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	const struct cpumask *mask = (void *)ctx[1];

	if (!faulty(FAULT_CPUSET_CHANGE))
		return 0;
	struct task_data *data = data_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	if (data && cpu >= 0 && !bpf_cpumask_test_cpu(cpu, mask))
		data->stale_cpu = cpu + 1;
	return 0;
}

SEC("struct_ops.s/init_task")
s32 fixture_init_task(u64 *ctx)
{
	void *data = bpf_task_storage_get(&tasks, (void *)ctx[0], NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

	return data ? 0 : -12 /* ENOMEM */;
}

SEC("struct_ops/enable")
int fixture_enable(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	p->scx.dsq_vtime = vtime_now;
	return 0;
}

/* Without these two the kernel ends a scheduler when a CPU comes or goes. */
SEC("struct_ops.s/cpu_online")
int fixture_cpu_online(u64 *ctx)
{
	if (offline_cpu == (s32)ctx[0])
		offline_cpu = -1;
	return 0;
}

SEC("struct_ops.s/cpu_offline")
int fixture_cpu_offline(u64 *ctx)
{
	offline_cpu = ctx[0];
	return 0;
}

SEC("struct_ops.s/init")
s32 fixture_init(u64 *ctx)
{
	s32 error = scx_bpf_create_dsq(DSQ_SHARED, -1);

	if (!error && config.fault == FAULT_STALL_CPU)
		error = scx_bpf_create_dsq(DSQ_STALLED, -1);
	if (!error && config.fault == FAULT_STARVE_CGROUP)
		error = scx_bpf_create_dsq(DSQ_STARVED, -1);
	if (!error && config.fault == FAULT_LEAK_DSQ)
		error = scx_bpf_create_dsq(DSQ_LEAKED, -1);
	if (!error && config.fault == FAULT_IGNORE_HOTPLUG)
		error = scx_bpf_create_dsq(DSQ_OFFLINE, -1);
	return error;
}

SEC("struct_ops/exit")
int fixture_exit(u64 *ctx)
{
	struct scx_exit_info *info = (void *)ctx[0];

	bpf_probe_read_kernel_str(ended.reason, sizeof(ended.reason), info->reason);
	bpf_probe_read_kernel_str(ended.message, sizeof(ended.message), info->msg);
	bpf_probe_read_kernel_str(dump, sizeof(dump), info->dump);
	ended.code = info->exit_code;
	/* Last: the loader waits for it. */
	__sync_val_compare_and_swap(&ended.kind, 0, info->kind);
	return 0;
}

/* The verifier rejects it: the storage may not be there. */
SEC("struct_ops/running")
int unverifiable_running(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	data_of(p)->picked_at = p->se.sum_exec_runtime;
	return 0;
}

static u64 table[64];

/* The verifier walks through all rounds and then rejects the last access. */
SEC("struct_ops/running")
int looping_running(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	u64 mixed = p->se.sum_exec_runtime;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < config.loops; i++)
		mixed = mixed * 31 + table[(mixed ^ i) & 63];
	table[mixed] = 1;
	return 0;
}

#define OPS(running_program)                            \
	{                                               \
		.name = "fixture",                      \
		.select_cpu = (void *)fixture_select_cpu,   \
		.enqueue = (void *)fixture_enqueue,         \
		.dispatch = (void *)fixture_dispatch,       \
		.running = (void *)running_program,         \
		.stopping = (void *)fixture_stopping,       \
		.set_cpumask = (void *)fixture_set_cpumask, \
		.init_task = (void *)fixture_init_task,     \
		.enable = (void *)fixture_enable,           \
		.cpu_online = (void *)fixture_cpu_online,   \
		.cpu_offline = (void *)fixture_cpu_offline, \
		.init = (void *)fixture_init,               \
		.exit = (void *)fixture_exit,               \
	}

/* The loader makes one of them. */
SEC("?.struct_ops.link") struct sched_ext_ops fixture_ops = OPS(fixture_running);
SEC("?.struct_ops.link") struct sched_ext_ops unverifiable_ops = OPS(unverifiable_running);
SEC("?.struct_ops.link") struct sched_ext_ops looping_ops = OPS(looping_running);
