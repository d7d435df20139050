/* inject.so: loaded with LD_PRELOAD it makes one system call of a program fail, do half of its
 * work, or be the last one; see faults.sh.
 *
 *     INJECT=CALL:N:WHAT    the N-th CALL on a path that has INJECT_AT in it; N+: that and all later
 *     INJECT_AT=TEXT        part of the path; none: every path
 *     INJECT_SAID=FILE      gets a line, CALL N PATH, when the fault was reached
 *     INJECT_ROOT=DIR       /proc/self/cgroup and /sys/fs/cgroup/... are opened below DIR
 *
 * CALL: open read write close fsync rename unlink flock truncate mkdir stat list; alloc: malloc and
 * its like. WHAT: a name or number of errno; short: half of the bytes; kill: SIGKILL before the call,
 * half: after half of the bytes, killed: after the call; hup: SIGHUP, and the call is made.
 *
 * The C library calls its own write() from inside fwrite(), where no other function of that name is
 * asked. So the kernel is: a filter (seccomp) turns these system calls into SIGSYS, whose handler makes
 * the call itself, marked by its sixth argument, which the filter lets pass, or answers for it. A program
 * started by this one would keep the filter without a handler: do not inject into shells.
 *
 * fsync is answered without a call: what these tests kill is a process, not a machine. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#if defined __x86_64__
#define MACHINE AUDIT_ARCH_X86_64
#define RESULT(c) ((c)->uc_mcontext.gregs[REG_RAX])
static const int registers[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
#define ARGUMENT(c, i) ((long)(c)->uc_mcontext.gregs[registers[i]])
#elif defined __aarch64__
#define MACHINE AUDIT_ARCH_AARCH64
#define RESULT(c) ((c)->uc_mcontext.regs[0])
#define ARGUMENT(c, i) ((long)(c)->uc_mcontext.regs[i])
#else
#error "inject.c knows the registers of x86-64 and aarch64 alone"
#endif

enum { MARK = 0x601f601f, LONGEST = 4096 };

/* A system call: what it is called here, and which argument is its path (a file descriptor or the
 * text itself) or its number of bytes. */
typedef struct {
    long number;
    const char *name;
    int path, is_text, bytes; /* bytes: 0 for none */
} Call;

static const Call calls[] = {
#ifdef SYS_open
    {SYS_open, "open", 0, 1, 0},
#endif
    {SYS_openat, "open", 1, 1, 0},        {SYS_read, "read", 0, 0, 2},
    {SYS_pread64, "read", 0, 0, 2},       {SYS_write, "write", 0, 0, 2},
    {SYS_pwrite64, "write", 0, 0, 2},     {SYS_close, "close", 0, 0, 0},
    {SYS_fsync, "fsync", 0, 0, 0},
#ifdef SYS_rename
    {SYS_rename, "rename", 0, 1, 0},      {SYS_unlink, "unlink", 0, 1, 0},
    {SYS_rmdir, "unlink", 0, 1, 0},       {SYS_mkdir, "mkdir", 0, 1, 0},
#endif
#ifdef SYS_renameat
    {SYS_renameat, "rename", 1, 1, 0},
#endif
    {SYS_renameat2, "rename", 1, 1, 0},   {SYS_unlinkat, "unlink", 1, 1, 0},
    {SYS_mkdirat, "mkdir", 1, 1, 0},      {SYS_flock, "flock", 0, 0, 0},
    {SYS_ftruncate, "truncate", 0, 0, 0}, {SYS_fstat, "stat", 0, 0, 0},
    {SYS_getdents64, "list", 0, 0, 0},
#ifdef SYS_newfstatat /* as fstat() makes it: of stat() there is no path here */
    {SYS_newfstatat, "stat", 0, 0, 0},
#endif
};
enum { CALLS = sizeof calls / sizeof *calls };

static const struct {
    const char *name;
    int number;
} errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC},         {"EINTR", EINTR},
              {"EROFS", EROFS},   {"EACCES", EACCES},         {"ENOSYS", ENOSYS},
              {"ENOLCK", ENOLCK}, {"EOPNOTSUPP", EOPNOTSUPP}, {"EAGAIN", EAGAIN},
              {"EMFILE", EMFILE}, {"EDQUOT", EDQUOT},         {"ENOMEM", ENOMEM},
              {"EXDEV", EXDEV},   {"ESTALE", ESTALE},         {"EINVAL", EINVAL},
              {"EPERM", EPERM}};

static char wanted[16], what[16], at[256], said[LONGEST], root[256];
static long first, last, count; /* the calls that fail, and those so far */

static long raw(long number, const long *a) {
    const long result = syscall(number, a[0], a[1], a[2], a[3], a[4], (long)MARK);
    return result < 0 ? -errno : result;
}

