"""A package whose build script looks for ways out and packs what it found."""

import os
import subprocess
import sys

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))
FOUND = os.path.join(HERE, "probe_pkg", "found.json")

if not os.path.exists(FOUND):
    os.makedirs(os.path.dirname(FOUND), exist_ok=True)
    done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "probe.py"), "build"], stdout=subprocess.PIPE, close_fds=False, timeout=200, check=True)
    with open(os.path.join(HERE, "probe_pkg", "__init__.py"), "w"):
        pass
    with open(FOUND, "wb") as file:
        file.write(done.stdout)

setup(name="probe-pkg", version="1", packages=["probe_pkg"], package_data={"probe_pkg": ["found.json"]})
