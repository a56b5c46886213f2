"""State that a clone keeps: each case sets something up while the template loads, yields, and looks at it inside a clone.

`GET /NAME` goes on with one case and answers `ok` or what is wrong. Every case changes what it has looked at, so that a clone which
shared it with another, or with its template, would be seen.
"""

import contextlib, ctypes, errno, fcntl, mmap, os, queue, select, signal, socket, struct, subprocess, sys, threading, time, traceback

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def reached(host, port, family=socket.AF_INET):
    client = socket.socket(family)
    client.settimeout(5)
    client.connect((host, port))
    return client


def talk(server, client):
    server.settimeout(5)
    peer, _ = server.accept()
    client.sendall(b"hello")
    assert peer.recv(5) == b"hello"
    peer.close(), client.close()


def is_waiting(fd, seconds=0):
    return bool(select.select([fd], [], [], seconds)[0])


# Listeners.


@case
def listener_v4():
    server = socket.create_server(("127.0.0.1", 7001))
    yield
    assert server.getsockname() == ("127.0.0.1", 7001)
    talk(server, reached("127.0.0.1", 7001))


@case
def listener_v4_any_port():
    server = socket.create_server(("", 0))
    port = server.getsockname()[1]
    yield
    assert server.getsockname() == ("0.0.0.0", port)
    talk(server, reached("127.0.0.1", port))


@case
def listener_v6():
    server = socket.create_server(("::1", 7002), family=socket.AF_INET6)
    yield
    assert server.getsockname()[:2] == ("::1", 7002)
    talk(server, reached("::1", 7002, socket.AF_INET6))


@case
def listener_v6_takes_v4():
    server = socket.create_server(("::", 7003), family=socket.AF_INET6, dualstack_ipv6=True)
    yield
    talk(server, reached("127.0.0.1", 7003))
    talk(server, reached("::1", 7003, socket.AF_INET6))


@case
def listener_v6_only_beside_v4():
    six = socket.create_server(("::", 7004), family=socket.AF_INET6)
    four = socket.create_server(("0.0.0.0", 7004))
    yield
    talk(four, reached("127.0.0.1", 7004))
    talk(six, reached("::1", 7004, socket.AF_INET6))


@case
def listener_v4_mapped():
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::ffff:127.0.0.1", 7005)), server.listen()
    yield
    assert server.getsockname()[0] == "::ffff:127.0.0.1"
    talk(server, reached("127.0.0.1", 7005))


@case
def listeners_that_share_a_port():
    servers = [socket.create_server(("127.0.0.1", 7006), reuse_port=True) for _ in range(3)]
    yield
    clients = [reached("127.0.0.1", 7006) for _ in range(50)]
    ready = select.select(servers, [], [], 5)[0]
    assert all(server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for server in servers) and len(ready) > 1, ready
    [client.close() for client in clients]


@case
def listener_that_does_not_block():
    server = socket.create_server(("127.0.0.1", 7007))
    server.setblocking(False)
    yield
    with contextlib.suppress(BlockingIOError):
        server.accept()
        raise AssertionError("accepted")
    assert fcntl.fcntl(server, fcntl.F_GETFD) == fcntl.FD_CLOEXEC


@case
def socket_that_is_not_connected():
    client = socket.socket()
    client.setblocking(False)
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    yield
    assert fcntl.fcntl(client, fcntl.F_GETFL) & os.O_NONBLOCK
    client.setblocking(True)
    client.connect(("127.0.0.1", 8080))
    client.close()
    datagram.sendto(b"x", ("127.0.0.1", 9))


@case
def unix_socket_that_is_not_connected():
    client = socket.socket(socket.AF_UNIX)
    yield
    server = socket.socket(socket.AF_UNIX)
    server.bind("\0later"), server.listen()
    client.connect("\0later")
    client.close(), server.close()


# Events.


@case
def eventfd_count():
    fd = os.eventfd(7)
    yield
    assert os.eventfd_read(fd) == 7
    os.eventfd_write(fd, 3)
    assert os.eventfd_read(fd) == 3


@case
def eventfd_large_count():
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(fd, (1 << 40) + 5)
    yield
    assert os.eventfd_read(fd) == (1 << 40) + 5


@case
def eventfd_semaphore():
    fd = os.eventfd(2, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
    yield
    assert [os.eventfd_read(fd), os.eventfd_read(fd)] == [1, 1]
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)
        raise AssertionError("a third")


