"""Starts the functions framework in one process that can be cloned.

    python launch.py [the framework's own script] [its arguments]

The framework's script runs unchanged; so do its command line, its create_app and its gunicorn settings. One thing is replaced, after
the function is loaded: gunicorn's arbiter does not fork its worker, it becomes it. The arbiter's lines in the log stay, in their order.
It ends with 0 at SIGTERM as the arbiter does, but has no second worker to start: where the arbiter would replace a worker, it exits.
Whatever cannot be served so (WORKERS, the debug server, an unknown gunicorn) is served the plain way, after the line `refused WHY`.

Uniqueness. The engine queues a signal at the main thread of a clone. Connections are accepted by the main thread alone, and Python
runs the handler there before the next bytecode (a poll that is interrupted runs it before it polls again), so no request meets an old
generator. Threads that the function itself started while loading may run earlier. Renewed: random, numpy.random, OpenSSL, tempfile
and uuid1. os.urandom and what reads it (secrets, uuid4, SystemRandom) needs nothing. Generators of other libraries are not known here.

With TANEBI_TEMPLATE=runtime the process stops before the function is loaded, with the framework imported; from there on a clone is the
plain framework, gunicorn's arbiter and its worker.

Seeds. Google runs load-time code once an instance, so an explicit seed gives every instance the same sequence, and an implicit one
gives each its own. Clones keep to that: generators seeded from the system's entropy are renewed, those given a seed or a state are
left alone. The global `random` is always renewed, since gunicorn itself reseeds it in a worker, whatever the function had asked for.
A seed that the function worked out for itself (from the time, from os.urandom) is a value like any other: the clones share it."""
import _thread
import gc
import importlib.util
import os
import random
import signal
import sys
import time
import types
from email.utils import formatdate

PIPES, SAID, SIGNAL = (3, 4, 5, 6), 6, signal.SIGRTMIN + 5
GUNICORNS = range(19, 28)
WORKERS = {"gunicorn.workers.sync.SyncWorker", "gunicorn.workers.gthread.ThreadWorker", "uvicorn_worker._workers.UvicornWorker"}
# What a request passes before it is routed; a tracer that replaced one of them would see the requests that warm the template.
FLASK = ("__call__", "wsgi_app", "full_dispatch_request", "dispatch_request", "preprocess_request", "process_response",
         "finalize_request", "handle_user_exception", "handle_http_exception", "handle_exception", "do_teardown_request")
HOOKS = ("wsgi_app", "session_interface", "request_class", "response_class", "before_request_funcs", "before_first_request_funcs",
         "after_request_funcs", "teardown_request_funcs", "teardown_appcontext_funcs", "url_value_preprocessors", "error_handler_spec")


