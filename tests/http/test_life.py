#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Life: leaving clients, cancelling, bounds, keys, draining, reloading, starting."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from harness import (BINARY, ROOT, TINY, Connection, Server, eventually, free_port,
                     in_background, long_model, main, parse_events, request_text, same, test)

# Far longer than the test waits; the first token comes at once.
LONG = {"prompt": "The", "max_tokens": 16000, "ignore_eos": True, "temperature": 0}


def begin(server, **fields):
    """Sends a long request and waits until it runs."""
    c = server.connect()
    before = server.gauge("requests_running")
    c.send(request_text("POST", "/v1/completions", {**LONG, **fields}))
    assert eventually(lambda: server.gauge("requests_running") > before)
    return c


def cancellations(server):
    text = server.ask("GET", "/metrics", admin=True).body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith("fathom_cancelled_total"))


def cancelled(server, leave, **fields):
    """After leave(connection) the engine is idle because the request was cancelled, not because it was done."""
    before = cancellations(server)
    c = begin(server, **fields)
    leave(c)
    assert eventually(server.idle), "the work went on"
    same(cancellations(server), before + 1)
    c.close()


@test
def a_client_that_closes_is_noticed(slow):
    cancelled(slow, lambda c: c.close())


@test
def a_client_that_resets_is_noticed(slow):
    cancelled(slow, lambda c: c.reset())


@test
def a_half_closed_connection_has_left(slow):
    cancelled(slow, lambda c: c.socket.shutdown(socket.SHUT_WR))


@test
def a_stream_that_is_left_is_cancelled(slow):
    def leave(c):
        same(c.head()[1], 200)
        next(c.chunks())
        c.close()
    cancelled(slow, leave, stream=True)
    cancelled(slow, lambda c: c.reset(), stream=True)
    cancelled(slow, lambda c: c.socket.shutdown(socket.SHUT_WR), stream=True)


@test
def a_stalled_reader_that_leaves_is_cancelled(slow):
    def leave(c):
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        time.sleep(0.3)
        c.reset()
    cancelled(slow, leave, stream=True, n=8, logprobs=5)


@test
def a_reader_that_stalls_is_cut():
    with long_model() as folder, Server("--idle-timeout", "1s", model=folder) as s:
        with s.connect() as c:
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.send(request_text("POST", "/v1/completions",
                                {**LONG, "n": 8, "logprobs": 5, "stream": True}))
            assert eventually(lambda: s.gauge("connections") > 1)
            assert eventually(lambda: s.gauge("connections") == 1), "it may stall for ever"
            assert eventually(lambda: s.idle() and cancellations(s) == 1), "the work went on"


@test
def a_long_computation_outlives_the_idle_timeout():
    with long_model() as folder, Server("--idle-timeout", "300ms", model=folder) as s:
        start = time.monotonic()
        answer = s.complete(**{**LONG, "deadline_ms": 1200, "n": 4})
        same(answer.status, 200)
        assert time.monotonic() - start > 1, "it was too short to show anything"


@test
def half_close_stay_gets_its_answer():
    with Server("--half-close", "stay") as s, s.connect() as c:
        c.send(request_text("POST", "/v1/completions", {"prompt": "The", "max_tokens": 50}))
        c.socket.shutdown(socket.SHUT_WR)
        same(c.answer().status, 200)


@test
def a_request_is_cancelled_by_its_id(slow):
    with begin(slow, stream=True) as c:
        same(c.head()[1], 200)
        chunks = c.chunks()
        first = parse_events(next(chunks))[0]
        same(slow.ask("DELETE", "/v1/requests/" + first["id"]).status, 204)
        rest = parse_events(b"".join(chunks))
        same(rest[-1]["error"]["code"], "request_cancelled")  # the proper end, without [DONE]
        assert eventually(slow.idle)
        same(slow.ask("DELETE", "/v1/requests/" + first["id"]).status, 404)


@test
def the_servers_request_id_cancels_too(slow):
    with begin(slow, stream=True) as c:
        made = c.head()[2]["x-request-id"]
        same(slow.ask("DELETE", f"/v1/requests/{made}").status, 204)
        error = parse_events(b"".join(c.chunks()))[-1]["error"]
        same((error["code"], error["request_id"]), ("request_cancelled", made))
    same(slow.ask("DELETE", "/v1/requests/req_0").status, 404)


