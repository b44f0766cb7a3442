#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the shape of the source tree: who includes whom, which library is known where, and how long
files and functions are. Prints what is wrong and exits 1.

    tests/layering.py [ROOT]       checks the tree (default: the one this file is in)
    tests/layering.py --self-test  plants one fault after another in a small tree and expects each to be found
"""
import ast
import os
import re
import sys
import tempfile

FOLDERS = {  # folder: the folders whose headers it may include, besides its own
    "proto": set(), "model": set(), "config": set(),
    "server": {"proto", "model", "config"},
    "bench": {"proto", "model", "config", "server"},
    "cli": {"proto", "model", "config", "server", "bench"},
    "tests": {"proto", "model", "config", "server", "cli", "bench"},
}
LEAVES = {"proto", "model", "config"}
LIBRARIES = {  # header: the files that may see it, as patterns over the path, and how many at most
    "microhttpd.h": (r"server/[^/]+\.c", 1),
    "cblas.h": (r"model/ops_blas\.c", 1),
    "pcre2.h": (r"model/pattern\.c", 1),
    "sentencepiece_processor.h": (r"model/pieces\.cc", 1),
    "dnnl.h": (r"bench/measure/rival_onednn\.c", 1),
    "curl/curl.h": (r"bench/client/client\.c", 1),
    "uv.h": (r"server/.*|bench/client/[^/]*", None),
    "jansson.h": (r"proto/.*|config/.*|model/doc\.c|tests/.*", None),
}
SYNCHRONISATION = {"pthread.h", "stdatomic.h", "threads.h", "semaphore.h"}
LEAF_CALLS = re.compile(
    r"\b(printf|puts|putchar|perror|syslog|vprintf|clock_gettime|gettimeofday|time|clock|exit|abort)\s*\("
    r"|\b(stdout|stderr)\b")
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")
SOURCES = (".c", ".h", ".cc", ".py", ".mjs", ".js", ".sh", ".build", ".yaml", ".html")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 750, 120
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def read_tree(root):
    """Path from root to text, for the sources of the product, and scripts, which have no extension."""
    texts = {}
    for folder in [*FOLDERS, "tools", "deploy"]:
        for place, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = [f for f in folders if f not in ("node_modules", "__pycache__", "data", "json")]
            for name in names:
                path = os.path.join(place, name)
                if name.endswith(SOURCES) or "." not in name:
                    with open(path, encoding="utf-8") as file:
                        texts[os.path.relpath(path, root)] = file.read()
    return texts


def blank(text):
    """C without comments and literals; line breaks stay."""
    return NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def is_c(path):
    return path.endswith((".c", ".h", ".cc"))


def includes(text):
    """(quoted, name) of every #include outside comments."""
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return [(mark == '"', name) for mark, name in INCLUDE.findall(code)]


def check_includes(texts):
    for path, text in texts.items():
        folder = path.split("/")[0]
        if not is_c(path) or folder not in FOLDERS:
            continue
        for quoted, name in includes(text):
            target = name.split("/")[0]
            if not quoted and target in FOLDERS and "/" in name:
                yield f"{path}: includes <{name}>: our own headers go in quotes"
            elif quoted and ("/" not in name or target not in FOLDERS):
                yield f"{path}: includes \"{name}\": the folder is missing or not one of ours"
            elif quoted and target != folder and target not in FOLDERS[folder]:
                yield f"{path}: includes \"{name}\": {folder}/ may not know {target}/"
            elif quoted and not name.endswith(".h"):
                yield f"{path}: includes \"{name}\", which is not a header"
            elif not quoted and folder == "model" and name in SYNCHRONISATION and path != "model/team.c":
                yield f"{path}: includes <{name}>: model/team.c holds the only synchronisation in model/"


def reach(texts, path, seen):
    """Library headers that a file sees, directly or through our headers."""
    found = set()
    if path in seen or path not in texts:
        return found
    seen.add(path)
    for quoted, name in includes(texts[path]):
        found |= reach(texts, name, seen) if quoted else {name} & LIBRARIES.keys()
    return found


def check_libraries(texts):
    users = {library: [] for library in LIBRARIES}
    for path in texts:
        if is_c(path):
            for library in reach(texts, path, set()):
                users[library].append(path)
    for library, paths in users.items():
        allowed, most = LIBRARIES[library]
        for path in paths:
            if not re.fullmatch(allowed, path):
                yield f"{path}: sees <{library}>, which is for {allowed}"
        if most and len(paths) > most:
            yield f"<{library}> is known to {len(paths)} files, not {most}: {', '.join(sorted(paths))}"


def check_leaves(texts):
    for path, text in texts.items():
        if path.split("/")[0] in LEAVES and is_c(path):
            for number, line in enumerate(blank(text).split("\n"), 1):
                found = LEAF_CALLS.search(line)
                if found:
                    yield f"{path}:{number}: {found.group(0).rstrip('(')}: leaves do not log, read clocks or end the process"


def c_functions(text):
    """(name, first line, lines) of every function body in C, found by its braces at the outermost level."""
    depth, start, head = 0, 0, ""
    # Preprocessor lines are not code; a macro may well have unequal braces.
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", "", m.group()), blank(text), flags=re.MULTILINE)
    line = 1
    for c in code:
        if c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                name = re.search(r"(\w+)\s*\([^=]*$", head)
                if name and "=" not in head:
                    macro = re.search(r"\bTEST\s*\(\s*(\w+)", head)
                    yield (macro or name).group(1), start, line - start + 1
                head = ""
        elif depth == 0:
            if not head.strip():
                start = line
            head = "" if c == ";" else head + c
        if c == "\n":
            line += 1


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def check_lengths(texts):
    for path, text in texts.items():
        lines = text.count("\n")
        if lines > MAX_FILE_LINES and not path.endswith((".yaml", ".html")):
            yield f"{path}: {lines} lines, more than {MAX_FILE_LINES}"
        functions = c_functions(text) if is_c(path) else python_functions(text) if path.endswith(".py") else []
        for name, first, count in functions:
            if count > MAX_FUNCTION_LINES:
                yield f"{path}:{first}: {name} has {count} lines, more than {MAX_FUNCTION_LINES}"


