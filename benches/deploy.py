#!/usr/bin/env python3
"""From the command to the first reply, for a change of code with warm caches.

  deploy.py [--rounds 20] [--language python|nodejs|go|java] [--gcloud]

Without --gcloud by `tanebi run deploy`. With it by the real gcloud; gcloud's own start-up (`gcloud version`) is measured
in the same rounds and taken off.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from common import LANGUAGES, ROOT, Tanebi, median, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=20)
parser.add_argument("--language", choices=LANGUAGES, default="python")
parser.add_argument("--gcloud", action="store_true")
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()

tanebi = Tanebi(profile=arguments.profile)
language = LANGUAGES[arguments.language]
example = ROOT / "examples" / arguments.language / "hello_http"
source = Path(tempfile.mkdtemp())
shutil.copytree(example, source, dirs_exist_ok=True)
code = (example / language.file).read_text()
if "Hello " not in code:
    raise SystemExit(f"{example / language.file} greets nobody")
address, port = tanebi.listen.split(":")


def reply():
    request = urllib.request.Request(f"http://{tanebi.listen}/", headers={"Host": tanebi.host("bench")})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).read().decode()


def deploy():
    if arguments.gcloud:
        tanebi.run("exec", "--", "gcloud", "run", "deploy", "bench", "--source", source, "--function", language.function, "--base-image", language.base_image,
                   "--region", "asia-northeast1", "--no-invoker-iam-check", "--quiet")
    else:
        tanebi.deploy("bench", source, "--function", language.function, "--no-invoker-iam-check", base_image=language.base_image)


try:
    deploy()
    total, beyond = [], []
    for n in range(arguments.rounds):
        (source / language.file).write_text(code.replace("Hello ", f"Hello {n} "))
        started = time.perf_counter()
        deploy()
        got = reply()
        total.append(time.perf_counter() - started)
        if got != f"Hello {n} World!":
            raise SystemExit(f"round {n} answered {got!r}")
        if arguments.gcloud:
            started = time.perf_counter()
            tanebi.run("exec", "--", "gcloud", "version")
            beyond.append(total[-1] - (time.perf_counter() - started))
    row = {"measure": "deploy", "language": arguments.language, "by": "gcloud" if arguments.gcloud else "tanebi", "profile": arguments.profile, "rounds": arguments.rounds,
           "total_s_p50": round(median(total), 3), "total_s_max": round(max(total), 3)}
    if beyond:
        row["beyond_gcloud_start_s_p50"] = round(median(beyond), 3)
    say(**row)
finally:
    tanebi.close()
    shutil.rmtree(source, ignore_errors=True)
