/* Loaded into nicd: file calls on the store's files fail as the control file says. Build: gcc -shared -fPIC. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

struct control {
    int armed;   /* whether calls are counted */
    int first;   /* the first call that fails, from 1 */
    int number;  /* how many fail */
    int error;   /* with what */
    int count;   /* calls so far */
};

static struct control *control(void)
{
    static struct control *mapped;
    if (!mapped) {
        const char *path = getenv("STORE_FAULT");
        int fd = path ? open(path, O_RDWR) : -1;
        void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        static struct control none;
        mapped = at == MAP_FAILED ? &none : at;
        if (fd >= 0) close(fd);
    }
    return mapped;
}

/* Whether this call on this file is to fail. */
static int fails(int fd)
{
    char link[64], name[4096];
    struct control *c = control();
    if (!c->armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    if (!strstr(name, "/nicd.db") || strstr(name, "-shm")) return 0;
    int n = __atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
    if (n < c->first || n >= c->first + c->number) return 0;
    errno = c->error;
    return 1;
}

#define WRAP(type, name, args, call, fd)                         \
    type name args                                               \
    {                                                            \
        static type (*real) args;                                \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);    \
        if (fails(fd)) return -1;                                \
        return real call;                                        \
    }

WRAP(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n), fd)
WRAP(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n), fd)
WRAP(ssize_t, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), fd)
WRAP(ssize_t, pread64, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at), fd)
WRAP(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), fd)
WRAP(ssize_t, pwrite64, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at), fd)
WRAP(int, fdatasync, (int fd), (fd), fd)
WRAP(int, fsync, (int fd), (fd), fd)
WRAP(int, ftruncate, (int fd, off_t n), (fd, n), fd)
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n), fd)