def check_unfinished(texts):
    for path, text in texts.items():
        for number, line in enumerate(text.split("\n"), 1):
            found = UNFINISHED.search(line)
            if found:
                yield f"{path}:{number}: {found.group(0)}"


def check_openings(texts):
    for path, text in texts.items():
        if is_c(path) and not text.startswith("/* SPDX-License-Identifier: Apache-2.0 */\n/*"):
            yield f"{path}: does not open with the SPDX line and a paragraph"


CHECKS = [check_includes, check_libraries, check_leaves, check_lengths, check_unfinished, check_openings]


def faults(root):
    texts = read_tree(root)
    return [fault for check in CHECKS for fault in check(texts)]


OPENING = "/* SPDX-License-Identifier: Apache-2.0 */\n/* A file. */\n"
SOUND = {
    "model/a.h": OPENING + "int a(void);\n",
    "model/a.c": OPENING + '#include "model/a.h"\n/* #include "server/s.h" */\nint a(void) {\n\treturn \'{\';\n}\n',
    "model/pattern.c": OPENING + "#include <pcre2.h>\n",
    "proto/p.h": OPENING + "#include <jansson.h>\n",
    "server/s.h": OPENING + "int s(void);\n",
    "server/http.c": OPENING + '#include <microhttpd.h>\n#include <uv.h>\n#include "model/a.h"\n#include "server/s.h"\n',
    "cli/main.c": OPENING + '#include "server/s.h"\n',
    "tests/test_a.c": OPENING + '#include "model/a.h"\n#include "proto/p.h"\n',
}
LONG = "\n".join(["\ta();"] * 121)
PLANTED = [  # path, text put at its end, part of the fault
    ("model/a.c", '#include "server/s.h"\n', "model/ may not know server/"),
    ("model/a.h", '#include "proto/p.h"\n', "model/ may not know proto/"),
    ("proto/p.h", '#include "model/a.h"\n', "proto/ may not know model/"),
    ("config/c.c", '#include "server/s.h"\n', "config/ may not know server/"),
    ("server/s.h", '#include "cli/main.h"\n', "server/ may not know cli/"),
    ("server/s.h", '#include "bench/b.h"\n', "server/ may not know bench/"),
    ("bench/b.c", '#include "cli/main.h"\n', "bench/ may not know cli/"),
    ("bench/b.c", "#include <curl/curl.h>\n", "sees <curl/curl.h>"),
    ("cli/main.c", '#include "tests/check.h"\n', "cli/ may not know tests/"),
    ("model/a.c", '#include "a.h"\n', "folder is missing"),
    ("model/a.c", '#include "../server/s.h"\n', "folder is missing"),
    ("model/a.c", "#include <server/s.h>\n", "go in quotes"),
    ("tests/test_a.c", '#include "model/a.c"\n', "not a header"),
    ("server/other.c", "#include <microhttpd.h>\n", "known to 2 files"),
    ("model/a.c", "#include <cblas.h>\n", "sees <cblas.h>"),
    ("model/a.c", "  #  include <pcre2.h>\n", "sees <pcre2.h>"),
    ("model/a.c", "#include <uv.h>\n", "sees <uv.h>"),
    ("cli/main.c", '#include "proto/p.h"\n', "cli/main.c: sees <jansson.h>"),
    ("model/a.c", "#include <pthread.h>\n", "only synchronisation"),
    ("model/a.c", 'void b(void) {\n\tfprintf(stderr, "b");\n}\n', "leaves do not log"),
    ("proto/p.c", "long b(void) {\n\treturn time(0);\n}\n", "leaves do not log"),
    ("server/s.c", "void b(void) {\n" + LONG + "\n}\n", "b has 123 lines"),
    ("tests/test_a.c", "TEST(is_long) {\n" + LONG + "\n}\n", "is_long has 123 lines"),
    ("tools/t.py", "def b():\n" + LONG.replace("\t", "    ").replace(";", "") + "\n", "b has 122 lines"),
    ("server/s.c", "\n" * 751, "lines, more than 750"),
    ("server/s.c", "/* TO" "DO: more */\n", "TO" "DO"),
    ("server/s.c", None, "does not open with"),
]


def write(root, path, text):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def found_in_copy(path, planted):
    """The faults of the sound tree with `planted` at the end of one file."""
    with tempfile.TemporaryDirectory() as root:
        for name, text in SOUND.items():
            write(root, name, text)
        if path:
            begin = "" if planted is None or path.endswith(".py") else SOUND.get(path, OPENING)
            write(root, path, begin + (planted or "int b;\n"))
        return faults(root)


def self_test():
    failed = [f"a sound tree has faults: {fault}" for fault in found_in_copy(None, None)]
    for path, planted, part in PLANTED:
        found = found_in_copy(path, planted)
        if not any(part in fault for fault in found):
            failed.append(f"{path}: expected \"{part}\", found {found}")
    return failed


def main():
    arguments = sys.argv[1:]
    if arguments == ["--self-test"]:
        found = self_test()
        print(f"{len(PLANTED)} planted faults, {len(found)} not found" if found else f"all {len(PLANTED)} planted faults are found")
    else:
        found = faults(arguments[0] if arguments else os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    for fault in found:
        print(fault)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
