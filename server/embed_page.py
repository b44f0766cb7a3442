#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns page.html into a C string, with a Content-Security-Policy that names its script and style.

    embed_page.py page.html page.c
"""
import base64
import hashlib
import re
import sys


def hashes(text, tag):
    for body in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S):
        digest = hashlib.sha256(body.encode()).digest()
        yield "'sha256-" + base64.b64encode(digest).decode() + "'"


def c_string(data):
    escapes = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("?"): "\\?"}
    lines = []
    for line in data.splitlines(keepends=True):
        lines.append('"' + "".join(
            escapes.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in line) + '"')
    return "\n".join(lines)


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        text = f.read()
    policy = ("default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
              "frame-ancestors 'none'; img-src data:"
              f"; script-src {' '.join(hashes(text, 'script'))}"
              f"; style-src {' '.join(hashes(text, 'style'))}")
    data = text.encode()
    with open(target, "w", encoding="ascii") as f:
        f.write("/* Made from page.html by embed_page.py. */\n#include \"server/page.h\"\n\n")
        f.write(f"const char page_html[] =\n{c_string(data)};\n")
        f.write(f"const size_t page_html_len = {len(data)};\n")
        f.write(f"const char page_policy[] = {c_string(policy.encode())};\n")


if __name__ == "__main__":
    main()
