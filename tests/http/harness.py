# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: a real server on a tiny checkpoint, raw sockets, TAP.

The binary is named by TEST_FATHOM (default build/fathom of the source tree). Only the standard
library is used.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("TEST_FATHOM", os.path.join(ROOT, "build", "fathom"))
TINY = os.path.join(ROOT, "tests", "data", "tiny-opt")
PATIENCE = float(os.environ.get("TEST_PATIENCE", "20"))  # seconds before a test gives up


class Answer:
    """One HTTP answer: status, headers (lower-case names), body (chunks joined)."""

    def __init__(self, status, headers, body, version):
        self.status, self.headers, self.body, self.version = status, headers, body, version

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json()["error"]["code"]


class Connection:
    """A socket that reads answers strictly: every byte must belong to one."""

    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=PATIENCE)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def fill(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError(f"connection ended before {mark!r}: {self.buffer[:200]!r}")
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def exactly(self, n):
        while len(self.buffer) < n:
            if not self.fill():
                raise EOFError("connection ended inside a body")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def head(self):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ", 2)[:2]
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        return version, int(status), headers

    def answer(self, body=True):
        version, status, headers = self.head()
        data = b""
        if not body or status in (204, 304) or 100 <= status < 200:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            data = b"".join(self.chunks())
        elif "content-length" in headers:
            data = self.exactly(int(headers["content-length"]))
        else:
            while self.fill():
                pass
            data, self.buffer = self.buffer, b""
        return Answer(status, headers, data, version)

    def chunks(self):
        while True:
            size = int(self.until(b"\r\n"), 16)
            data = self.exactly(size)
            assert self.exactly(2) == b"\r\n"
            if size == 0:
                return
            yield data

    def ended(self):
        """Whether the server closes without another byte."""
        try:
            return not self.buffer and not self.fill()
        except ConnectionResetError:
            return True

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def request_text(method, path, body=None, headers=None):
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    if body is not None:
        lines.append(f"Content-Length: {len(data)}")
    fields = {} if body is None else {"Content-Type": "application/json"}
    fields.update(headers or {})
    lines += [f"{k}: {v}" for k, v in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + data


class Server:
    """`fathom serve` with a model and flags; ready when the constructor returns."""

    def __init__(self, *flags, model=TINY, environ=None):
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [BINARY, "serve", "--model", model, "--port", "0", "--admin-port", "0", *flags],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("FATHOM_")},
                 "FATHOM_PACKED_CACHE": "off", **(environ or {})})
        self.port = self.admin_port = None
        self.hello = self.process.stdout.readline()
        found = re.search(r"admin at http://\S+:(\d+)\) listening on http://\S+:(\d+)\n$", self.hello)
        if found:
            self.admin_port, self.port = int(found.group(1)), int(found.group(2))
        if self.port is None:
            self.process.wait()
            raise RuntimeError("the server did not start: " + self.errors())

    def errors(self):
        self.log.seek(0)
        return self.log.read()

    def lines(self, event):
        return [e for e in map(json.loads, self.errors().splitlines()) if e["event"] == event]

    def connect(self, admin=False):
        return Connection(self.admin_port if admin else self.port)

    def ask(self, method, path, body=None, headers=None, admin=False):
        with self.connect(admin) as c:
            c.send(request_text(method, path, body, headers))
            return c.answer(body=method != "HEAD")

    def complete(self, headers=None, **fields):
        return self.ask("POST", "/v1/completions", fields, headers)

    def stream(self, path="/v1/completions", **fields):
        """The parsed events of a stream; "[DONE]" and comments as they are."""
        answer = self.ask("POST", path, {"stream": True, **fields})
        assert answer.status == 200, (answer.status, answer.body)
        return parse_events(answer.body)

    def gauge(self, name):
        text = self.ask("GET", "/metrics", admin=True).body.decode()
        found = re.search(rf"^fathom_{re.escape(name)} (\S+)$", text, re.M)
        return float(found.group(1)) if found else None

    def idle(self):
        return self.gauge("requests_running") == 0 and self.gauge("requests_waiting") == 0

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds=PATIENCE):
        return self.process.wait(seconds)

    def stop(self):
        if self.process.poll() is None:
            self.signal()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        said = self.errors()
        self.process.stdout.close()
        self.log.close()
        if "Sanitizer" in said or "runtime error:" in said:  # builds with -Db_sanitize
            print("\n".join("# " + line for line in said.splitlines() if not line.startswith("{")))
            raise AssertionError("a sanitizer complained")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def parse_events(data):
    events = []
    for block in data.decode().split("\n\n"):
        if block.startswith("data: {"):
            events.append(json.loads(block[6:]))
        elif block:
            events.append(block.removeprefix("data: "))
    return events


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def eventually(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def long_model(context=16384):
    """A folder whose answers can be long: sinusoidal positions need no table."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "long")
        shutil.copytree(os.path.join(ROOT, "tests", "data", "tiny-fathom-sin-post"), path)
        config_path = os.path.join(path, "config.json")
        with open(config_path, encoding="utf-8") as f:
            config = json.load(f)
        config["max_position_embeddings"] = context
        with open(config_path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        yield path


def in_background(work):
    """Runs work() on a thread; the result is [0] of the list after join()."""
    result = []

    def run():
        try:
            result.append(work())
        except Exception as e:  # pylint: disable=broad-except
            result.append(e)
    thread = threading.Thread(target=run)
    thread.start()
    thread.result = result
    return thread


TESTS = []


def test(function):
    TESTS.append(function)
    return function


def same(actual, expected):
    if actual != expected:
        raise AssertionError(f"{actual!r}, expected {expected!r}")


def main(**makers):
    """Runs the tests in order and prints TAP. A test names what it wants of `makers`, each a
    function that makes a context manager, entered once for all tests."""
    if not os.path.exists(BINARY):
        print("1..0 # SKIP there is no binary at", BINARY)
        return 0
    only = sys.argv[1:]
    tests = [t for t in TESTS if not only or t.__name__ in only]
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    with contextlib.ExitStack() as stack:
        context = {name: stack.enter_context(make()) for name, make in makers.items()}
        for number, t in enumerate(tests, 1):
            failed += not run(number, t, context)
    return 1 if failed else 0


def run(number, function, context):
    wanted = function.__code__.co_varnames[:function.__code__.co_argcount]
    started = time.monotonic()
    try:
        function(*(context[name] for name in wanted))
        print(f"ok {number} - {function.__name__} # {time.monotonic() - started:.2f} s", flush=True)
        return True
    except Exception:  # pylint: disable=broad-except
        print(f"not ok {number} - {function.__name__}")
        print("\n".join("# " + line for line in traceback.format_exc().splitlines()), flush=True)
        return False