class Seeds:
    """Which generators were seeded by nobody; watches until the function is loaded, renews in each clone."""

    def __init__(self):
        self.explicit, self.states, self.entropy, self.legacy, self.unknown = {}, set(), set(), False, None
        self.randoms, self.sequences, self.bits, self.legacies, self.undo = [random._inst], [], [], [], []
        self.watch_random()
        sys.meta_path.insert(0, self)

    def replace(self, owner, name, wrapper):
        plain = getattr(owner, name)
        setattr(owner, name, wrapper)
        self.undo.append(lambda: getattr(owner, name) is wrapper and setattr(owner, name, plain))
        return plain

    def watch_random(self):
        def seed(generator, a=None, version=2):
            plain_seed(generator, a, version)
            self.explicit[id(generator)] = a is not None

        def getstate(generator):
            state = plain_getstate(generator)
            if not self.explicit.get(id(generator)):
                self.states.add(state[1])
            return state

        def setstate(generator, state):
            plain_setstate(generator, state)
            self.explicit[id(generator)] = tuple(state[1]) not in self.states

        plain_seed = self.replace(random.Random, "seed", seed)
        plain_getstate = self.replace(random.Random, "getstate", getstate)
        plain_setstate = self.replace(random.Random, "setstate", setstate)

    def find_spec(self, name, path=None, target=None):
        """An import hook for the one moment after numpy.random has loaded itself."""
        if name != "numpy.random":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                del spec.loader.exec_module
                load(module)
                try:
                    self.watch_numpy(module)
                except Exception as error:
                    self.unknown = "numpy.random: %r" % error

            spec.loader.exec_module = exec_module
        return spec

    def watch_numpy(self, numpy_random):
        def randbits(k):
            bits = plain_randbits(k)
            self.entropy.add(bits)
            return bits

        def seed(seed=None):
            plain_seed(seed)
            self.legacy = seed is None

        sequence = type(numpy_random.mtrand._rand._bit_generator._seed_seq)
        self.entropy.add(numpy_random.mtrand._rand._bit_generator._seed_seq.entropy)
        plain_randbits = self.replace(sys.modules[sequence.__module__], "randbits", randbits)
        plain_seed = self.replace(numpy_random, "seed", seed)

    def gather(self):
        """Ends the watch. What is found is kept alive: most of numpy's generators take no weak reference."""
        for undo in self.undo:
            undo()
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        numpy_random = sys.modules.get("numpy.random")
        objects = gc.get_objects()
        for o in objects:
            if issubclass(type(o), random.Random) and not issubclass(type(o), random.SystemRandom) and not self.explicit.get(id(o)):
                self.randoms.append(o)
        if numpy_random:
            seeded = numpy_random.mtrand._rand._bit_generator
            self.sequences = [o for o in objects if issubclass(type(o), numpy_random.SeedSequence)
                              and isinstance(o.entropy, int) and o.entropy in self.entropy]
            known = set(map(id, self.sequences))
            self.bits = [o for o in objects if issubclass(type(o), numpy_random.BitGenerator)
                         and (id(o._seed_seq) in known or o is seeded and self.legacy)]
            known = set(map(id, self.bits))
            self.legacies = [o for o in objects if issubclass(type(o), numpy_random.RandomState) and id(o._bit_generator) in known]
        self.explicit = self.states = self.entropy = None

    def renew(self):
        if "ssl" in sys.modules:
            # Reseeds OpenSSL's primary generator from the system; the others follow it, by its reseed counter (and by the new pid).
            sys.modules["ssl"].RAND_add(os.urandom(32), 32.0)
        for generator in self.randoms:
            random.Random.seed(generator)
        for s in self.sequences:
            # Once more from the system's entropy, in place: whoever spawns from it later gets other children.
            type(s).__init__(s, spawn_key=s.spawn_key, pool_size=s.pool_size, n_children_spawned=s.n_children_spawned)
        for bits in self.bits:
            bits.state = type(bits)(bits._seed_seq).state
        for generator in self.legacies:
            # Its spare normal deviate is not in the bit generator.
            generator.set_state(dict(generator.get_state(legacy=False), has_gauss=0, gauss=0.0))
        if "tempfile" in sys.modules:
            sys.modules["tempfile"]._name_sequence = None
        uuid = sys.modules.get("uuid")
        if uuid:
            # libuuid keeps node and clock in C, out of reach: Python's own way, with a random node, instead of it.
            getattr(uuid, "_load_system_functions", int)()
            uuid._generate_time_safe, uuid._node, uuid._last_timestamp = None, uuid._random_getnode(), None


class Heartbeat:
    """Stands for the worker's file that the arbiter looks at. Counts its own seconds, so a frozen template does not age."""
    seconds = 0

    def __init__(self, cfg):
        pass

    def notify(self):
        self.seconds = 0

    def fileno(self):
        return SAID

    def close(self):
        pass

    def watch(self, timeout, log):
        while self.seconds <= timeout:
            time.sleep(1)
            self.seconds += 1
        log.critical("WORKER TIMEOUT (pid:%s)", os.getpid())
        os._exit(1)  # the first process of a pid namespace cannot kill itself


class Forks:
    """What was registered to be done around forks: done once where gunicorn forks its worker, since this process becomes it."""

    def __init__(self):
        self.before, self.after, self.plain = [], [], os.register_at_fork
        os.register_at_fork = self.register

    def register(self, **hooks):
        self.plain(**hooks)  # for the function's own children
        self.before[:0] = filter(None, [hooks.get("before")])
        self.after += filter(None, [hooks.get("after_in_child")])

    def done(self):
        os.register_at_fork = self.plain
        for hook in self.before + self.after:
            try:
                hook()
            except BaseException:  # which Python tells of and passes over
                sys.excepthook(*sys.exc_info())
        return 0


