#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Joins the page's files into a C string, with a Content-Security-Policy that names its script and style.

    embed_page.py page.c index.html page.css FIRST.js MORE.js...
"""
import base64
import hashlib
import sys


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def quoted_hash(body):
    return "'sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() + "'"


def filled(page, tag, body):
    empty = f"<{tag}></{tag}>"
    if page.count(empty) != 1 or f"</{tag}" in body:
        raise SystemExit(f"The page needs one {empty}, and its content no end of it.")
    return page.replace(empty, f"<{tag}>{body}</{tag}>")


def c_string(data):
    escapes = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("?"): "\\?"}
    lines = []
    for line in data.splitlines(keepends=True):
        lines.append('"' + "".join(
            escapes.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in line) + '"')
    return "\n".join(lines)


def main():
    target, page, style, *scripts = sys.argv[1:]
    style, script = read(style), "\n".join(map(read, scripts))
    policy = ("default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
              "frame-ancestors 'none'; img-src data:"
              f"; script-src {quoted_hash(script)}; style-src {quoted_hash(style)}")
    data = filled(filled(read(page), "style", style), "script", script).encode()
    with open(target, "w", encoding="ascii") as f:
        f.write("/* Made from server/page/ by embed_page.py. */\n#include \"server/page.h\"\n\n")
        f.write(f"const char page_html[] =\n{c_string(data)};\n")
        f.write(f"const size_t page_html_len = {len(data)};\n")
        f.write(f"const char page_policy[] = {c_string(policy.encode())};\n")


if __name__ == "__main__":
    main()