/* Writes down which call it was. */
static void say(const char *path) {
    char line[LONGEST + 64];
    if (!*said) return;
    const int length = snprintf(line, sizeof line, "%s %ld %s\n", wanted, count, path);
    const long file = raw(SYS_openat, (long[]){AT_FDCWD, (long)said,
                                               O_WRONLY | O_CREAT | O_APPEND, 0666, 0});
    raw(SYS_write, (long[]){file, (long)line, length, 0, 0});
    raw(SYS_close, (long[]){file, 0, 0, 0, 0});
}

static long error_wanted(void) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (!strcmp(what, errors[i].name)) return errors[i].number;
    return atoi(what);
}

static int is(const char *word) { return !strcmp(what, word); }

static void link_at(const char *name, char *path) {
    const ssize_t length = readlink(name, path, LONGEST - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void path_of_call(const Call *x, const long *a, char *path) {
    char name[64];
    *path = 0;
    if (x->is_text) {
        const char *text = (const char *)a[x->path];
        if (*text != '/') link_at("/proc/self/cwd", path);
        const size_t n = strlen(path);
        snprintf(path + n, LONGEST - n, "%s%s", n ? "/" : "", text);
        return;
    }
    snprintf(name, sizeof name, "/proc/self/fd/%ld", a[x->path]);
    link_at(name, path);
}

/* The call, with a path of its own if it opens what INJECT_ROOT has. */
static long make(const Call *x, const long *a, const char *path) {
    static const char *const there[] = {"/proc/self/cgroup", "/sys/fs/cgroup"};
    char other[LONGEST + 300];
    long b[5];
    if (!strcmp(x->name, "fsync")) return 0;
    memcpy(b, a, sizeof b);
    for (int i = 0; i < 2; i++) {
        if (!*root || strcmp(x->name, "open") ||
            strncmp(path, there[i], strlen(there[i])))
            continue;
        snprintf(other, sizeof other, "%s%s", root, path);
        b[x->path] = (long)other;
    }
    return raw(x->number, b);
}

static long answer(const Call *x, const long *a) {
    char path[LONGEST];
    path_of_call(x, a, path);
    if (strcmp(x->name, wanted) || !strstr(path, at)) return make(x, a, path);
    count++;
    if (count < first || count > last) return make(x, a, path);
    say(path);
    if (is("kill")) kill(getpid(), SIGKILL);
    if (is("hup")) kill(getpid(), SIGHUP);
    if (is("hup")) return make(x, a, path);
    long b[5], result;
    memcpy(b, a, sizeof b);
    if (x->bytes && (is("short") || is("half"))) b[x->bytes] = (b[x->bytes] + 1) / 2;
    if (is("short")) return make(x, b, path);
    if (!is("half") && !is("killed")) return -error_wanted();
    result = make(x, b, path);
    kill(getpid(), SIGKILL);
    return result;
}

static void on_call(int signal, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    const int before = errno;
    (void)signal;
    long a[5];
    for (int i = 0; i < 5; i++) a[i] = ARGUMENT(c, i);
    for (int i = 0; i < CALLS; i++)
        if (calls[i].number == info->si_syscall) {
            RESULT(c) = answer(&calls[i], a);
            break;
        }
    errno = before;
}

/* Calls of the table go to the handler unless they are marked. */
static int install(void) {
    struct sock_filter f[CALLS + 8];
    int n = 0;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                          offsetof(struct seccomp_data, arch));
    f[n++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 0, CALLS + 1);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                          offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++)
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                              (unsigned)calls[i].number,
                                              (unsigned char)(CALLS - i), 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                          offsetof(struct seccomp_data, args[5]));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    const struct sock_fprog program = {(unsigned short)n, f};
    const struct sigaction to_handler = {.sa_sigaction = on_call,
                                         .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &to_handler, NULL)) return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void take(const char *name, char *to, size_t room) {
    const char *value = getenv(name);
    snprintf(to, room, "%s", value ? value : "");
}

__attribute__((constructor)) static void start(void) {
    char fault[64], n[16], later = 0;
    take("INJECT", fault, sizeof fault);
    take("INJECT_AT", at, sizeof at);
    take("INJECT_SAID", said, sizeof said);
    take("INJECT_ROOT", root, sizeof root);
    if (!*fault && !*root) return;
    if (*fault && sscanf(fault, "%15[a-z]:%15[0-9]%c", wanted, n, &later) == 3) {
        first = atol(n);
        last = later == '+' ? 1L << 40 : first;
        snprintf(what, sizeof what, "%s", strrchr(fault, ':') + 1);
    }
    if (!strcmp(wanted, "alloc")) return;
    if (!install()) return;
    static const char none[] = "inject: no seccomp filter here\n";
    if (write(2, none, sizeof none - 1) < 0) _exit(98);
    _exit(99);
}

/* ---- Memory: the functions of that name in front of the C library's. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static int fails(void) {
    if (strcmp(wanted, "alloc")) return 0;
    const long i = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (i < first || i > last) return 0;
    if (i == first) say("memory");
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
void *memalign(size_t to, size_t n) { return fails() ? NULL : __libc_memalign(to, n); }
void *aligned_alloc(size_t to, size_t n) {
    return fails() ? NULL : __libc_memalign(to, n);
}