@test
def a_clients_own_id_cancels_nothing(slow):
    with slow.connect() as c:
        c.send(request_text("POST", "/v1/completions", {**LONG, "stream": True},
                            {"X-Request-Id": "chosen"}))
        same(c.head()[2]["x-request-id"], "chosen")
        same(slow.ask("DELETE", "/v1/requests/chosen").status, 404)
    assert eventually(slow.idle)


@test
def silent_streams_get_pings():
    with long_model() as folder, \
            Server("--ping", "200ms", "--max-running", "1", model=folder) as s:
        with begin(s) as first, s.connect() as second:
            second.send(request_text("POST", "/v1/completions",
                                     {"prompt": "a", "max_tokens": 1, "stream": True}))
            same(second.head()[1], 200)  # with the first ping
            chunks = second.chunks()
            same(next(chunks), b": ping\n\n")
            first.close()
            events = parse_events(b"".join(chunks))
            same(events[-1], "[DONE]")
            assert any("depth" in e for e in events if isinstance(e, dict))


@test
def deadlines_cut_or_refuse(slow):
    a = slow.complete(**LONG, deadline_ms=300)
    same(a.status, 200)
    choice = a.json()["choices"][0]
    same((choice["finish_reason"], choice["finish_detail"]), ("length", "deadline"))
    total, tokens = a.json()["timings"]["total_ms"], a.json()["usage"]["completion_tokens"]
    assert total > 200 and tokens < LONG["max_tokens"], (total, tokens)


