"""Tries what a sandbox must not be able to do. One line a probe: `denied NAME` or `ALLOWED NAME: what was seen`.

What the host has to offer (a listener, a socket, a shared memory key, a secret) comes from the test by environment.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
PROBES = []

if "IN_A_CLONE" in os.environ:
    import time

    print("ready", flush=True)
    # A template is pid 2 of its namespace, a clone the first of its own.
    while os.getpid() != 1:
        time.sleep(0.01)
    # The launcher's pipes.
    for number in (3, 4, 5, 6):
        os.close(number)

# Another process than the own one: an ordinary sandbox's init. A clone has none, so what would be the next there.
OTHER = 1 if os.getpid() != 1 else 2


def probe(function):
    PROBES.append((function.__name__, function))
    return function


def call(number, *arguments):
    """A raw system call; denied means that the kernel's code for it is not reached."""
    ctypes.set_errno(0)
    words = [a if isinstance(a, (bytes, ctypes.Array, type(None))) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT):
            raise OSError(code, os.strerror(code))
        return f"reached: {errno.errorcode.get(code, code)}"
    return f"returned {result}"


X86 = platform.machine() == "x86_64"
NUMBERS = {
    # name: (x86-64, aarch64, arguments)
    "mount_tmpfs": (165, 40, (b"x", b"/tmp", b"tmpfs", 0, None)),
    "mount_bind": (165, 40, (b"/usr", b"/tmp", None, 4096, None)),
    "mount_remount_writable": (165, 40, (None, b"/", None, 32 | 4096, None)),
    "umount_proc": (166, 39, (b"/proc", 2)),
    "pivot_root": (155, 41, (b"/tmp", b"/tmp")),
    "chroot": (161, 51, (b"/tmp",)),
    "open_tree": (428, 428, (-100, b"/", 1)),
    "move_mount": (429, 429, (-100, b"/tmp", -100, b"/tmp", 0)),
    "fsopen": (430, 430, (b"tmpfs", 0)),
    "fsconfig": (431, 431, (0, 0, None, None, 0)),
    "fsmount": (432, 432, (0, 0, 0)),
    "fspick": (433, 433, (-100, b"/", 0)),
    "mount_setattr": (442, 442, (-100, b"/", 0, None, 0)),
    "unshare_user": (272, 97, (0x10000000,)),
    "unshare_mount": (272, 97, (0x00020000,)),
    "unshare_net": (272, 97, (0x40000000,)),
    "unshare_nothing": (272, 97, (0,)),
    "setns": (308, 268, (0, 0)),
    "clone_new_user": (56, 220, (0x10000000 | 17, 0, 0, 0, 0)),
    "clone_new_net": (56, 220, (0x40000000 | 17, 0, 0, 0, 0)),
    "clone3": (435, 435, (None, 0)),
    "io_uring_setup": (425, 425, (1, None)),
    "io_uring_enter": (426, 426, (0, 0, 0, 0, None, 0)),
    "io_uring_register": (427, 427, (0, 0, None, 0)),
    "bpf": (321, 280, (0, None, 0)),
    "userfaultfd": (323, 282, (1,)),
    "perf_event_open": (298, 241, (None, 0, -1, -1, 0)),
    "keyctl": (250, 219, (0, -3, 0)),
    "add_key": (248, 217, (b"user", b"x", b"y", 1, -3)),
    "request_key": (249, 218, (b"user", b"x", None, 0)),
    "ptrace_traceme": (101, 117, (0, 0, 0, 0)),
    "ptrace_init": (101, 117, (16, OTHER, 0, 0)),
    "process_vm_readv": (310, 270, (OTHER, None, 0, None, 0, 0)),
    "process_vm_writev": (311, 271, (OTHER, None, 0, None, 0, 0)),
    "process_madvise": (440, 440, (0, None, 0, 0, 0)),
    "kcmp": (312, 272, (1, 2, 0, 0, 0)),
    "pidfd_getfd": (438, 438, (0, 0, 0)),
    "personality_change": (135, 92, (0x0040000,)),
    "init_module": (175, 105, (None, 0, b"")),
    "finit_module": (313, 273, (0, b"", 0)),
    "delete_module": (176, 106, (b"x", 0)),
    "kexec_load": (246, 104, (0, 0, None, 0)),
    "reboot": (169, 142, (0, 0, 0)),
    "swapon": (167, 224, (b"/tmp/x", 0)),
    "swapoff": (168, 225, (b"/tmp/x",)),
    "quotactl": (179, 60, (0, None, 0, None)),
    "quotactl_fd": (443, 443, (0, 0, 0, None)),
    "syslog": (103, 116, (3, None, 0)),
    "acct": (163, 89, (None,)),
    "sethostname": (170, 161, (b"x", 1)),
    "setdomainname": (171, 162, (b"x", 1)),
    "settimeofday": (164, 170, (None, None)),
    "clock_settime": (227, 112, (0, None)),
    "adjtimex": (159, 171, (None,)),
    "name_to_handle_at": (303, 264, (-100, b"/", None, None, 0)),
    "open_by_handle_at": (304, 265, (-1, None, 0)),
    "fanotify_init": (300, 262, (0, 0)),
    "mbind": (237, 235, (0, 0, 0, None, 0, 0)),
    "migrate_pages": (256, 238, (0, 0, None, None)),
    "move_pages": (279, 239, (0, 0, None, None, None, 0)),
    "vhangup": (153, 58, ()),
    "kernel_aio": (206, 0, (1, None)),
    "sync_of_the_host": (162, 81, ()),
    "memfd_secret": (447, 447, (0,)),
    "future_call": (1000, 1000, ()),
}
if X86:
    NUMBERS |= {
        "iopl": (172, 0, (3,)),
        "ioperm": (173, 0, (0, 1, 1)),
        "modify_ldt": (154, 0, (0, None, 0)),
        "kexec_file_load": (320, 0, (0, 0, 0, None, 0)),
        "x32_getpid": (0x40000000 | 39, 0, ()),
    }