@case
def eventfd_dup():
    one = os.eventfd(0)
    two, other = os.dup(one), os.eventfd(9)
    os.set_inheritable(two, True)
    yield
    os.eventfd_write(one, 5)
    assert os.eventfd_read(two) == 5 and os.eventfd_read(other) == 9
    assert os.get_inheritable(two) and not os.get_inheritable(one)


def timerfd(clock, flags=0):
    return libc.timerfd_create(clock, flags)


def timerfd_set(fd, first, interval, flags=0):
    parts = [int(interval), int(interval % 1 * 1e9), int(first), int(first % 1 * 1e9)]
    assert libc.timerfd_settime(fd, flags, struct.pack("4q", *parts), None) == 0


def timerfd_left(fd):
    now = ctypes.create_string_buffer(32)
    assert libc.timerfd_gettime(fd, now) == 0
    numbers = struct.unpack("4q", now.raw)
    return numbers[2] + numbers[3] / 1e9, numbers[0] + numbers[1] / 1e9


@case
def timerfd_once():
    fd = timerfd(1)
    timerfd_set(fd, 1000, 0)
    yield
    left, interval = timerfd_left(fd)
    assert 900 < left <= 1000 and interval == 0, (left, interval)
    timerfd_set(fd, 0.01, 0)
    assert struct.unpack("Q", os.read(fd, 8)) == (1,)


@case
def timerfd_again():
    fd = timerfd(1, os.O_NONBLOCK)
    timerfd_set(fd, 500, 77.5)
    yield
    left, interval = timerfd_left(fd)
    assert 400 < left <= 500 and interval == 77.5, (left, interval)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    timerfd_set(fd, 0, 0)


@case
def timerfd_not_set():
    fd = timerfd(0)
    yield
    assert timerfd_left(fd) == (0, 0)
    timerfd_set(fd, 9, 0)


@case
def signalfd():
    mask = ctypes.create_string_buffer(128)
    libc.sigemptyset(mask), libc.sigaddset(mask, int(signal.SIGUSR1)), libc.sigaddset(mask, int(signal.SIGRTMIN))
    fd = libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMIN])
    yield
    for number in (signal.SIGUSR1, signal.SIGRTMIN):
        signal.pthread_kill(threading.main_thread().ident, number)
        assert struct.unpack("I", os.read(fd, 128)[:4]) == (number,)
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 128)
        raise AssertionError("another")


@case
def interval_timer():
    # Of all three; the real one is set so that it does not run out here.
    signal.signal(signal.SIGVTALRM, signal.SIG_IGN), signal.signal(signal.SIGPROF, signal.SIG_IGN), signal.signal(signal.SIGALRM, signal.SIG_IGN)
    for which, value in ((signal.ITIMER_REAL, 600), (signal.ITIMER_VIRTUAL, 700), (signal.ITIMER_PROF, 800)):
        signal.setitimer(which, value, value + 1)
    yield
    for which, value in ((signal.ITIMER_REAL, 600), (signal.ITIMER_VIRTUAL, 700), (signal.ITIMER_PROF, 800)):
        left, interval = signal.getitimer(which)
        assert value - 60 < left <= value + 1 and interval == value + 1, (which, left, interval)
        signal.setitimer(which, 0)


@case
def epoll_members():
    poll = select.epoll()
    left, right = os.pipe()
    event, server = os.eventfd(1), socket.create_server(("127.0.0.1", 7010))
    for fd, events in ((left, select.EPOLLIN), (event, select.EPOLLIN | select.EPOLLET), (server.fileno(), select.EPOLLIN | select.EPOLLONESHOT)):
        poll.register(fd, events)
    yield
    assert poll.poll(1) == [(event, select.EPOLLIN)]
    # An edge is told once.
    assert poll.poll(0) == []
    os.write(right, b"x")
    assert poll.poll(1) == [(left, select.EPOLLIN)] == poll.poll(1)
    os.read(left, 1)
    first, second = reached("127.0.0.1", 7010), reached("127.0.0.1", 7010)
    assert poll.poll(1) == [(server.fileno(), select.EPOLLIN)] and poll.poll(0) == []
    poll.modify(server.fileno(), select.EPOLLIN)
    assert poll.poll(1) == [(server.fileno(), select.EPOLLIN)]
    talk(server, first), talk(server, second)


