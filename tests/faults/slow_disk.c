/* A disk that is slow, fails or hangs, for one program: preloaded, it stands before fsync, fdatasync and write.
 *
 * Environment:
 *   SLOW_DISK_CALLS  which calls, separated by commas: fsync,fdatasync,write
 *   SLOW_DISK_FILES  a pattern of fnmatch(3) for the path of the file; a star takes slashes, too
 *   SLOW_DISK_EVERY  only each nth of those calls (default 1)
 *   SLOW_DISK_WHILE  only while there is a file of this name
 *   SLOW_DISK_MS     wait for so many milliseconds, then go on
 *   SLOW_DISK_HANG   wait until there is a file of this name, then go on
 *   SLOW_DISK_ERRNO  after the wait fail with this number instead of doing it
 *   SLOW_DISK_LOG    append a line here at the begin and at the end of each: "begin fdatasync /path", "end …"
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

static int is_there(const char *path) {
    struct stat status;
    return stat(path, &status) == 0;
}

static void pause_ms(long ms) {
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
}

static void tell(const char *what, const char *call, const char *path) {
    const char *name = setting("SLOW_DISK_LOG");
    if (name == NULL)
        return;
    int log = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log >= 0) {
        dprintf(log, "%s %s %s\n", what, call, path);
        close(log);
    }
}

/* Whether the list of calls, separated by commas, has this one. */
static int is_listed(const char *list, const char *call) {
    size_t length = strlen(call);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, call, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return 1;
    }
    return 0;
}

/* The trouble that this call has: 0, or the errno with which it fails. */
static int trouble(const char *call, int fd) {
    const char *list = setting("SLOW_DISK_CALLS"), *files = setting("SLOW_DISK_FILES");
    const char *during = setting("SLOW_DISK_WHILE"), *value;
    char link[64], path[PATH_MAX];
    if (list == NULL || files == NULL || !is_listed(list, call) || (during != NULL && !is_there(during)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    if (fnmatch(files, path, 0) != 0)
        return 0;
    long every = (value = setting("SLOW_DISK_EVERY")) != NULL ? atol(value) : 1;
    if (atomic_fetch_add(&calls, 1) % every != every - 1)
        return 0;
    tell("begin", call, path);
    if ((value = setting("SLOW_DISK_MS")) != NULL)
        pause_ms(atol(value));
    if ((value = setting("SLOW_DISK_HANG")) != NULL)
        while (!is_there(value))
            pause_ms(2);
    tell("end", call, path);
    return (value = setting("SLOW_DISK_ERRNO")) != NULL ? atoi(value) : 0;
}

static int refuse(int number) {
    errno = number;
    return -1;
}

int fsync(int fd) {
    int number = trouble("fsync", fd);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return number != 0 ? refuse(number) : real(fd);
}

int fdatasync(int fd) {
    int number = trouble("fdatasync", fd);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return number != 0 ? refuse(number) : real(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    int number = trouble("write", fd);
    ssize_t (*real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return number != 0 ? refuse(number) : real(fd, data, size);
}