def single(plain, app, seeds, forks):
    """gunicorn's arbiter, which is its own worker."""
    module = sys.modules[plain.__module__]

    class Single(plain):
        worker = server = None
        leaving = False

        def run(self):
            kinds = {"%s.%s" % (c.__module__, c.__qualname__): c for c in self.worker_class.__mro__}
            if sys.modules["gunicorn"].version_info[0] not in GUNICORNS or "fork" not in plain.spawn_worker.__code__.co_names:
                return self.refuse("gunicorn %s" % sys.modules["gunicorn"].__version__)
            if self.cfg.workers != 1:
                return self.refuse("%d workers" % self.cfg.workers)
            if not WORKERS & set(kinds):
                return self.refuse("worker %s" % self.cfg.worker_class_str)
            if seeds.unknown:
                return self.refuse(seeds.unknown)
            try:
                seeds.gather()
                seeds.renew()
            except Exception as error:
                return self.refuse("reseeding: %r" % error)
            module.os = types.SimpleNamespace(**dict(vars(os), fork=forks.done))
            sys.modules["gunicorn.workers.base"].WorkerTmp = Heartbeat
            self.worker_class = self.alone(self.worker_class)
            uvicorn = kinds.get("uvicorn_worker._workers.UvicornWorker")
            if uvicorn:
                owner = sys.modules[uvicorn.__module__]
                owner.Server = self.leaving_server(owner.Server)
            self.theirs = signal.signal(SIGNAL, self.wake)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})
            for stream in (sys.stdout, sys.stderr):
                getattr(stream, "flush", int)()  # or every clone would write what was left in the buffer
            quiet = not self.cfg.accesslog and self.cfg.loglevel.lower() != "debug"
            say("signal %d" % SIGNAL, *["warm " + path for path in ("/favicon.ico", "/robots.txt") if quiet and unseen(app, path)])
            gc.collect()
            gc.freeze()  # a collection in a clone then writes to fewer of the shared pages
            self.start()
            try:
                self.spawn_worker()
            except SystemExit as end:
                self.LISTENERS = []
                if end.code == self.WORKER_BOOT_ERROR:
                    self.halt(reason="Worker failed to boot.", exit_status=end.code)
                if end.code:
                    raise
                self.halt()

        def refuse(self, why):
            refuse(why)
            return super().run()

        def init_signals(self):
            for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(sig, lambda *_: sys.exit(0))  # until the worker sets its own

        def wake(self, *_):
            seeds.renew()
            if self.theirs is not None and self.theirs != signal.SIG_DFL:
                signal.signal(SIGNAL, self.theirs)
            if self.worker:
                self.worker.pid = os.getpid()
            headers = self.server and self.server.server_state.default_headers
            if headers and headers[0][0] == b"date":  # uvicorn's is up to a second old: here, as old as the template
                headers[0] = (b"date", formatdate(time.time(), usegmt=True).encode())

        def leave(self, sig):
            """What the arbiter does at a signal: it waits for its worker no longer than this."""
            if not self.leaving:
                self.leaving = True
                self.log.info("Handling signal: %s", self.SIG_NAMES[sig])
                # Not threading's: the main thread may hold its lock now.
                _thread.start_new_thread(lambda: (time.sleep(self.cfg.graceful_timeout), os._exit(0)), ())

        def alone(arbiter, kind):
            def __init__(self, *args, **kwargs):
                kind.__init__(self, *args, **kwargs)
                arbiter.worker = self

            def init_signals(self):
                kind.init_signals(self)
                if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                    for sig in (signal.SIGTERM, signal.SIGINT):
                        signal.signal(sig, lambda *_: sys.exit(0))  # uvicorn raises them again when it has finished
                # gthread runs the function in other threads, its own loop cannot be held up
                if arbiter.timeout and not hasattr(self, "tpool"):
                    _thread.start_new_thread(self.tmp.watch, (arbiter.timeout, arbiter.log))

            def handle_exit(self, sig, frame):
                arbiter.leave(sig)
                kind.handle_exit(self, sig, frame)

            def handle_quit(self, sig, frame):
                arbiter.leave(sig)
                kind.handle_quit(self, sig, frame)

            return type(kind.__name__, (kind,), dict(
                __init__=__init__, init_signals=init_signals, handle_exit=handle_exit, handle_quit=handle_quit,
                is_parent_alive=lambda self: True))  # a clone has another parent

        def leaving_server(arbiter, kind):
            def __init__(self, *args, **kwargs):
                kind.__init__(self, *args, **kwargs)
                arbiter.server = self

            def handle_exit(self, sig, frame):
                arbiter.leave(sig)
                kind.handle_exit(self, sig, frame)

            return type(kind.__name__, (kind,), dict(__init__=__init__, handle_exit=handle_exit))

    return Single