class EpollEvent(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


@case
def epoll_data():
    poll, event = libc.epoll_create1(0), os.eventfd(1)
    other = os.dup(event)
    assert libc.epoll_ctl(poll, 1, event, ctypes.byref(EpollEvent(select.EPOLLIN, 0xFEDC_BA98_7654_3210))) == 0
    assert libc.epoll_ctl(poll, 1, other, ctypes.byref(EpollEvent(select.EPOLLIN, 0x7777_0000_0000_1111))) == 0
    yield
    events = (EpollEvent * 4)()
    assert libc.epoll_wait(poll, events, 4, 1000) == 2
    assert {events[0].data, events[1].data} == {0xFEDC_BA98_7654_3210, 0x7777_0000_0000_1111}
    os.eventfd_read(event)
    assert libc.epoll_wait(poll, events, 4, 0) == 0
    assert not os.get_inheritable(event) and os.get_inheritable(poll)


@case
def epoll_in_epoll():
    outer, inner = select.epoll(), select.epoll()
    third = select.epoll()
    event = os.eventfd(0)
    inner.register(event, select.EPOLLIN), outer.register(inner, select.EPOLLIN), third.register(outer, select.EPOLLIN)
    yield
    assert third.poll(0) == []
    os.eventfd_write(event, 1)
    assert third.poll(1) == [(outer.fileno(), select.EPOLLIN)]
    assert outer.poll(1) == [(inner.fileno(), select.EPOLLIN)] and inner.poll(1) == [(event, select.EPOLLIN)]
    os.eventfd_read(event)
    assert third.poll(0) == []


# Pipes and pairs.


@case
def pipe_with_bytes():
    reader, writer = os.pipe()
    os.write(writer, b"first"), os.write(writer, b" second")
    yield
    assert os.read(reader, 100) == b"first second" and not is_waiting(reader)
    os.write(writer, b"third")
    assert os.read(reader, 100) == b"third"


@case
def pipe_that_is_full():
    reader, writer = os.pipe2(os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"0123456789abcdef" * 256)
    yield
    with contextlib.suppress(BlockingIOError):
        os.write(writer, b"x")
        raise AssertionError("room in a full pipe")
    text = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            text += os.read(reader, 65536)
    assert text == b"0123456789abcdef" * 4096, len(text)


@case
def pipe_flags():
    reader, writer = os.pipe()
    os.set_blocking(reader, False), os.set_inheritable(writer, True)
    yield
    assert not os.get_blocking(reader) and os.get_blocking(writer)
    assert not os.get_inheritable(reader) and os.get_inheritable(writer)
    with contextlib.suppress(BlockingIOError):
        os.read(reader, 1)
        raise AssertionError("read")


@case
def pipe_dups():
    reader, writer = os.pipe()
    more = [os.dup(writer), os.dup(writer), os.dup(reader)]
    yield
    os.write(more[0], b"a"), os.write(more[1], b"b"), os.write(writer, b"c")
    assert os.read(more[2], 10) == b"abc"
    [os.close(fd) for fd in [writer, *more[:2]]]
    assert os.read(reader, 1) == b""


@case
def pipe_whose_numbers_are_turned_around():
    reader, writer = os.pipe()
    copy = os.dup(writer)
    high = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(reader)
    # In the order of the numbers: writer, its copy, and last the reader.
    yield
    os.write(copy, b"by the copy"), os.write(writer, b"!")
    assert is_waiting(high, 1) and os.read(high, 100) == b"by the copy!"


@case
def pair_of_sockets():
    pairs = {kind: socket.socketpair(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)}
    pairs[socket.SOCK_STREAM][1].setblocking(False)
    copy = pairs[socket.SOCK_DGRAM][1].dup()
    yield
    for kind, (left, right) in pairs.items():
        assert left.type == right.type == kind
        left.send(b"ping")
        assert right.recv(10) == b"ping"
        right.send(b"pong")
        assert left.recv(10) == b"pong"
    assert not pairs[socket.SOCK_STREAM][1].getblocking() and pairs[socket.SOCK_STREAM][0].getblocking()
    copy.send(b"copy")
    assert pairs[socket.SOCK_DGRAM][0].recv(10) == b"copy"


@case
def half_a_pair():
    left, right = socket.socketpair()
    right.close()
    yield
    assert left.recv(1) == b""
    with contextlib.suppress(BrokenPipeError):
        left.send(b"x")
        raise AssertionError("sent")


# Files.


@case
def file_offset():
    one = os.open("/usr/bin/env", os.O_RDONLY)
    os.lseek(one, 100, os.SEEK_SET)
    two, own = os.dup(one), os.open("/usr/bin/env", os.O_RDONLY)
    content = open("/usr/bin/env", "rb").read()
    yield
    assert os.read(one, 10) == content[100:110] and os.read(two, 10) == content[110:120]
    assert os.read(own, 10) == content[:10]
    os.lseek(two, 500, os.SEEK_SET)
    assert os.read(one, 10) == content[500:510]


@case
def file_flags():
    plain, appends = os.open("/usr/bin/env", os.O_RDONLY | os.O_NONBLOCK), os.open("/usr/bin", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(plain, True)
    null = os.open("/dev/null", os.O_RDWR)
    path = os.open("/usr/bin", os.O_PATH)
    yield
    assert os.get_inheritable(plain) and not os.get_inheritable(appends) and not os.get_blocking(plain)
    assert "env" in os.listdir(appends) and os.stat("env", dir_fd=path).st_size > 0
    assert os.write(null, b"x") == 1 and os.read(null, 1) == b""


@case
def output_by_name():
    yield
    with open("/dev/stdout", "w") as out, open("/dev/stderr", "w") as err:
        print("by name", file=out), print("by name", file=err)


# Memory.


@case
def shared_memory():
    memory = mmap.mmap(-1, 3 << 20)
    memory[:5], memory[-5:] = b"begin", b"ended"
    yield
    assert memory[:5] == b"begin" and memory[-5:] == b"ended" and memory[1 << 20] == 0
    memory[:5] = b"OTHER"
    # Shared with a child still.
    if (child := os.fork()) == 0:
        memory[:5] = b"child"
        os._exit(0)
    os.waitpid(child, 0)
    assert memory[:5] == b"child"


def rights_at(address):
    for line in open("/proc/self/maps"):
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line.split()[1]
    return None


@case
def shared_memory_rights():
    readable, hidden = libc.mmap(None, 8192, 3, 0x21, -1, 0), libc.mmap(None, 8192, 3, 0x21, -1, 0)
    ctypes.memmove(readable, b"readable", 8), ctypes.memmove(hidden, b"hidden", 6)
    assert libc.mprotect(ctypes.c_void_p(readable), 8192, 1) == 0 and libc.mprotect(ctypes.c_void_p(hidden), 8192, 0) == 0
    yield
    assert rights_at(readable) == "r--s", rights_at(readable)
    assert rights_at(hidden) == "---s", rights_at(hidden)
    assert libc.mprotect(ctypes.c_void_p(hidden), 8192, 3) == 0
    assert ctypes.string_at(readable, 8) == b"readable" and ctypes.string_at(hidden, 6) == b"hidden"


@case
def memory_that_is_not_forked():
    memory = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:4] = b"kept"
    memory.madvise(mmap.MADV_DONTFORK)
    yield
    assert memory[:4] == b"kept"
    memory[:4] = b"mine"


@case
def memory_that_a_fork_wipes():
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:4] = b"seed"
    memory.madvise(18)
    yield
    # So that generators notice.
    assert memory[:4] == bytes(4)


