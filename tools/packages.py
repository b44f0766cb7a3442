# SPDX-License-Identifier: Apache-2.0
"""What a tool needs beyond Python, found before it fails.

A Python of one's own often comes first in PATH and lacks what Debian installed for its own; the
tool then goes on with Debian's.
"""
import importlib.util
import os
import sys

DEBIAN = "/usr/bin/python3"


def prefer(*modules):
    """The modules that cannot be imported, after trying Debian's Python if this one lacks some."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    here = os.path.realpath(sys.executable)
    if missing and os.path.exists(DEBIAN) and here != os.path.realpath(DEBIAN):
        os.execv(DEBIAN, [DEBIAN, *sys.argv])
    return missing


def need(*modules):
    """Returns if all modules can be imported; else ends with a sentence."""
    missing = prefer(*modules)
    if not missing:
        return
    packages = " ".join(f"python3-{m}" for m in missing)
    sys.exit(f"{os.path.basename(sys.argv[0])}: this Python lacks {', '.join(missing)}; "
             f"on Debian: apt-get install {packages}")