def numbered(name, number, arguments):
    def run():
        if name.startswith("clone_new"):
            # A clone that works would run this script twice.
            before = os.getpid()
            seen = call(number, *arguments)
            if os.getpid() != before:
                os._exit(0)
            return seen
        return call(number, *arguments)

    PROBES.append((name, run))


for name, (x86, arm, arguments) in NUMBERS.items():
    numbered(name, x86 if X86 else arm, arguments)


def family(name, *arguments):
    def run():
        socket.socket(*arguments).close()
        return "a socket"

    PROBES.append((name, run))


family("socket_packet", 17, socket.SOCK_RAW, 0)
family("socket_netlink_route", 16, socket.SOCK_RAW, 0)
family("socket_netlink_netfilter", 16, socket.SOCK_RAW, 12)
family("socket_netlink_audit", 16, socket.SOCK_RAW, 9)
family("socket_vsock", 40, socket.SOCK_STREAM, 0)
family("socket_alg", 38, socket.SOCK_SEQPACKET, 0)
family("socket_key", 15, socket.SOCK_RAW, 2)
family("socket_bluetooth", 31, socket.SOCK_RAW, 0)
family("socket_can", 29, socket.SOCK_RAW, 0)
family("socket_tipc", 30, socket.SOCK_STREAM, 0)
family("socket_xdp", 44, socket.SOCK_RAW, 0)
family("socket_raw_icmp", socket.AF_INET, socket.SOCK_RAW, 1)
family("socket_raw_tcp", socket.AF_INET, socket.SOCK_RAW, 6)
family("socket_raw_icmp6", socket.AF_INET6, socket.SOCK_RAW, 58)
family("socket_ping", socket.AF_INET, socket.SOCK_DGRAM, 1)


# Who it is.


@probe
def capset():
    """Giving up is allowed, and all that there is to do with it."""
    header = struct.pack("Ii", 0x20080522, 0)
    wanted = 1 << 21
    return call(126 if X86 else 91, header, struct.pack("6I", wanted, wanted, wanted, 0, 0, 0))


@probe
def become_root():
    os.setuid(0)
    return "uid 0"


@probe
def become_root_group():
    os.setgid(0)
    return "gid 0"


@probe
def become_another():
    os.setresuid(1001, 1001, 1001)
    return "uid 1001"


@probe
def join_groups():
    os.setgroups([0, 4, 27])
    return "groups"


@probe
def chown_to_root():
    path = "/tmp/chown"
    open(path, "w").close()
    os.chown(path, 0, 0)
    return "chowned"


@probe
def is_root():
    return f"uid {os.getuid()}" if 0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) else None


@probe
def has_groups_of_the_host():
    extra = [g for g in os.getgroups() if g not in (os.getgid(), 65534)]
    return str(extra) if extra else None


