"""The installed gcloud, loaded once: each line of standard input is a command line, run in a child of its own as if it had been
started for it. What it wrote and its exit code come back as one line of JSON. Saves the seconds that gcloud takes to load, each time.
"""

import json
import os
import runpy
import shlex
import sys

ROOT = sys.argv[1]
sys.path[:0] = [os.path.join(ROOT, "lib")]
gcloud = runpy.run_path(os.path.join(ROOT, "lib", "gcloud.py"), run_name="loaded")
gcloud["reorder_sys_path"](sys.path)

import googlecloudsdk.gcloud_main  # noqa: E402
from googlecloudsdk.api_lib.run import global_methods  # noqa: E402, F401
from googlecloudsdk.command_lib.run import serverless_operations  # noqa: E402, F401


def run(words):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(read)
        sys.argv = [os.path.join(ROOT, "lib", "gcloud.py"), *words]
        code = 1
        try:
            googlecloudsdk.gcloud_main.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "output": output.decode("utf-8", "replace")}


print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(run(shlex.split(line))), flush=True)
