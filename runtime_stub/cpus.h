/* How many CPUs this process may use. Private to the runtime. */
#ifndef SPARSEC_CPUS_H
#define SPARSEC_CPUS_H

#include <stdint.h>

/* What CPU affinity and cgroup quota allow, at least 1. */
int32_t sparsec_available_cpus(void);

/* What the quotas of the control groups listed in the file `groups` (/proc/self/cgroup), mounted below `mount`
 * (/sys/fs/cgroup), allow: whole CPUs, rounded up; 0 when there is no quota. Versions 1 and 2. */
int32_t sparsec_quota_cpus(const char *groups, const char *mount);

#endif