def unseen(app, path):
    """Whether `GET path` is answered without any code of the function's."""
    def library(f, *names):
        return (getattr(f, "__module__", None) or type(f).__module__).split(".")[0] in names

    def leaves(value):
        if isinstance(value, dict):
            value = list(value.values())
        if not isinstance(value, (list, tuple)):
            return [value]
        return [leaf for part in value for leaf in leaves(part)]

    if library(type(app), "starlette"):
        from starlette.routing import Match
        scope = {"type": "http", "path": path, "method": "GET", "root_path": "", "headers": []}
        full = [route.endpoint for route in app.routes if route.matches(scope)[0] == Match.FULL]
        return library(type(app).__call__, "starlette") and (not full or full[0].__name__ == "_handle_not_found")
    import flask
    import werkzeug.exceptions
    if type(app) is not flask.Flask or any(getattr(s, "receivers", None) for s in vars(flask.signals).values()):
        return False
    if any(not library(f, "flask", "functions_framework") for name in HOOKS for f in leaves(getattr(app, name, ()))):
        return False
    if any(not isinstance(getattr(flask.Flask, n), types.FunctionType) or n in vars(app) and n != "wsgi_app" for n in FLASK):
        return False
    try:
        return app.url_map.bind("localhost").match(path, method="GET")[0] == "error"
    except werkzeug.exceptions.HTTPException:
        return True  # the route takes POST only


def say(*lines):
    os.write(SAID, "".join(line.replace("\n", " ")[:500] + "\n" for line in lines).encode())


def refuse(why):
    say("refused " + why)
    for fd in PIPES:
        os.close(fd)


def hide(error):
    """Takes this file's frames out of a traceback, which is then the plain framework's."""
    frames, frame = [], error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename != __file__:
            frames.append(frame)
        frame = frame.tb_next
    for frame, following in zip(frames, frames[1:] + [None]):
        frame.tb_next = following
    error.__traceback__ = frames[0] if frames else None
    cause = error.__cause__ or error.__context__
    if cause:
        hide(cause)


def stop(seeds):
    """Imports what every function needs, then waits to be a clone."""
    for name in ("functions_framework._cli", "functions_framework._http.gunicorn", "gunicorn.app.base", "gunicorn.glogging",
                 "gunicorn.workers.gthread", "concurrent.futures.thread", "flask.json", "werkzeug.serving"):
        importlib.import_module(name)

    seeds.gather()
    seeds.renew()
    is_clone = False

    def wake(*_):
        nonlocal is_clone
        is_clone = True
        seeds.renew()

    theirs = signal.signal(SIGNAL, wake)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})
    gc.collect()
    gc.freeze()
    say("signal %d" % SIGNAL, "ready")
    while not is_clone:
        time.sleep(0.01)  # and not signal.pause, which a signal that came just before it does not end
    gc.unfreeze()
    signal.signal(SIGNAL, theirs)


def main():
    script = os.path.join(os.path.dirname(sys.executable), "functions-framework")
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        script = arguments.pop(0)
    level = os.environ.pop("TANEBI_TEMPLATE", None)
    if level:
        for fd in PIPES:
            os.set_inheritable(fd, False)
        seeds = Seeds()
    if level == "runtime":
        try:
            stop(seeds)
        except Exception as error:
            refuse("its framework could not be stopped: %r" % error)
            os.execv(sys.executable, [sys.executable, script] + arguments)
    elif level:
        forks = Forks()
        try:
            from functions_framework import _cli
            plain = _cli.create_server
        except Exception as error:
            refuse("functions framework: %r" % error)
            os.execv(sys.executable, [sys.executable, script] + arguments)

        def create_server(app, debug, *args, **options):
            server = plain(app, debug, *args, **options)
            if server.server_class.__name__ in ("GunicornApplication", "UvicornApplication"):
                base = sys.modules["gunicorn.app.base"]
                base.Arbiter = single(base.Arbiter, app, seeds, forks)
            else:
                refuse("server %s" % server.server_class.__name__)
            return server

        _cli.create_server = create_server

    # As if the script had been started itself.
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = script
    sys.argv = [script] + arguments
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        sys.path[0] = os.path.dirname(os.path.abspath(script))
    try:
        with open(script, encoding="utf-8") as text:
            code = compile(text.read(), script, "exec")
        exec(code, vars(module))
    except Exception as error:
        hide(error)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


if __name__ == "__main__":
    main()
