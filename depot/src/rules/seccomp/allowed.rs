//! The system calls by name: those allowed without a condition, and those refused.
//!
//! Names that an architecture does not have are passed over by both runtimes.

/// gdn's list. `ptrace` is among it: since Linux 4.8 a tracer can't get round the filter, and older
/// kernels lack too much else that we need.
pub(super) const GDN: &str = "\
    _llseek _newselect accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod \
    chown chown32 chroot clock_getres clock_gettime clock_nanosleep close connect copy_file_range \
    creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat fadvise64 \
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 \
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futimesat get_robust_list \
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid \
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority \
    getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
    getsockopt gettid gettimeofday getuid getuid32 getxattr inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_setup io_submit ioctl \
    ioprio_get ioprio_set ipc kill lchown lchown32 lgetxattr link linkat listen listxattr \
    llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise memfd_create mincore mkdir \
    mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd \
    msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pipe pipe2 poll \
    ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 ptrace pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv recv recvfrom recvmmsg recvmsg remap_file_pages removexattr \
    rename renameat renameat2 restart_syscall rmdir rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop send sendfile \
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid \
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
    setrlimit setsid setsockopt setuid setuid32 setxattr shmat shmctl shmdt shmget shutdown \
    sigaltstack signalfd signalfd4 sigreturn socket socketcall socketpair splice stat stat64 statfs \
    statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo syslog tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create \
    timerfd_gettime timerfd_settime times tkill truncate truncate64 ugetrlimit umask uname unlink \
    unlinkat utime utimensat utimes vfork vmsplice wait4 waitid waitpid write writev";

/// What libc and language runtimes of today call, and gdn's list is too old to know. Each is a
/// newer form of a listed call (faccessat2, fchmodat2, epoll_pwait2, close_range for a loop of
/// close, futex_waitv, pidfd_open and pidfd_send_signal for kill, and the time64 family that
/// 32-bit programs need), or acts on the caller alone (rseq, membarrier, landlock). Without them
/// programs break rather than fall back, because they take EPERM for an answer and look for
/// ENOSYS. None gives a process anything over another that it did not have by a listed call;
/// pidfd_getfd and the mount calls do, and stay out.
pub(super) const MODERN: &str = "\
    close_range epoll_pwait2 faccessat2 fchmodat2 futex_waitv landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self membarrier pidfd_open pidfd_send_signal rseq \
    clock_getres_time64 clock_gettime64 clock_nanosleep_time64 futex_time64 io_pgetevents \
    io_pgetevents_time64 mq_timedreceive_time64 mq_timedsend_time64 ppoll_time64 pselect6_time64 \
    recvmmsg_time64 rt_sigtimedwait_time64 sched_rr_get_interval_time64 semtimedop_time64 \
    timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64";

/// What is known and refused: a program is told EPERM, which says that asking again won't help. All
/// that is on none of these lists is newer than they are, and does not exist here (ENOSYS).
pub(super) const REFUSED: &str = "\
    _sysctl acct add_key adjtimex bpf clock_adjtime clock_adjtime64 clock_settime clock_settime64 \
    create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick \
    get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup \
    ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_secret \
    migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl \
    open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root pkey_alloc \
    pkey_free pkey_mprotect process_madvise process_mrelease process_vm_readv process_vm_writev \
    query_module quotactl quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node \
    setdomainname sethostname setns settimeofday stime swapoff swapon sysfs umount umount2 \
    unshare uselib userfaultfd ustat vhangup vm86 vm86old";
