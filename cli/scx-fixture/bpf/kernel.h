/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fixture.bpf.c needs to know of the kernel and of libbpf, by hand.
 *
 * Types hold only the members that are used; preserve_access_index makes libbpf look
 * up their places in the running kernel (CO-RE). Numbers are UAPI or have not changed
 * since sched_ext came with Linux 6.12.
 */
#ifndef FIXTURE_KERNEL_H
#define FIXTURE_KERNEL_H

typedef unsigned char u8;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define __always_inline inline __attribute__((always_inline))

/* How libbpf reads the definition of a map out of BTF. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

/* enum bpf_map_type and flags of maps, include/uapi/linux/bpf.h. */
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_F_NO_PREALLOC 1
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1

/* Helpers by number, include/uapi/linux/bpf.h. */
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static void *(*const bpf_task_storage_get)(void *map, void *task, void *value, u64 flags) = (void *)156;
static long (*const bpf_loop)(u32 count, void *body, void *context, u64 flags) = (void *)181;
static long (*const bpf_strncmp)(const char *text, u32 size, const char *constant) = (void *)182;

/* include/linux/sched.h */
#define PF_KTHREAD 0x00200000

/* kernel/sched/ext.c and include/linux/sched/ext.h */
#define SCX_DSQ_LOCAL ((1ULL << 63) | 2)
#define SCX_DSQ_LOCAL_ON ((1ULL << 63) | (1ULL << 62))
#define SCX_ENQ_CPU_SELECTED (1ULL << 10)
#define SCX_ENQ_LAST (1ULL << 41)
#define SCX_KICK_IDLE 1
#define SCX_TASK_QUEUED 1

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Opaque, but libbpf wants a whole type to match a kfunc's argument by. */
struct cpumask {
	unsigned long bits[1];
};

struct kernfs_node {
	const char *name;
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct sched_ext_entity {
	u32 flags;
	u32 weight;
	u64 slice;
	u64 dsq_vtime;
};

struct task_struct {
	u32 flags;
	s32 pid;
	s32 tgid;
	s32 nr_cpus_allowed;
	const struct cpumask *cpus_ptr;
	struct sched_entity se;
	struct sched_ext_entity scx;
	struct css_set *cgroups;
	char comm[16];
};

struct scx_init_task_args;

/* Of the kernel's many, the one that is needed to tell the type. */
enum scx_exit_kind {
	SCX_EXIT_NONE = 0,
};

struct scx_exit_info {
	enum scx_exit_kind kind;
	s64 exit_code;
	const char *reason;
	char *msg;
	char *dump;
};

#pragma clang attribute pop

/*
 * libbpf fills the kernel's struct by the members' names, so the order is ours: what the
 * loader sets comes first, at the places that src/ops.rs knows.
 */
struct sched_ext_ops {
	char name[128];
	u64 flags;
	u32 timeout_ms;
	u32 exit_dump_len;
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	void (*dispatch)(s32 cpu, struct task_struct *prev);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, bool runnable);
	void (*set_cpumask)(struct task_struct *p, const struct cpumask *mask);
	s32 (*init_task)(struct task_struct *p, struct scx_init_task_args *args);
	void (*enable)(struct task_struct *p);
	void (*cpu_online)(s32 cpu);
	void (*cpu_offline)(s32 cpu);
	s32 (*init)(void);
	void (*exit)(struct scx_exit_info *info);
};

s32 scx_bpf_create_dsq(u64 dsq, s32 node) __ksym;
s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *is_idle) __ksym;
s32 scx_bpf_pick_idle_cpu(const struct cpumask *allowed, u64 flags) __ksym;
s32 scx_bpf_task_cpu(const struct task_struct *p) __ksym;
u32 scx_bpf_nr_cpu_ids(void) __ksym;
void scx_bpf_kick_cpu(s32 cpu, u64 flags) __ksym;
void scx_bpf_error_bstr(char *format, u64 *data, u32 data__sz) __ksym;
bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask) __ksym;

/* Linux 6.12 has the first name of each pair, later kernels the second. */
void scx_bpf_dispatch(struct task_struct *p, u64 dsq, u64 slice, u64 enq_flags) __ksym __weak;
void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq, u64 slice, u64 enq_flags) __ksym __weak;
void scx_bpf_dispatch_vtime(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, u64 enq_flags) __ksym __weak;
void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, u64 enq_flags) __ksym __weak;
bool scx_bpf_consume(u64 dsq) __ksym __weak;
bool scx_bpf_dsq_move_to_local(u64 dsq) __ksym __weak;

static __always_inline void insert(struct task_struct *p, u64 dsq, u64 slice, u64 enq_flags)
{
	if (scx_bpf_dsq_insert)
		scx_bpf_dsq_insert(p, dsq, slice, enq_flags);
	else
		scx_bpf_dispatch(p, dsq, slice, enq_flags);
}

static __always_inline void insert_vtime(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, u64 enq_flags)
{
	if (scx_bpf_dsq_insert_vtime)
		scx_bpf_dsq_insert_vtime(p, dsq, slice, vtime, enq_flags);
	else
		scx_bpf_dispatch_vtime(p, dsq, slice, vtime, enq_flags);
}

static __always_inline bool move_to_local(u64 dsq)
{
	return scx_bpf_dsq_move_to_local ? scx_bpf_dsq_move_to_local(dsq) : scx_bpf_consume(dsq);
}

#endif
