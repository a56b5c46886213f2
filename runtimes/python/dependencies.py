"""Installs dependencies inside a build's sandbox: prepares folders, then runs commands one after the other.

Run as `python -I -S dependencies.py PLAN`, PLAN being JSON:
  copies: [{"from", "to"}]  trees to copy first; a `from` that is not there is passed over
  blocked: [path]           made as empty files, so that no folder of that name can be made
  commands: [[word, ...]]   each must succeed; the first that does not ends the script with its code
  compile: [path]           trees to compile afterwards; what does not compile there is left alone, as pip does
It decides nothing: which commands, and what their failure means, is the daemon's.
"""

import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    for copy in plan["copies"]:
        if os.path.isdir(copy["from"]):
            shutil.copytree(copy["from"], copy["to"], symlinks=True, dirs_exist_ok=True)
    for path in plan["blocked"]:
        if os.path.isdir(path):
            shutil.rmtree(path)
        with open(path, "w", encoding="utf-8"):
            pass
    for command in plan["commands"]:
        code = subprocess.call(command, stdin=subprocess.DEVNULL)
        if code != 0:
            return code if code > 0 else 128 - code
    for path in plan["compile"]:
        compile_tree(path)
    return 0


def compile_tree(path):
    """Every core compiles its share. Forked, not compileall's own workers: those need /dev/shm."""
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(".py"))
    cores = len(os.sched_getaffinity(0))
    children = []
    for core in range(1, cores):
        child = os.fork()
        if child == 0:
            # Whatever happens, the child ends here: what does not compile is left alone.
            try:
                compile_files(files[core::cores])
            finally:
                os._exit(0)
        children.append(child)
    compile_files(files[::cores])
    for child in children:
        os.waitpid(child, 0)


def compile_files(files):
    for file in files:
        compileall.compile_file(file, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


if __name__ == "__main__":
    sys.exit(main())
