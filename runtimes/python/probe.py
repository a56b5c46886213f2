"""Says what this interpreter is, as one line of JSON. Run with -I: nothing of the user's is imported."""

import json
import sys
import sysconfig

print(
    json.dumps(
        {
            "implementation": sys.implementation.name,
            "version": "%d.%d.%d" % sys.version_info[:3],
            "release": sys.version_info[3] == "final",
            "base_prefix": sys.base_prefix,
            "base_exec_prefix": sys.base_exec_prefix,
            "virtual": sys.prefix != sys.base_prefix,
            "stdlib": sysconfig.get_paths()["stdlib"],
            "platform": sysconfig.get_platform(),
        }
    )
)
