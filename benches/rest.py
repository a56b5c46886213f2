#!/usr/bin/env python3
"""A daemon with many deployed functions and no instance: how much memory, how long from start to `ready`.

  rest.py [--functions 100] [--starts 20]
"""

import argparse
import time

from common import EXAMPLE, Tanebi, median, resident_mib, say

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--functions", type=int, default=100)
parser.add_argument("--starts", type=int, default=20)
arguments = parser.parse_args()

tanebi = Tanebi()
try:
    for n in range(arguments.functions):
        tanebi.deploy(f"f{n}", EXAMPLE, "--function", "hello_http")
        tanebi.run("instances", "stop", f"f{n}")
    ready, resident = [], []
    for _ in range(arguments.starts):
        tanebi.stop()
        tanebi.start()
        ready.append(tanebi.ready_ms)
        time.sleep(2)
        resident.append(resident_mib(tanebi.daemon()))
    say(measure="rest", functions=arguments.functions, starts=arguments.starts, ready_ms_p50=round(median(ready), 1), ready_ms_max=round(max(ready), 1),
        resident_mib_p50=round(median(resident), 1), resident_mib_max=round(max(resident), 1))
finally:
    tanebi.close()
