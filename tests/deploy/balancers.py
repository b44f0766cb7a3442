# SPDX-License-Identifier: Apache-2.0
"""Balancers as deploy/ configures them, clients that load them, and replicas that only pretend."""
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http"))
from harness import (ROOT, Connection, eventually, free_port,  # noqa: E402
                     parse_events, request_text)
import socketserver  # noqa: E402

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class Program:
    """A balancer in the foreground; ready when its port answers."""

    def __init__(self, command, port, environ=None):
        self.port = port
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(environ or {})})
        if not eventually(lambda: self.process.poll() is not None or self.accepts()) \
                or self.process.poll() is not None:
            raise RuntimeError(f"{command[0]} did not start: {self.said()}")

    def accepts(self):
        try:
            Connection(self.port).close()
            return True
        except ConnectionRefusedError:
            return False

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def ask(self, method, path, body=None):
        with Connection(self.port) as c:
            c.send(request_text(method, path, body))
            return c.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class HAProxy(Program):
    """deploy/haproxy/haproxy.cfg as it is; addresses come by its variables."""

    def __init__(self, a, b):
        port, self.stats = free_port(), free_port()
        environ = {"FATHOM_BIND": f"127.0.0.1:{port}", "FATHOM_STATS": f"127.0.0.1:{self.stats}"}
        for name, (main, admin) in (("A", a), ("B", b)):
            environ[f"FATHOM_{name}"] = f"127.0.0.1:{main}"
            environ[f"FATHOM_{name}_ADMIN"] = str(admin)
        config = os.path.join(ROOT, "deploy", "haproxy", "haproxy.cfg")
        super().__init__([HAPROXY, "-db", "-f", config], port, environ)

    def state(self, server):
        """What the check of a server says, "UP" or "DOWN" before a number of tries."""
        with Connection(self.stats) as c:
            c.send(request_text("GET", "/;csv"))
            lines = c.answer().body.decode().splitlines()
        columns = lines[0].lstrip("# ").split(",")
        for line in lines[1:]:
            row = dict(zip(columns, line.split(",")))
            if row["pxname"] == "replicas" and row["svname"] == server:
                return row["status"]
        return None


class Nginx(Program):
    """deploy/nginx/fathom.conf with the addresses exchanged; `http_1_0` leaves out what makes it
    speak HTTP/1.1 to the replicas, which is how nginx proxies by default."""

    MAIN = """daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn; {user}
events {{ worker_connections 1024; }}
http {{
\taccess_log off;
\tclient_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
\tuwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
\tinclude {dir}/fathom.conf;
}}
"""

    def __init__(self, a, b, http_1_0=False):
        port = free_port()
        self.dir = tempfile.mkdtemp()
        with open(os.path.join(ROOT, "deploy", "nginx", "fathom.conf"), encoding="utf-8") as f:
            text = f.read()
        for old, new in (("10.0.0.11:8080", f"127.0.0.1:{a[0]}"),
                         ("10.0.0.12:8080", f"127.0.0.1:{b[0]}"),
                         ("listen 8080;", f"listen 127.0.0.1:{port};")):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        if http_1_0:
            for line in ("proxy_http_version 1.1;", 'proxy_set_header Connection "";'):
                assert text.count(line) == 1, line
                text = text.replace(line, "")
        for name, content in (("fathom.conf", text), ("nginx.conf", self.MAIN.format(
                dir=self.dir, user="user root;" if os.getuid() == 0 else ""))):
            with open(os.path.join(self.dir, name), "w", encoding="utf-8") as f:
                f.write(content)
        super().__init__([NGINX, "-p", self.dir, "-e", "stderr", "-c",
                          os.path.join(self.dir, "nginx.conf")], port)

    def __exit__(self, *problem):
        super().__exit__(*problem)
        shutil.rmtree(self.dir, ignore_errors=True)


BODIES = [
    {"prompt": "Tom said that", "max_tokens": 24, "depth": 6},
    {"prompt": "Tom said that", "max_tokens": 24, "depth": "auto", "latency_budget_ms": 5000},
    {"prompt": "The weather", "max_tokens": 40, "depth": 3, "stream": True},
    {"prompt": "I have", "max_tokens": 24},
]


def complete(connection, body):
    """One request; "ok" or what is wrong with its answer, and whether the connection may be used again."""
    connection.send(request_text("POST", "/v1/completions", {**body, "ignore_eos": True}))
    answer = connection.answer()
    return check(answer, body), answer.headers.get("connection", "").lower() != "close"


def check(answer, body):
    if answer.status != 200:
        return f"{answer.status} {answer.body[:200]!r}"
    if body.get("stream"):
        events = parse_events(answer.body)
        ended = [e for e in events if isinstance(e, dict) and e["choices"][0]["finish_reason"]]
        return "ok" if ended and events[-1] == "[DONE]" else f"torn stream {answer.body[-200:]!r}"
    tokens = answer.json()["usage"]["completion_tokens"]
    return "ok" if tokens == body["max_tokens"] else f"{tokens} tokens"


class Load:
    """Clients that ask one thing after the other until they are told to stop. Every second one keeps its
    connection, as long as the answer allows it."""

    def __init__(self, port, clients=8):
        self.port, self.stopped = port, threading.Event()
        self.outcomes = [[] for _ in range(clients)]  # of each client: (when, outcome)
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, i):
        connection = None
        turn = i
        while not self.stopped.is_set():
            try:
                if not connection:
                    connection = Connection(self.port)
                outcome, kept = complete(connection, BODIES[turn % len(BODIES)])
            except (OSError, EOFError, ValueError) as e:
                outcome, kept = repr(e), False
            if i % 2 or not kept:
                if connection:
                    connection.close()
                connection = None
            self.outcomes[i].append((time.monotonic(), outcome))
            if outcome != "ok":
                time.sleep(0.2)  # as a client does before it asks again
            turn += 1

    @property
    def done(self):
        return sum(len(o) for o in self.outcomes)

    def failures(self):
        return sorted((at, what) for o in self.outcomes for at, what in o if what != "ok")

    def most_failures_of_a_client(self):
        return max(sum(what != "ok" for _, what in o) for o in self.outcomes)

    def goes_on(self, more=40):
        """Waits until `more` further requests have been answered."""
        want = self.done + more
        assert eventually(lambda: self.done >= want), f"{self.done} answers, waited for {want}"

    def __enter__(self):
        self.goes_on(20)
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for t in self.threads:
            t.join()


class Pretender:
    """A replica that is not one: passes every check and answers each POST as `answer(write, body)` says,
    which writes the bytes of an answer itself."""

    def __init__(self, answer):
        self.posts = 0
        pretender = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                method = self.rfile.readline().split(b" ")[0]
                length = 0
                while (line := self.rfile.readline().strip()):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = self.rfile.read(length)
                try:
                    if method != b"POST":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
                                         b"Connection: close\r\n\r\n")
                        return
                    pretender.posts += 1
                    answer(self.wfile.write, body)
                except OSError:
                    pass  # who asked has left

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.ports = (self.port, self.port)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
