/* Loaded into nicd: the wall's clock is as many seconds ahead as the control file says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    static volatile int64_t *ahead;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    if (!ahead) {
        static int64_t none;
        const char *path = getenv("CLOCK_AHEAD");
        int fd = path ? open(path, O_RDONLY) : -1;
        void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        ahead = at == MAP_FAILED ? &none : at;
        if (fd >= 0) close(fd);
    }
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += *ahead;
    return result;
}
