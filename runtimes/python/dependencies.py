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
        if os.path.isdir(path):
            compileall.compile_dir(
                path,
                maxlevels=100,
                quiet=2,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
