#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cpus.h"

#if defined(__linux__)
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 1024 };

/* A number of microseconds, or -1 for "max" and for a file that is not there. */
static long read_long(const char *path) {
    long value = -1;
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    if (fscanf(file, "%ld", &value) != 1) value = -1;
    fclose(file);
    return value;
}

static int32_t whole(long quota, long period) {
    return quota > 0 && period > 0 ? (int32_t)((quota + period - 1) / period) : 0;
}

/* Version 2: "max 100000" or "200000 100000", quota and period, in one file. */
static int32_t quota_of_v2(const char *folder) {
    char path[PATH_BYTES];
    long quota, period;
    int32_t cpus = 0;
    if (snprintf(path, sizeof path, "%s/cpu.max", folder) >= (int)sizeof path) return 0;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    if (fscanf(file, "%ld %ld", &quota, &period) == 2) cpus = whole(quota, period);
    fclose(file);
    return cpus;
}

static int32_t quota_of_v1(const char *folder) {
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder) >= (int)sizeof path) return 0;
    const long quota = read_long(path);
    if (snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder) >= (int)sizeof path) return 0;
    return whole(quota, read_long(path));
}

/* The least quota of a group and of all that it lies in. Inside of a container the group's path may be the host's,
 * which is not there, and the mount itself is the container's group: it is read in any case. */
static int32_t least_quota(const char *mount, const char *group, int32_t (*quota_of)(const char *)) {
    char folder[PATH_BYTES];
    int32_t least = 0;
    const int length = snprintf(folder, sizeof folder, "%s%s", mount, group);
    if (length < 0 || length >= (int)sizeof folder) return quota_of(mount);
    for (char *end = folder + length;;) {
        *end = 0;
        const int32_t cpus = quota_of(folder);
        if (cpus > 0 && (!least || cpus < least)) least = cpus;
        if (end <= folder + strlen(mount)) return least;
        while (*--end != '/' && end > folder + strlen(mount)) {}
    }
}

/* Whether `name` is in a list like "cpu,cpuacct". */
static int lists(const char *list, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL) {
        if (!strncmp(at, name, length) && (at[length] == ',' || !at[length])) return 1;
    }
    return 0;
}

static int32_t smaller(int32_t a, int32_t b) { return a > 0 && (b <= 0 || a < b) ? a : b; }

int32_t sparsec_quota_cpus(const char *groups, const char *mount) {
    char line[PATH_BYTES], controllers[PATH_BYTES];
    int32_t cpus = smaller(quota_of_v2(mount), 0);
    FILE *file = fopen(groups, "re");
    if (!file) return cpus;
    while (fgets(line, sizeof line, file)) {
        /* "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1 */
        line[strcspn(line, "\n")] = 0;
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0, ++list;
        if (!strcmp(group, "/")) group = "";
        if (!*list) {
            cpus = smaller(least_quota(mount, group, quota_of_v2), cpus);
        } else if (lists(list, "cpu")) {
            /* mounted under the list's name, which has a link called cpu */
            const char *names[] = {list, "cpu"};
            for (int i = 0; i < 2; ++i) {
                if (snprintf(controllers, sizeof controllers, "%s/%s", mount, names[i]) < (int)sizeof controllers) {
                    cpus = smaller(least_quota(controllers, group, quota_of_v1), cpus);
                }
            }
        }
    }
    fclose(file);
    return cpus;
}

/* The kernel may know more CPUs than a cpu_set_t has room for. */
static int32_t affinity_cpus(void) {
    for (int most = CPU_SETSIZE; most <= 1 << 20; most *= 4) {
        cpu_set_t *set = CPU_ALLOC(most);
        if (!set) return 0;
        const int failed = sched_getaffinity(0, CPU_ALLOC_SIZE(most), set);
        const int32_t count = failed ? 0 : CPU_COUNT_S(CPU_ALLOC_SIZE(most), set);
        CPU_FREE(set);
        if (!failed) return count;
    }
    return 0;
}

int32_t sparsec_available_cpus(void) {
    const int32_t cpus = smaller(sparsec_quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup"), affinity_cpus());
    return cpus < 1 ? 1 : cpus;
}

#else
#include <unistd.h>

int32_t sparsec_available_cpus(void) {
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus < 1 ? 1 : (int32_t)cpus;
}
#endif