def status(name):
    with open("/proc/self/status") as lines:
        return next(line.split(":")[1].strip() for line in lines if line.startswith(name + ":"))


@probe
def capabilities_effective():
    return status("CapEff") if int(status("CapEff"), 16) else None


@probe
def capabilities_permitted():
    return status("CapPrm") if int(status("CapPrm"), 16) else None


@probe
def capabilities_bounding():
    return status("CapBnd") if int(status("CapBnd"), 16) else None


@probe
def gain_by_exec():
    return "no_new_privs is off" if status("NoNewPrivs") != "1" else None


@probe
def system_calls_unfiltered():
    return "mode " + status("Seccomp") if status("Seccomp") != "2" else None


@probe
def map_more_uids():
    with open("/proc/self/uid_map", "w") as file:
        file.write("0 0 1\n")
    return "written"


@probe
def uid_map_wider_than_one():
    maps = open("/proc/self/uid_map").read().split()
    return None if len(maps) == 3 and maps[0] == "1000" and maps[2] == "1" else str(maps)


# Files.


def writes(folder):
    def run():
        path = os.path.join(folder, "written")
        with open(path, "w") as file:
            file.write("x")
        os.unlink(path)
        return "written"

    PROBES.append((f"write_in_{folder}", run))


for folder in sorted({"/", "/usr", "/usr/bin", "/etc", "/dev", "/proc", "/app", "/bin", "/lib", "/sys", "/var", "/root", "/home", "/run", *(os.path.join("/", n) for n in os.listdir("/"))} - {"/tmp"}):
    if os.path.isdir(folder) or folder in ("/sys", "/home", "/run", "/var"):
        writes(folder)


def reads(path):
    def run():
        if os.path.isdir(path):
            return f"lists {os.listdir(path)[:3]}"
        with open(path, "rb") as file:
            return f"reads {file.read(20)!r}"

    PROBES.append((f"read_{path}", run))


for path in (
    "/etc/shadow /work /home /var /run /sys /boot /root/.ssh /root/.bashrc /root/.config /dev/mem /dev/kmem /dev/port /dev/kmsg /dev/kvm "
    "/dev/vda /dev/sda /dev/tty /dev/ptmx /dev/console /dev/fuse /dev/net/tun /dev/pts /proc/kcore /proc/kmsg /proc/kallsyms_x /proc/1/environ "
    "/proc/1/cmdline /proc/1/root /proc/1/fd /proc/1/maps /proc/1/mem /proc/1/ns/net /sys/kernel /sys/fs/cgroup /sys/fs/bpf "
    "/proc/sysrq-trigger /proc/slabinfo /proc/keys_x /proc/vmallocinfo"
).split():
    if not path.endswith("_x"):
        reads(path.replace("/proc/1/", f"/proc/{OTHER}/"))
for variable in ("HOST_FILE", "HOST_DIR", "KEEPER_DIR"):
    if os.environ.get(variable):
        reads(os.environ[variable])


def sysctl(path):
    def run():
        with open(path, "w") as file:
            file.write("1")
        return "written"

    PROBES.append((f"write_{path}", run))


for path in (
    "/proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/kernel/randomize_va_space /proc/sys/kernel/panic /proc/sys/vm/drop_caches "
    "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/fs/file-max /proc/sysrq-trigger /proc/self/setgroups"
).split():
    sysctl(path)


@probe
def root_is_writable():
    return None if os.statvfs("/").f_flag & os.ST_RDONLY else "no ST_RDONLY"


@probe
def usr_is_writable():
    return None if os.statvfs("/usr").f_flag & os.ST_RDONLY else "no ST_RDONLY"


@probe
def setuid_programs_work():
    return None if all(os.statvfs(p).f_flag & os.ST_NOSUID for p in ("/", "/usr", "/tmp", "/dev/shm")) else "no ST_NOSUID"


@probe
def devices_work():
    return None if all(os.statvfs(p).f_flag & os.ST_NODEV for p in ("/", "/usr", "/tmp", "/dev/shm")) else "no ST_NODEV"


@probe
def execute_in_shared_memory():
    return None if os.statvfs("/dev/shm").f_flag & os.ST_NOEXEC else "no ST_NOEXEC"


@probe
def make_a_device():
    os.mknod("/tmp/mem", 0o20666, os.makedev(1, 1))
    return "made"


@probe
def make_a_block_device():
    os.mknod("/tmp/disk", 0o60666, os.makedev(254, 0))
    return "made"


