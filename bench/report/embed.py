#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts the parts of the report page together: C strings of what stands before and after the result.

    embed.py report_page.c page.html style.css SCRIPT...

The page's policy allows its own style and script by their hashes and nothing else, so that it can ask nobody for
anything and a result can bring no script.
"""
import base64
import hashlib
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "server"))
from embed_page import c_string  # noqa: E402


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def source(text):
    digest = hashlib.sha256(text.encode()).digest()
    return "'sha256-" + base64.b64encode(digest).decode() + "'"


def assemble(page, style, scripts):
    script = "\n".join(scripts)
    policy = (f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; img-src data:; "
              "base-uri 'none'; form-action 'none'")
    for mark, text in (("@POLICY@", policy), ("@STYLE@", style), ("@SCRIPT@", script)):
        page = page.replace(mark, text)
    return page.split("@RESULT@")


def main():
    target, page, style, *scripts = sys.argv[1:]
    head, tail = assemble(read(page), read(style), [read(s) for s in scripts])
    with open(target, "w", encoding="ascii") as f:
        f.write('/* Made from report/ by embed.py. */\n#include "bench/report/report_page.h"\n\n')
        f.write(f"const char report_page_head[] =\n{c_string(head.encode())};\n\n")
        f.write(f"const char report_page_tail[] =\n{c_string(tail.encode())};\n")


if __name__ == "__main__":
    main()