@test
def a_full_queue_refuses_with_a_time_to_come_back():
    with long_model() as folder, Server("--max-running", "1", "--queue-requests", "2",
                                        "--retry-after", "3s", model=folder) as s:
        held = [begin(s)]
        for waiting in (1, 2):
            c = s.connect()
            c.send(request_text("POST", "/v1/completions", LONG))
            held.append(c)
            assert eventually(lambda n=waiting: s.gauge("requests_waiting") >= n)
        answer = s.complete(**LONG)
        same((answer.status, answer.code), (503, "server_overloaded"))
        same(answer.headers["x-should-retry"], "true")
        seconds, ms = int(answer.headers["retry-after"]), int(answer.headers["retry-after-ms"])
        assert ms >= 3000 and seconds == -(-ms // 1000), (seconds, ms)
        same(s.complete(**LONG, stream=True).status, 503)  # streams keep the status
        same(s.ask("GET", "/livez").status, 200)  # probes do not depend on load
        same(s.ask("GET", "/readyz").status, 200)
        for c in held[1:]:
            c.close()
        assert eventually(lambda: s.gauge("requests_waiting") == 0), "who left still waits"
        held[0].close()
        assert eventually(s.idle)


@test
def sixteen_clients_of_which_some_leave(slow):
    def client(i):
        body = {"prompt": f"The {i}", "max_tokens": 40 + i, "depth": 1 + i % 3, "seed": i,
                "ignore_eos": True}
        if i % 4 == 3:
            with slow.connect() as c:
                c.send(request_text("POST", "/v1/completions", {**body, "max_tokens": 9000,
                                                                "stream": True}))
                c.head()
            return None
        return slow.complete(**body).json()["choices"][0]["text"]
    alone = [client(i) for i in range(16)]
    threads = [in_background(lambda i=i: client(i)) for i in range(16)]
    for thread, expected in zip(threads, alone):
        thread.join()
        same(thread.result[0], expected)
    assert eventually(slow.idle)
    assert eventually(lambda: slow.gauge("kv_cache_usage_ratio") == 0), "blocks leaked"


@test
def the_admin_listener_answers_when_the_main_one_is_full():
    with Server("--connections", "4") as s:
        held = [s.connect() for _ in range(6)]
        time.sleep(0.2)
        same(s.ask("GET", "/readyz", admin=True).status, 200)
        same(s.ask("GET", "/metrics", admin=True).status, 200)
        same(s.ask("GET", "/v1/models", admin=True).status, 404)
        same(s.ask("POST", "/drain", headers={"Origin": "https://a.example"},
                   admin=True).status, 403)
        for c in held:
            c.close()
        assert eventually(lambda: s.ask("GET", "/livez").status == 200)


@test
def keys_are_checked():
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as f:
        f.write("# keys\nsk-alpha-1 name=alpha\nsk-beta-1 name=beta rate=1/min\n")
        f.flush()
        with Server("--api-key-file", f.name) as s:
            body = {"prompt": "a", "max_tokens": 1}
            for path in ("/", "/openapi.json", "/livez", "/readyz", "/health"):
                same((path, s.ask("GET", path).status), (path, 200))
            for path in ("/v1/models", "/v1/depths", "/metrics", "/version", "/nothing",
                         "/v1/requests/x"):
                same((path, s.ask("GET", path).status), (path, 401))
            answer = s.complete(**body)
            same((answer.status, answer.code, answer.headers["www-authenticate"]),
                 (401, "invalid_api_key", "Bearer"))
            for wrong in ("Bearer sk-alpha-", "Bearer sk-alpha-12", "Bearer ", "Basic c2s6", "sk"):
                same(s.complete(**body, headers={"Authorization": wrong}).status, 401)
            good = {"Authorization": "Bearer sk-alpha-1"}
            same(s.complete(**body, headers=good).status, 200)
            same(s.complete(**body, headers={"X-Api-Key": "sk-alpha-1"}).status, 200)
            beta = {"Authorization": "Bearer sk-beta-1"}
            same(s.complete(**body, headers=beta).status, 200)
            limited = s.complete(**body, headers=beta)
            same((limited.status, limited.code), (429, "rate_limit_exceeded"))
            assert int(limited.headers["retry-after"]) > 1
            # Cancelling relieves the server: a rate does not stand in its way.
            same(s.ask("DELETE", "/v1/requests/cmpl-unknown", headers=beta).status, 404)
            same(s.ask("POST", "/drain", admin=True).status, 401)
            same(s.ask("GET", "/metrics", admin=True).status, 200)
            assert eventually(lambda: any(e["key"] == "alpha" for e in s.lines("request")))
            assert "sk-alpha-1" not in s.errors()


@test
def one_key_cannot_cancel_anothers_request():
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as f, long_model() as folder:
        f.write("sk-alpha-1\nsk-beta-1\n")
        f.flush()
        with Server("--api-key-file", f.name, model=folder) as s, s.connect() as c:
            alpha, beta = ({"Authorization": "Bearer " + k} for k in ("sk-alpha-1", "sk-beta-1"))
            c.send(request_text("POST", "/v1/completions", {**LONG, "stream": True}, alpha))
            path = "/v1/requests/" + c.head()[2]["x-request-id"]
            same(s.ask("DELETE", path, headers=beta).status, 404)
            same(s.ask("DELETE", path, headers=alpha).status, 204)


@test
def draining_loses_no_request():
    with long_model() as folder, Server(model=folder) as s:
        kept = s.connect()
        kept.send(request_text("GET", "/livez"))
        kept.answer()
        running = [begin(s, max_tokens=1500, n=2), begin(s, max_tokens=1500, stream=True)]
        s.signal()
        assert eventually(lambda: s.ask("GET", "/readyz").status == 503)
        kept.send(request_text("POST", "/v1/completions", LONG))
        answer = kept.answer()
        same((answer.status, answer.code), (503, "shutting_down"))
        same(answer.headers["connection"], "close")
        same(s.complete(**LONG).code, "shutting_down")  # a new connection hears it too
        whole = running[0].answer()
        same((whole.status, whole.json()["usage"]["completion_tokens"]), (200, 3000))
        assert running[1].answer().body.endswith(b"data: [DONE]\n\n")
        same(s.wait(), 0)


@test
def the_drain_delay_serves_on():
    with Server("--drain-delay", "3s") as s:
        s.signal()
        assert eventually(lambda: s.ask("GET", "/readyz").status == 503)
        same(s.ask("GET", "/livez").status, 200)
        answer = s.complete(prompt="a", max_tokens=2)
        same((answer.status, answer.headers["connection"]), (200, "close"))  # come back elsewhere
        same(s.wait(), 0)
        try:
            s.connect().close()
            raise AssertionError("the socket still listens")
        except ConnectionRefusedError:
            pass


@test
def the_drain_timeout_ends_what_runs():
    with long_model() as folder, Server("--drain-timeout", "300ms", model=folder) as s:
        with begin(s) as c, begin(s, stream=True) as stream:
            s.signal()
            answer = c.answer()
            same((answer.status, answer.code), (503, "shutting_down"))
            same(parse_events(stream.answer().body)[-1]["error"]["code"], "shutting_down")
        same(s.wait(), 0)


@test
def a_second_signal_ends_at_once():
    with long_model() as folder, Server(model=folder) as s:
        with begin(s):
            s.signal()
            assert eventually(lambda: s.ask("GET", "/readyz").status == 503)
            s.signal(signal.SIGINT)
            assert s.wait() != 0  # drained, it would end with 0


@test
def drain_over_http():
    with Server() as s:
        same(s.ask("POST", "/drain").status, 404)  # not on the main listener
        same(s.ask("POST", "/drain", admin=True).status, 202)
        same(s.wait(), 0)


@test
def a_signal_after_a_drain_over_http_ends_nothing_early():
    with long_model() as folder, Server(model=folder) as s:
        with begin(s, max_tokens=1500) as c:
            same(s.ask("POST", "/drain", admin=True).status, 202)
            s.signal()
            same(c.answer().status, 200)
        same(s.wait(), 0)


@test
def draining_while_loading_refuses_work():
    for _ in range(10):  # the freeze below may come too late, when the model is ready
        port, admin = free_port(), free_port()
        process = subprocess.Popen(
            [BINARY, "serve", "--model", os.path.join(ROOT, "deploy", "demo"), "--port", str(port),
             "--admin-port", str(admin)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        connections = []

        def listens():
            try:
                connections.extend(Connection(p) for p in (admin, port)[len(connections):])
            except ConnectionRefusedError:
                pass
            return len(connections) == 2
        assert eventually(listens)
        drain, work = connections
        drain.send(request_text("GET", "/readyz"))
        loading = drain.answer().json()["status"] == "loading"
        process.send_signal(signal.SIGSTOP)  # so that it finds both at once
        drain.send(request_text("POST", "/drain", b""))
        work.send(request_text("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}))
        process.send_signal(signal.SIGCONT)
        try:
            same(work.answer().status if loading else 503, 503)
        finally:
            process.wait()
            drain.close()
            work.close()
        same(process.returncode, 0)
        if loading:
            return


@test
def draining_under_load_answers_everything():
    with Server() as s:
        def client():
            outcomes = []
            try:
                while True:
                    with s.connect() as c:
                        c.send(request_text("POST", "/v1/completions",
                                            {"prompt": "The", "max_tokens": 20}))
                        try:
                            a = c.answer()
                        except (EOFError, ConnectionResetError) as e:
                            outcomes.append(repr(e))
                            continue
                        outcomes.append(a.status)
                        if a.status == 503:
                            same(a.code, "shutting_down")
                            time.sleep(0.01)
            except (ConnectionRefusedError, ConnectionResetError):
                return outcomes  # the socket has closed
        threads = [in_background(client) for _ in range(8)]
        time.sleep(0.5)
        s.signal()
        same(s.wait(), 0)
        for t in threads:
            t.join()
            outcomes = t.result[0]
            assert outcomes.count(200) > 0, outcomes
            # A handshake that the kernel completes between the last accept and the close of the
            # listening socket is reset by the kernel; nothing was accepted, and nothing comes after.
            if outcomes[-1] == repr(ConnectionResetError(104, "Connection reset by peer")):
                outcomes.pop()
            same({o for o in outcomes if o not in (200, 503)}, set())


@test
def reload_serves_on(slow):
    with Server() as s:
        before = s.complete(prompt="The old", max_tokens=8, seed=1).json()["choices"]
        answer = s.ask("POST", "/reload", admin=True)
        same((answer.status, answer.json()["status"]), (200, "serving"))
        same(s.complete(prompt="The old", max_tokens=8, seed=1).json()["choices"], before)
    with begin(slow, max_tokens=3000, stream=True) as c:  # the old model finishes its own
        same(slow.ask("POST", "/reload", admin=True).status, 200)
        same(slow.complete(prompt="a", max_tokens=2).status, 200)
        assert c.answer().body.endswith(b"data: [DONE]\n\n")
    assert eventually(slow.idle)


@test
def a_bad_reload_is_refused_with_a_sentence():
    with Server() as s, tempfile.TemporaryDirectory() as folder:
        answer = s.ask("POST", "/reload", {"model": folder}, admin=True)
        same(answer.status, 400)
        assert "config.json" in answer.json()["error"]["message"]
        other = os.path.join(ROOT, "tests", "data", "tiny-fathom-sin-post")  # 3 layers, not 6
        same(s.ask("POST", "/reload", {"model": other}, admin=True).status, 400)
        same(s.ask("POST", "/reload", b"[1", admin=True).code, "invalid_json")
        for body in ({"modle": folder}, {"model": folder, "x": 1}, {"model": ""}, []):
            same((body, s.ask("POST", "/reload", body, admin=True).code), (body, "invalid_request"))
            assert "FOLDER" in s.ask("POST", "/reload", body, admin=True).json()["error"]["message"]
        same(s.ask("POST", "/reload", {"model": None}, admin=True).status, 200)
        same(s.complete(prompt="a", max_tokens=1).status, 200)


@test
def a_reload_that_does_not_fit_the_memory_is_refused():
    with Server() as s, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "huge")
        shutil.copytree(TINY, path)
        os.truncate(os.path.join(path, "model.safetensors"), 1 << 43)  # sparse
        answer = s.ask("POST", "/reload", {"model": path}, admin=True)
        same(answer.status, 400)
        assert "MiB" in answer.json()["error"]["message"], answer.body
        same(s.complete(prompt="a", max_tokens=1).status, 200)


def serve_once(*flags, environ=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith("FATHOM_")}
    return subprocess.run([BINARY, "serve", *flags], capture_output=True, text=True, timeout=30,
                          env={**env, **(environ or {})}, check=False)


@test
def start_up_failures_are_one_sentence():
    with tempfile.TemporaryDirectory() as folder, Server() as s:
        for flags in (("--model", folder), ("--model", "/nonexistent"),
                      ("--model", TINY, "--port", str(s.port)),
                      ("--model", TINY, "--host", "no.such.host.invalid", "--port", "0"),
                      ("--model", TINY, "--port", "0", "--api-key-file", "/nonexistent")):
            done = serve_once(*flags)
            same((flags, done.returncode, done.stdout), (flags, 1, ""))
            said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
            same((flags, len(said)), (flags, 1))
            assert said[0].startswith("fathom serve: "), said


@test
def service_variables_of_kubernetes_are_ignored():
    with Server(environ={"FATHOM_PORT": "tcp://10.0.0.1:80", "FATHOM_SERVICE_HOST": "10.0.0.1",
                         "FATHOM_PORT_80_TCP": "tcp://10.0.0.1:80"}) as s:
        same(s.ask("GET", "/health").status, 200)
        same(len(s.lines("environment_ignored")), 1)


@test
def memory_is_not_dumped_and_open_servers_warn():
    with Server("--host", "0.0.0.0") as s:
        with open(f"/proc/{s.process.pid}/limits", encoding="ascii") as f:
            core = next(line for line in f if line.startswith("Max core file size"))
        same(core.split()[4:6], ["0", "0"])
        same([line["listener"] for line in s.lines("open_to_all")], ["main"])
    with Server("--admin-host", "0.0.0.0") as s:  # who drains and reloads matters more
        same([line["listener"] for line in s.lines("open_to_all")], ["admin"])


@test
def an_idle_server_uses_no_processor_time():
    def seconds(s):
        with open(f"/proc/{s.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with Server("--threads", "2") as s:
        same(s.complete(prompt="the", max_tokens=2).status, 200)
        used = []
        while not used or used[-1] > 0.05 and len(used) < 10:  # it may still have had something to do
            before = seconds(s)
            time.sleep(1)
            used.append(seconds(s) - before)
        assert used[-1] <= 0.05, used


@test
def threads_are_pinned_only_to_processors_that_exist():
    done = serve_once("--model", TINY, "--pin", "9999")
    same((done.returncode, "processor 9999" in done.stderr), (1, True))
    with Server("--pin", "auto") as s:
        same(s.complete(prompt="the", max_tokens=2).status, 200)


@test
def more_threads_than_cores_are_warned_of():
    crowded = serve_once("--model", "/nowhere", "--port", "0", "--threads", "1024")
    alone = serve_once("--model", "/nowhere", "--port", "0", "--threads", "1")
    same((crowded.returncode, "more_threads_than_cores" in crowded.stderr), (1, True))
    same((alone.returncode, "more_threads_than_cores" in alone.stderr), (1, False))


class Slow:
    """A server whose answers can take seconds."""

    def __enter__(self):
        self.folder = long_model()
        self.server = Server(model=self.folder.__enter__())
        return self.server

    def __exit__(self, *_):
        self.server.stop()
        self.folder.__exit__(None, None, None)


if __name__ == "__main__":
    sys.exit(main(slow=Slow))