@probe
def replace_a_program():
    os.rename("/usr/bin/env", "/usr/bin/env2")
    return "renamed"


@probe
def leave_by_dotdot():
    os.chdir("/" + "../" * 50)
    return "outside" if os.path.exists("/work") or os.path.exists("work") else None


# Other processes.


@probe
def see_init():
    return "listed" if str(OTHER) in os.listdir("/proc") else None


@probe
def signal_init():
    os.kill(OTHER, 0)
    return "sent"


@probe
def kill_init():
    os.kill(OTHER, signal.SIGKILL)
    return "sent"


@probe
def signal_everybody():
    os.kill(-1, 0)
    return "sent"


@probe
def see_the_host():
    pid = os.environ["HOST_PID"]
    return "listed" if os.path.exists(f"/proc/{pid}/exe") else None


@probe
def more_processes_than_the_commands():
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return str(pids) if [pid for pid in pids if pid != os.getpid()] else None


# What was left open, what was left over.


@probe
def inherited_descriptors():
    open_ones = {int(name) for name in os.listdir("/proc/self/fd")}
    left = {number for number in open_ones - {0, 1, 2} if os.path.exists(f"/proc/self/fd/{number}")}
    return str({number: os.readlink(f"/proc/self/fd/{number}") for number in left}) if left else None


@probe
def stdin_is_something():
    return None if os.path.samefile("/proc/self/fd/0", "/dev/null") else os.readlink("/proc/self/fd/0")


@probe
def environment_of_the_host():
    return "CANARY" if "CANARY" in os.environ or "CARGO" in os.environ or "HOME" in os.environ else None


@probe
def name_of_the_host():
    return socket.gethostname() if socket.gethostname() == os.environ["HOST_NAME"] else None


@probe
def shared_memory_of_the_host():
    libc.shmget.restype = ctypes.c_int
    seen = libc.shmget(ctypes.c_int(int(os.environ["HOST_SHM"])), ctypes.c_size_t(0), 0)
    return f"id {seen}" if seen >= 0 else None


@probe
def cgroup_of_the_host():
    return open("/proc/self/cgroup").read() if "tanebi" in open("/proc/self/cgroup").read() else None


@probe
def type_into_the_terminal():
    return call(16 if X86 else 29, 0, 0x5412, b"x")


@probe
def paste_into_the_terminal():
    return call(16 if X86 else 29, 0, 0x541C, b"x")


@probe
def has_a_terminal():
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "opened"


# The network.


def reaches(address):
    with socket.socket() as client:
        client.settimeout(3)
        client.connect(address)
        client.sendall(b"hello")
        return f"connected, {client.recv(10)!r}"


@probe
def loopback_of_the_host():
    return reaches(("127.0.0.1", int(os.environ["HOST_PORT"])))


@probe
def address_of_the_host():
    return reaches((os.environ["HOST_ADDRESS"], int(os.environ["HOST_PORT"])))


@probe
def abstract_socket_of_the_host():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + os.environ["HOST_ABSTRACT"])
        return "connected"


@probe
def other_interfaces():
    names = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
    return None if names == ["lo"] else str(names)


@probe
def bind_a_low_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 53))
        return "bound"


@probe
def change_the_loopback():
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0))
    return "down"


# Limits.


@probe
def core_dumps():
    return None if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else str(resource.getrlimit(resource.RLIMIT_CORE))


@probe
def raise_core():
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    return "raised"


@probe
def raise_open_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    return "raised"


@probe
def raise_processes():
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (hard + 1, hard + 1))
    return "raised"


@probe
def raise_priority():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "raised"


@probe
def real_time_priority():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "raised"


@probe
def real_time_disk_priority():
    # IOPRIO_CLASS_RT for this process.
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(251 if X86 else 30), 1, 0, 1 << 13) == 0:
        return "raised"
    raise OSError(ctypes.get_errno(), "ioprio_set")


@probe
def spared_when_memory_is_short():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "written"


def main():
    allowed = 0
    # A process that asked to be traced stops at the next signal: last.
    PROBES.sort(key=lambda probe: probe[0] == "ptrace_traceme")
    for name, function in PROBES:
        try:
            seen = function()
        except (OSError, ValueError) as error:
            seen = None
            del error
        if seen is None:
            print("denied", name)
        else:
            allowed += 1
            print(f"ALLOWED {name}: {seen}")
    print(f"{len(PROBES)} probes, {allowed} allowed")
    sys.stdout.flush()


main()
