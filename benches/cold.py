#!/usr/bin/env python3
"""The first build on a host that has nothing, against the package manager alone doing the same.

  cold.py [--rounds 5] [--language python|nodejs|go|java]

Both start from empty caches and download from the registry, in turns. The package manager alone is what a person types:
its tools that tanebi fetches once for a host (uv, Maven, the functions framework) are fetched by both. Of tanebi the whole
command is measured, `tanebi run deploy` until the revision serves: its instance's start is in it, and not in the other.
Nothing is removed before the last round: ext4 without a journal looks at every inode that was freed in the last minutes
before it gives one away, so whoever came after a removal would pay for it.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

from common import LANGUAGES, ROOT, Tanebi, median, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--language", choices=LANGUAGES)
parser.add_argument("--profile", default="release")
arguments = parser.parse_args()



def tool(language, name):
    """The version that tanebi fetches."""
    return tomllib.loads((ROOT / "runtimes" / language / "catalogue.toml").read_text())["tools"][name]["version"]


MAVEN, INVOKER, UV = tool("java", "maven"), tool("java", "invoker"), tool("python", "uv")
CENTRAL = "https://repo.maven.apache.org/maven2"
PYTHON = next(Path(os.environ.get("HOME", "/root")).glob(".pyenv/versions/3.12.*/bin/python3.12"), Path("python3.12"))
ALONE = {
    "python": f"""
        {PYTHON} -m pip install --quiet --no-cache-dir --disable-pip-version-check --target tools uv=={UV}
        tools/bin/uv --cache-dir cache venv --quiet --python {PYTHON} environment
        tools/bin/uv --cache-dir cache pip install --quiet --python environment/bin/python -r source/requirements.txt
        environment/bin/python -m compileall -q --invalidation-mode unchecked-hash environment/lib source""",
    "nodejs": """
        cd source
        NODE_ENV=production npm ci --quiet --no-fund --no-audit --cache ../cache
        node --check index.js""",
    "go": """
        cd source
        mkdir -p functions.local/app
        sed 's,example.com/function,example.com/hello_http,' ROOT/runtimes/go/main_declarative.go > functions.local/app/main.go
        sed -i "s,example.com/hello_http,$(sed -n 's/^module //p' go.mod)," functions.local/app/main.go
        export GOMODCACHE=$PWD/../mod GOCACHE=$PWD/../cache GOFLAGS='-modcacherw -buildvcs=false'
        go mod tidy
        go build -o ../main ./functions.local/app""".replace("ROOT", str(ROOT)),
    "java": f"""
        curl -sSfo maven.zip {CENTRAL}/org/apache/maven/apache-maven/{MAVEN}/apache-maven-{MAVEN}-bin.zip
        python3 -m zipfile -e maven.zip .
        curl -sSfo invoker.jar {CENTRAL}/com/google/cloud/functions/invoker/java-function-invoker/{INVOKER}/java-function-invoker-{INVOKER}.jar
        cd source
        sh ../apache-maven-{MAVEN}/bin/mvn -B -q -Dmaven.repo.local=$PWD/../m2 -DskipTests clean package \
            dependency:copy-dependencies -Dmdep.prependGroupId=true -DincludeScope=runtime""",
}

#: What would give the package manager alone other work than a build has: a folder of wheels is no download.
FOREIGN = {"GOFLAGS", "PYTHONDONTWRITEBYTECODE", "PIP_FIND_LINKS"}


def alone(language, folder):
    folder.mkdir()
    shutil.copytree(ROOT / "examples" / language / "hello_http", folder / "source")
    started = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    subprocess.run(["sh", "-ec", ALONE[language]], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def built(language, folder):
    folder.mkdir(parents=True)
    tanebi = Tanebi(data=folder, profile=arguments.profile)
    try:
        known = LANGUAGES[language]
        source = ROOT / "examples" / language / "hello_http"
        started = time.perf_counter()
        tanebi.deploy("cold", source, "--function", known.function, "--no-invoker-iam-check", base_image=known.base_image)
        return time.perf_counter() - started
    finally:
        tanebi.stop()


with tempfile.TemporaryDirectory(prefix="tanebi-cold-", ignore_cleanup_errors=True) as folders:
    os.chmod(folders, 0o711)
    for language in [arguments.language] if arguments.language else LANGUAGES:
        ours, theirs = [], []
        for at in range(arguments.rounds):
            folder = Path(folders) / f"{language}-{at}"
            ours.append(built(language, folder / "tanebi"))
            theirs.append(alone(language, folder / "alone"))
        say(measure="cold build", language=language, profile=arguments.profile, rounds=arguments.rounds,
            tanebi_s_p50=round(median(ours), 2), alone_s_p50=round(median(theirs), 2), ratio=round(median(ours) / median(theirs), 2))
