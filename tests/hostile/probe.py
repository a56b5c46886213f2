"""Tries what neither a function nor a build step must be able to do.

Run as `probe.py function|clone|build [FOLDER OF THE CODE]`; beside it lies `host.json`, which says what the host has to offer. Writes a JSON object of
probe and `denied` or `ALLOWED: what was seen`. A system call is denied when the kernel's code for it is not reached.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
KIND = sys.argv[1]
with open(os.path.join(HERE, "host.json")) as file:
    HOST = json.load(file)

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
PROBES = {}


def own_init():
    """Whether the first process is the function itself, as in a clone: nothing of it is a secret to it, and the kernel keeps signals from it."""
    with open("/proc/1/environ", "rb") as variables:
        return f"K_REVISION={os.environ['K_REVISION']}".encode() in variables.read().split(b"\0")


OWN_INIT = KIND == "clone" and own_init()


def probe(function):
    PROBES[function.__name__] = function
    return function


def add(name, function, *arguments):
    PROBES[name] = lambda: function(*arguments)


# System calls.


def call(number, *arguments):
    ctypes.set_errno(0)
    words = [a if isinstance(a, (bytes, ctypes.Array, type(None))) else ctypes.c_long(a) for a in arguments]
    before = os.getpid()
    result = libc.syscall(ctypes.c_long(number), *words)
    if os.getpid() != before:
        # A clone that worked would run this script twice.
        os._exit(0)
    if result == -1:
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT):
            return None
        return f"reached: {errno.errorcode.get(code, code)}"
    return f"returned {result}"


USER, MOUNT, NET, PID = 0x10000000, 0x00020000, 0x40000000, 0x20000000
CALLS = {
    # name: (x86-64, aarch64, arguments)
    "mount_tmpfs": (165, 40, (b"x", b"/tmp", b"tmpfs", 0, None)),
    "mount_proc": (165, 40, (b"proc", b"/tmp", b"proc", 0, None)),
    "mount_bind": (165, 40, (b"/usr", b"/tmp", None, 4096, None)),
    "mount_remount_writable": (165, 40, (None, b"/", None, 32 | 4096, None)),
    "umount": (166, 39, (b"/proc", 2)),
    "pivot_root": (155, 41, (b"/tmp", b"/tmp")),
    "chroot": (161, 51, (b"/tmp",)),
    "open_tree": (428, 428, (-100, b"/", 1)),
    "move_mount": (429, 429, (-100, b"/tmp", -100, b"/tmp", 0)),
    "fsopen": (430, 430, (b"tmpfs", 0)),
    "fspick": (433, 433, (-100, b"/", 0)),
    "mount_setattr": (442, 442, (-100, b"/", 0, None, 0)),
    "unshare_user": (272, 97, (USER,)),
    "unshare_user_and_mount": (272, 97, (USER | MOUNT,)),
    "unshare_mount": (272, 97, (MOUNT,)),
    "unshare_net": (272, 97, (NET,)),
    "unshare_pid": (272, 97, (PID,)),
    "setns": (308, 268, (0, 0)),
    "clone_user": (56, 220, (USER | 17, 0, 0, 0, 0)),
    "clone_net": (56, 220, (NET | 17, 0, 0, 0, 0)),
    "io_uring_setup": (425, 425, (1, None)),
    "io_uring_enter": (426, 426, (0, 0, 0, 0, None, 0)),
    "io_uring_register": (427, 427, (0, 0, None, 0)),
    "bpf": (321, 280, (0, None, 0)),
    "userfaultfd": (323, 282, (1,)),
    "perf_event_open": (298, 241, (None, 0, -1, -1, 0)),
    "keyctl": (250, 219, (0, -3, 0)),
    "add_key": (248, 217, (b"user", b"x", b"y", 1, -3)),
    "request_key": (249, 218, (b"user", b"x", None, 0)),
    "ptrace_init": (101, 117, (16, 1, 0, 0)),
    "ptrace_parent": (101, 117, (16, os.getppid(), 0, 0)),
    "process_vm_readv": (310, 270, (os.getppid(), None, 0, None, 0, 0)),
    "process_vm_writev": (311, 271, (os.getppid(), None, 0, None, 0, 0)),
    "process_madvise": (440, 440, (0, None, 0, 0, 0)),
    "kcmp": (312, 272, (1, 2, 0, 0, 0)),
    "pidfd_getfd": (438, 438, (0, 0, 0)),
    "personality": (135, 92, (0x0040000,)),
    "init_module": (175, 105, (None, 0, b"")),
    "finit_module": (313, 273, (0, b"", 0)),
    "delete_module": (176, 106, (b"x", 0)),
    "kexec_load": (246, 104, (0, 0, None, 0)),
    "reboot": (169, 142, (0, 0, 0)),
    "swapon": (167, 224, (b"/tmp/x", 0)),
    "swapoff": (168, 225, (b"/tmp/x",)),
    "quotactl": (179, 60, (0, None, 0, None)),
    "quotactl_fd": (443, 443, (0, 0, 0, None)),
    "kernel_log": (103, 116, (3, None, 0)),
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
    "memfd_secret": (447, 447, (0,)),
    "call_of_the_future": (1000, 1000, ()),
}
if X86:
    CALLS |= {
        "iopl": (172, 0, (3,)),
        "ioperm": (173, 0, (0, 1, 1)),
        "modify_ldt": (154, 0, (0, None, 0)),
        "kexec_file_load": (320, 0, (0, 0, 0, None, 0)),
        "x32_getpid": (0x40000000 | 39, 0, ()),
    }
for name, (x86, arm, arguments) in CALLS.items():
    add(f"call_{name}", call, x86 if X86 else arm, *arguments)


# Sockets.


def family(*arguments):
    socket.socket(*arguments).close()
    return "a socket"


FAMILIES = {
    "packet": (17, socket.SOCK_RAW, 0),
    "netlink_route": (16, socket.SOCK_RAW, 0),
    "netlink_netfilter": (16, socket.SOCK_RAW, 12),
    "netlink_audit": (16, socket.SOCK_RAW, 9),
    "vsock": (40, socket.SOCK_STREAM, 0),
    "alg": (38, socket.SOCK_SEQPACKET, 0),
    "key": (15, socket.SOCK_RAW, 2),
    "bluetooth": (31, socket.SOCK_RAW, 0),
    "can": (29, socket.SOCK_RAW, 0),
    "tipc": (30, socket.SOCK_STREAM, 0),
    "xdp": (44, socket.SOCK_RAW, 0),
    "raw_icmp": (socket.AF_INET, socket.SOCK_RAW, 1),
    "raw_tcp": (socket.AF_INET, socket.SOCK_RAW, 6),
    "raw_icmp6": (socket.AF_INET6, socket.SOCK_RAW, 58),
}
for name, arguments in FAMILIES.items():
    add(f"socket_{name}", family, *arguments)


# Who it is.


def status(name):
    with open("/proc/self/status") as lines:
        return next(line.split(":")[1].strip() for line in lines if line.startswith(name + ":"))


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
def is_root():
    return f"uid {os.getuid()}" if 0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) else None


for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
    add(f"capabilities_{name}", lambda name: status(name) if int(status(name), 16) else None, name)


@probe
def gain_by_exec():
    return "no_new_privs is off" if status("NoNewPrivs") != "1" else None


@probe
def calls_unfiltered():
    return "mode " + status("Seccomp") if status("Seccomp") != "2" else None


@probe
def map_more_uids():
    with open("/proc/self/uid_map", "w") as file:
        file.write("0 0 1\n")
    return "written"


@probe
def chown_to_root():
    open("/tmp/chown", "w").close()
    os.chown("/tmp/chown", 0, 0)
    return "chowned"


@probe
def setuid_file_on_usr():
    return None if all(os.statvfs(path).f_flag & os.ST_NOSUID for path in ("/", "/usr", "/tmp")) else "no ST_NOSUID"


@probe
def devices_on_tmp():
    return None if all(os.statvfs(path).f_flag & os.ST_NODEV for path in ("/", "/usr", "/tmp")) else "no ST_NODEV"


# Files.


def write(folder):
    path = os.path.join(folder, "written")
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return "written"


FOLDERS = "/ /usr /usr/bin /usr/lib /etc /dev /proc /bin /lib /sys /var /root /home /run /opt /app /source /uv /cache-shared /layers".split()
for folder in [*FOLDERS, os.path.dirname(os.__file__)]:
    add(f"write_in_{folder}", write, folder)
if KIND != "build":
    # In a build it is a copy of the source, made for this step alone.
    add("write_in_/workspace", write, "/workspace")
    add("write_in_own_code", write, sys.argv[2] if len(sys.argv) > 2 else HERE)


def read(path):
    if os.path.isdir(path):
        # The interpreter may lie below a folder that is the host's otherwise.
        seen = [name for name in os.listdir(path) if not sys.base_prefix.startswith(os.path.join(path, name))]
        return f"lists {seen[:3]}" if seen else None
    with open(path, "rb") as file:
        return f"reads {file.read(20)!r}"


READ = (
    "/etc/shadow /home /var/lib /var/log /run /sys /boot /root /root/.ssh /root/.bashrc /root/.config /dev/mem /dev/kmem /dev/port /dev/kmsg /dev/kvm "
    "/dev/vda /dev/sda /dev/tty /dev/console /dev/fuse /dev/net/tun /dev/vsock /proc/kcore /proc/kmsg /proc/1/environ /proc/1/cmdline "
    "/proc/1/root /proc/1/fd /proc/1/maps /proc/1/mem /proc/1/ns/net /sys/kernel /sys/fs/cgroup /sys/fs/bpf /proc/slabinfo /proc/vmallocinfo "
    "/var/run/docker.sock"
)
for path in READ.split():
    # A clone's launcher lies in /run.
    if not (OWN_INIT and (path == "/run" or path.startswith("/proc/1/") and path != "/proc/1/mem")):
        add(f"read_{path}", read, path)
add("read_data_folder", read, HOST["data"])
add("read_secret_of_the_operator", read, HOST["data"] + "/client/secret")
add("read_state", read, HOST["data"] + "/state")
add("read_file_of_the_host", read, HOST["file"])
add("read_by_dotdot", read, "/../" * 20 + HOST["file"])
add("read_by_own_root", read, "/proc/self/root" + HOST["file"])
add("read_by_working_folder", read, f"/proc/{os.getppid()}/cwd/../../../.." + HOST["file"])


def sysctl(path):
    with open(path, "w") as file:
        file.write("1")
    return "written"


SYSCTLS = (
    "kernel/core_pattern kernel/hostname kernel/randomize_va_space kernel/panic kernel/modprobe vm/drop_caches vm/overcommit_memory net/ipv4/ip_forward "
    "net/ipv4/ip_unprivileged_port_start fs/file-max fs/protected_symlinks"
)
for path in SYSCTLS.split():
    add(f"write_sysctl_{path}", sysctl, "/proc/sys/" + path)
for path in ("/proc/sysrq-trigger", "/proc/self/setgroups", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/kernel/uevent_helper"):
    add(f"write_{path}", sysctl, path)


@probe
def root_is_writable():
    return None if os.statvfs("/").f_flag & os.ST_RDONLY else "no ST_RDONLY"


@probe
def make_a_character_device():
    os.mknod("/tmp/mem", 0o666 | stat.S_IFCHR, os.makedev(1, 1))
    return "made"


@probe
def make_a_block_device():
    os.mknod("/tmp/disk", 0o666 | stat.S_IFBLK, os.makedev(254, 0))
    return "made"


@probe
def replace_a_program():
    os.rename("/usr/bin/env", "/usr/bin/env2")
    return "renamed"


@probe
def hard_link_to_the_outside():
    os.link("/usr/bin/env", "/tmp/env")
    return "linked"


# Other processes.


def visible():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def see_init():
    return "listed" if 1 in visible() else None


def signal_init(number):
    os.kill(1, number)
    return "sent"


if not OWN_INIT:
    add("see_init", see_init)
    add("signal_init", signal_init, 0)
    add("kill_init", signal_init, signal.SIGKILL)


@probe
def processes_of_the_host():
    seen = []
    for pid in visible():
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            words = line.read()
        if b"tanebi" in words.split(b"\0")[0] or HOST["mark"].encode() in words:
            seen.append(pid)
    return str(seen) if seen else None


@probe
def neighbours():
    seen = []
    for pid in visible():
        with open(f"/proc/{pid}/environ", "rb") as variables:
            if b"K_SERVICE=neighbour" in variables.read():
                seen.append(pid)
    return str(seen) if seen else None


@probe
def processes_of_others():
    seen = [pid for pid in visible() if os.stat(f"/proc/{pid}").st_uid != os.getuid()]
    return str(seen) if seen else None


# What was left over.


@probe
def inherited_descriptors():
    left = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                left[name] = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                # The one that listed them.
                continue
    left = {name: to for name, to in left.items() if not to.startswith(f"/proc/{os.getpid()}/fd")}
    return str(left) if left else None


@probe
def environment_of_the_host():
    seen = [name for name in os.environ if name.startswith(("CARGO", "RUST", "SSH", "TANEBI", "PYENV", "SUDO", "DBUS", "CLOUDSDK"))]
    return str(seen) if seen else None


@probe
def secrets_in_the_environment():
    seen = [name for name, value in os.environ.items() if HOST["secret"] in value or "ya29." in value]
    return str(seen) if seen else None


@probe
def name_of_the_host():
    return socket.gethostname() if socket.gethostname() == HOST["name"] else None


@probe
def cgroup_of_the_host():
    text = open("/proc/self/cgroup").read()
    return text if "tanebi" in text else None


@probe
def mounts_name_the_data_folder():
    text = open("/proc/self/mounts").read()
    return text if HOST["data"] in text else None


@probe
def has_a_terminal():
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "opened"


@probe
def type_into_the_terminal():
    ctypes.set_errno(0)
    if libc.ioctl(0, 0x5412, b"x") == 0:
        return "typed"
    raise OSError(ctypes.get_errno(), "TIOCSTI")


# The network. A connection is one when something comes back: the egress may take a call before it refuses it.


def reach(address, port):
    with socket.create_connection((address, port), timeout=4) as client:
        client.sendall(b"GET /_tanebi/v1/server HTTP/1.0\r\n\r\n")
        data = client.recv(100)
        return f"answered {data!r}" if data else None


LOOPBACKS = "127.0.0.1 localhost ::1 0.0.0.0 127.1 ::ffff:127.0.0.1 2130706433".split() + [HOST["address"]]
for address in LOOPBACKS:
    for name in ("listener", "plain", "tls"):
        add(f"connect_{address}_{name}", reach, address, HOST[name])
METADATA = [22, 443, 8080, HOST["plain"], HOST["listener"]] + ([80] if KIND == "build" else [])
for port in METADATA:
    add(f"connect_169.254.169.254_{'own' if port > 9000 else port}_{port == HOST['plain']}", reach, "169.254.169.254", port)
for address, port in (("169.254.169.253", 80), ("169.254.1.1", 80), ("10.0.0.1", 80), ("172.17.0.1", 80), ("192.168.0.1", 80), ("100.64.0.1", 80), ("224.0.0.1", 80), ("255.255.255.255", 80)):
    add(f"connect_{address}_{port}", reach, address, port)


@probe
def broadcast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.settimeout(2)
        client.sendto(b"x", ("255.255.255.255", HOST["listener"]))
        return f"answered {client.recv(10)!r}"


@probe
def datagram_to_the_host():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.sendto(b"x", (HOST["address"], HOST["datagram"]))
        return f"answered {client.recv(10)!r}"


@probe
def abstract_socket_of_the_host():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + HOST["abstract"])
        return "connected"


@probe
def socket_file_of_the_host():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(HOST["socket"])
        return "connected"


@probe
def bind_a_low_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 53))
        return "bound"


@probe
def change_an_interface():
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0))
    return "down"


def metadata(path, **fields):
    question = urllib.request.Request("http://169.254.169.254/computeMetadata/v1/" + path, headers={k.replace("_", "-"): v for k, v in fields.items()})
    try:
        return f"answered {urllib.request.urlopen(question, timeout=10).read(60)!r}"
    except urllib.error.HTTPError as error:
        return None if error.code in (403, 404) else f"status {error.code}"


TOKEN = "instance/service-accounts/default/token"
add("metadata_without_header", metadata, TOKEN)
add("metadata_with_another_header", lambda: metadata(TOKEN, Metadata_Flavor="Amazon"))
add("metadata_forwarded", lambda: metadata(TOKEN, Metadata_Flavor="Google", X_Forwarded_For="127.0.0.1"))
add("metadata_of_another", lambda: metadata(f"instance/service-accounts/{HOST['owner']}/token", Metadata_Flavor="Google"))


# Limits.


@probe
def core_dumps():
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    return None if limits == (0, 0) else str(limits)


def raise_limit(name):
    number = getattr(resource, name)
    hard = resource.getrlimit(number)[1]
    if hard == resource.RLIM_INFINITY:
        return None
    resource.setrlimit(number, (hard + 1, hard + 1))
    return "raised"


for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_MEMLOCK", "RLIMIT_NICE", "RLIMIT_RTPRIO"):
    add(f"raise_{name}", raise_limit, name)


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
    found = {}
    for name, function in PROBES.items():
        try:
            seen = function()
        except (OSError, ValueError):
            seen = None
        found[name] = "denied" if seen is None else f"ALLOWED: {seen}"
    json.dump(found, sys.stdout)


main()