@case
def private_mapping_of_a_file():
    file = os.open("/usr/bin/env", os.O_RDONLY)
    memory = mmap.mmap(file, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    shared = mmap.mmap(file, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    memory[:4] = b"mine"
    yield
    assert memory[:4] == b"mine" and shared[:4] == b"\x7fELF"
    memory[:4] = b"more"


# Threads.


@case
def locks():
    lock, recursive, condition = threading.Lock(), threading.RLock(), threading.Condition()
    lock.acquire(), recursive.acquire(), recursive.acquire()
    seen = []

    def waits():
        with lock:
            seen.append("lock")
        with recursive:
            seen.append("recursive")
        with condition:
            condition.wait_for(lambda: len(seen) == 3)
            seen.append("condition")

    thread = threading.Thread(target=waits, daemon=True)
    thread.start()
    time.sleep(0.05)
    yield
    assert seen == [] and lock.locked()
    lock.release()
    recursive.release(), recursive.release()
    while len(seen) < 2:
        time.sleep(0.001)
    with condition:
        seen.append("told")
        condition.notify()
    thread.join(10)
    assert seen == ["lock", "recursive", "told", "condition"], seen


@case
def queues():
    jobs, done = queue.Queue(), queue.Queue()
    threads = [threading.Thread(target=lambda: [done.put(jobs.get() * 2) for _ in range(10)], daemon=True) for _ in range(4)]
    [thread.start() for thread in threads]
    jobs.put(0)
    assert done.get() == 0
    yield
    [jobs.put(number) for number in range(1, 40)]
    assert sorted(done.get(timeout=10) for _ in range(39)) == [number * 2 for number in range(1, 40)]
    [thread.join(10) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)


@case
def thread_identity():
    local, turn, told = threading.local(), [threading.Event() for _ in range(3)], queue.Queue()

    def lives(number):
        local.number = number
        libc.prctl(15, f"worker-{number}".encode(), 0, 0, 0)
        told.put((number, threading.get_native_id()))
        turn[number].wait()
        name = ctypes.create_string_buffer(16)
        libc.prctl(16, name, 0, 0, 0)
        told.put((number, threading.get_native_id(), local.number, name.value.decode()))

    threads = [threading.Thread(target=lives, args=(number,), daemon=True) for number in range(3)]
    [thread.start() for thread in threads]
    ids = dict(told.get() for _ in range(3))
    yield
    assert set(os.listdir("/proc/self/task")) >= {str(number) for number in ids.values()}
    for number in range(3):
        turn[number].set()
        assert told.get(timeout=10) == (number, ids[number], number, f"worker-{number}")
        assert threads[number].native_id == ids[number]
    assert threading.get_native_id() == os.getpid() == 1


@case
def thread_name_that_is_no_text():
    over = threading.Event()
    threading.Thread(target=lambda: (libc.prctl(15, b"\xff\xfe(x) \n", 0, 0, 0), over.wait()), daemon=True).start()
    time.sleep(0.02)
    yield
    names = {open(f"/proc/self/task/{task}/comm", "rb").read() for task in os.listdir("/proc/self/task")}
    assert b"\xff\xfe(x) \n\n" in names, names
    over.set()


def polls(fd, limit):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll(limit)


@case
def threads_that_wait():
    told = queue.Queue()
    reader, writer = os.pipe()
    polled, wakes = os.pipe()
    server = socket.create_server(("127.0.0.1", 7020))
    epoll = select.epoll()
    left, right = socket.socketpair()
    epoll.register(left, select.EPOLLIN)
    event = os.eventfd(0)
    begun = time.monotonic()
    waits = {
        "read": lambda: os.read(reader, 10),
        "poll": lambda: polls(polled, None),
        "poll_limit": lambda: polls(polled, 100000),
        "accept": lambda: server.accept()[0].close(),
        "epoll": lambda: epoll.poll(),
        "select": lambda: select.select([polled], [], [], 1000)[0],
        "eventfd": lambda: os.read(event, 8),
        "sleep": lambda: time.sleep(2) or time.monotonic() - begun,
        "lock_limit": lambda: threading.Event().wait(2) or time.monotonic() - begun,
    }
    for name, wait in waits.items():
        threading.Thread(target=lambda name=name, wait=wait: told.put((name, wait())), daemon=True).start()
    time.sleep(0.1)
    yield
    # The two that wait for a time may be over in a clone that is looked at late.
    assert {name for name, _ in told.queue} <= {"sleep", "lock_limit"}, told.queue
    os.write(writer, b"bytes"), os.write(wakes, b"x"), right.send(b"x"), os.eventfd_write(event, 4)
    reached("127.0.0.1", 7020).close()
    seen = dict(told.get(timeout=20) for _ in waits)
    assert seen["read"] == b"bytes" and seen["eventfd"] == struct.pack("Q", 4) and seen["epoll"] == [(left.fileno(), 1)]
    assert 1.9 < seen["sleep"] < 60 and 1.9 < seen["lock_limit"] < 60, seen


# The process.


@case
def signal_handlers():
    seen = []
    signal.signal(signal.SIGUSR2, lambda *_: seen.append("usr2"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    yield
    os.kill(os.getpid(), signal.SIGUSR2), os.kill(os.getpid(), signal.SIGHUP)
    assert seen == ["usr2"] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert mask - {signal.SIGUSR1, signal.SIGRTMIN} == {signal.SIGWINCH}, mask


@case
def signal_mask_of_a_thread():
    turn, told = threading.Event(), queue.Queue()

    def lives():
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTERM, signal.SIGCHLD])
        turn.wait()
        told.put(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    threading.Thread(target=lives, daemon=True).start()
    time.sleep(0.02)
    yield
    turn.set()
    assert told.get(timeout=10) == {signal.SIGTERM, signal.SIGCHLD}


@case
def alternate_stack():
    stack = ctypes.create_string_buffer(1 << 16)
    at = ctypes.addressof(stack)
    assert libc.sigaltstack(struct.pack("QiiQ", at, 0, 0, 1 << 16), None) == 0
    yield
    now = ctypes.create_string_buffer(24)
    libc.sigaltstack(None, now)
    assert struct.unpack("QiiQ", now.raw) == (at, 0, 0, 1 << 16)


@case
def folder_and_environment():
    os.environ["SET_LATER"] = "yes"
    os.chdir("/usr/bin")
    os.umask(0o027)
    yield
    assert os.getcwd() == "/usr/bin" and os.path.exists("env") and os.umask(0o027) == 0o027
    assert os.environ["SET_LATER"] == "yes" and os.environ["PATH"]


@case
def memory_that_nobody_else_may_look_into():
    assert libc.prctl(4, 0, 0, 0, 0) == 0
    file = os.open("/usr/bin/env", os.O_RDONLY)
    yield
    assert libc.prctl(3, 0, 0, 0, 0) == 0 and len(os.read(file, 4)) == 4
    assert os.getresuid() == (1000, 1000, 1000)
    libc.prctl(4, 1, 0, 0, 0)


@case
def children():
    yield
    assert subprocess.run(["/bin/echo", "x"], capture_output=True).stdout == b"x\n"
    assert subprocess.run(["/bin/sh", "-c", "kill -9 $$"]).returncode == -9
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, str(os.getppid()).encode())
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 and os.read(reader, 10) == b"1"
    # Descriptors that are not for children are not theirs: only what was made so is.
    listed = subprocess.run(["/bin/sh", "-c", "ls /proc/$$/fd; true"], capture_output=True, close_fds=False).stdout.split()
    links = {int(fd) for fd in listed}
    mine = {int(fd) for fd in os.listdir("/proc/self/fd")}
    for fd in mine & links - {0, 1, 2}:
        with contextlib.suppress(OSError):
            assert os.get_inheritable(fd), fd


@case
def numbers_are_free():
    yield
    if len(CASES) == len(sys.argv[1].split(",")):
        return  # Others have opened more since.
    # Nothing of what made the clone is left open.
    low = os.open("/dev/null", os.O_RDONLY)
    os.close(low)
    known = {int(fd) for fd in os.listdir("/proc/self/fd")}
    extra = known - OPEN - {low}
    assert not [fd for fd in extra if os.path.exists(f"/proc/self/fd/{fd}") and fd not in CONNECTION], extra


OPEN, CONNECTION = set(), set()


def main():
    wanted = sys.argv[1].split(",") if len(sys.argv) > 1 else list(CASES)
    running = {}
    server = socket.create_server(("", 8080), backlog=64)
    for name in wanted:
        running[name] = CASES[name]()
        next(running[name])
    OPEN.update(int(fd) for fd in os.listdir("/proc/self/fd"))
    sys.stdout.write("ready\n"), sys.stdout.flush()
    while True:
        client, _ = server.accept()
        CONNECTION.clear(), CONNECTION.add(client.fileno())
        with client, client.makefile("r") as lines:
            first = lines.readline().split()
            if len(first) < 2:
                continue
            while lines.readline().strip():
                pass
            name, answer = first[1][1:], "ok"
            if name == "all":
                names = [name for name in running]
            else:
                names = [name]
            answers = []
            for name in names:
                try:
                    next(running[name], None)
                    answers.append(f"{name} ok")
                except BaseException as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    answers.append(f"{name} {type(error).__name__} {error} at line {where.lineno}: {where.line}")
            client.sendall(("HTTP/1.0 200 OK\r\n\r\n" + "\n".join(answers)).encode())


main()
