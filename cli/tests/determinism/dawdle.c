// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A busy host, at its worst: what QEMU's vCPU thread leaves a turn by takes up to 1.5 ms now and then. In that moment a
// vCPU is marked as halted and the instructions of its turn are not counted yet.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>

typedef void jump(sigjmp_buf, int);

static void dawdle(void)
{
	static __thread unsigned int seed;

	if (gettid() == getpid())
		return;
	if (!seed)
		seed = getpid();
	if (rand_r(&seed) % 20 == 0)
		usleep(rand_r(&seed) % 1500);
}

void __longjmp_chk(sigjmp_buf to, int value)
{
	dawdle();
	((jump *)dlsym(RTLD_NEXT, "__longjmp_chk"))(to, value);
	__builtin_unreachable();
}

void siglongjmp(sigjmp_buf to, int value)
{
	dawdle();
	((jump *)dlsym(RTLD_NEXT, "siglongjmp"))(to, value);
	__builtin_unreachable();
}
