#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""HAProxy and nginx, configured by deploy/, in front of two replicas: draining, replacing, killing,
retrying, streaming. What is not installed is skipped by name."""
import os
import signal
import sys
import time

from balancers import (BODIES, HAPROXY, NGINX, HAProxy, Load, Nginx, Pretender, complete)
from harness import (ROOT, Connection, Server, eventually, free_port, long_model, main,
                     request_text, same, test)

DEMO = os.path.join(ROOT, "deploy", "demo")
DELAY = "2s"  # longer than two failed checks of HAProxy

NAMES = {"haproxy": HAPROXY, "nginx": NGINX}


def balanced(name):
    """Makes the test of one balancer, skipped where that is not installed."""
    def wrap(function):
        if NAMES[name]:
            return test(function)

        def skipped():
            pass
        skipped.__name__ = f"{function.__name__} # SKIP {name} is not installed"
        return test(skipped)
    return wrap


class Replica:
    """fathom on two ports that a new process takes over."""

    def __init__(self, delay="0s", model=DEMO):
        self.ports, self.delay, self.model = (free_port(), free_port()), delay, model
        self.server = None
        self.start()

    def start(self):
        self.server = Server("--port", str(self.ports[0]), "--admin-port", str(self.ports[1]),
                             "--drain-delay", self.delay, "--threads", "1", model=self.model)

    def answered(self):
        text = self.server.ask("GET", "/metrics", admin=True).body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith('fathom_requests_total{route="/v1/completions",code="200"'))

    def replace(self):
        """As an orchestrator does it: the hook, the signal, and a new process when the old one has ended."""
        same(self.server.ask("POST", "/drain", admin=True).status, 202)
        self.server.signal(signal.SIGTERM)
        same(self.server.wait(), 0)
        self.server.stop()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()


def note(text):
    print("#", text, flush=True)


def replace_both(make):
    """Replaces one replica and then the other under load; no request may fail."""
    with Replica(DELAY) as a, Replica(DELAY) as b, make(a.ports, b.ports) as balancer:
        with Load(balancer.port) as load:
            for replica in (a, b):
                replica.replace()
                assert eventually(lambda r=replica: r.answered() > 0), "the new one gets no work"
                load.goes_on()
        note(f"{load.done} requests, {len(load.failures())} failed")
        same(load.failures(), [])


@balanced("haproxy")
def haproxy_replaces_both_replicas_and_no_request_fails():
    replace_both(HAProxy)


@balanced("nginx")
def nginx_replaces_both_replicas_and_no_request_fails():
    replace_both(Nginx)


@balanced("nginx")
def nginx_with_its_http_1_0_replaces_both_and_no_request_fails():
    replace_both(lambda a, b: Nginx(a, b, http_1_0=True))


def kill_one(make):
    """A replica dies under load: what it was answering is lost, and what arrives in the millisecond in
    which the kernel closes its sockets one after the other; nothing that comes after."""
    with Replica() as a, Replica() as b, make(a.ports, b.ports) as balancer:
        with Load(balancer.port) as load:
            killed = time.monotonic()
            a.server.signal(signal.SIGKILL)
            a.server.wait()
            load.goes_on(80)
            a.server.stop()
            a.start()
            assert eventually(lambda: a.answered() > 0), "the new one gets no work"
            load.goes_on()
        failures = load.failures()
        note(f"{load.done} requests, {len(failures)} failed with the replica: "
             f"{[what[:60] for _, what in failures]}")
        assert load.most_failures_of_a_client() <= 1, failures
        assert all(killed <= at < killed + 10 for at, _ in failures), failures


@balanced("haproxy")
def haproxy_loses_only_what_a_killed_replica_was_answering():
    kill_one(HAProxy)


@balanced("nginx")
def nginx_loses_only_what_a_killed_replica_was_answering():
    kill_one(Nginx)


def overloaded(write, _):
    body = b'{"error":{"message":"Come back.","code":"server_overloaded"}}'
    write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
          b"Retry-After: 7\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def refusals_move_on(make):
    with Pretender(overloaded) as full, Replica() as b, make(full.ports, b.ports) as balancer:
        for i in range(12):
            with Connection(balancer.port) as c:
                same(complete(c, BODIES[i % len(BODIES)])[0], "ok")
        assert full.posts > 0, "the refusing replica was never asked"
        note(f"12 requests, {full.posts} refusals retried")


@balanced("haproxy")
def haproxy_takes_a_refused_request_to_the_other_replica():
    refusals_move_on(HAProxy)


@balanced("nginx")
def nginx_takes_a_refused_request_to_the_other_replica():
    refusals_move_on(Nginx)


def refusal_comes_through(make):
    with Pretender(overloaded) as a, Pretender(overloaded) as b, \
            make(a.ports, b.ports) as balancer:
        answer = balancer.ask("POST", "/v1/completions", BODIES[0])
        same((answer.status, answer.headers["retry-after"], answer.code),
             (503, "7", "server_overloaded"))
        assert a.posts and b.posts, (a.posts, b.posts)
        assert a.posts + b.posts <= 3, "it is asked for too often"


@balanced("haproxy")
def haproxy_hands_on_the_refusal_of_all():
    refusal_comes_through(HAProxy)


@balanced("nginx")
def nginx_hands_on_the_refusal_of_all():
    refusal_comes_through(Nginx)


@balanced("haproxy")
def haproxy_does_not_repeat_what_a_replica_died_of():
    def die(write, _):
        write(b"")  # took the request and closed
    with Pretender(die) as a, Pretender(die) as b, HAProxy(a.ports, b.ports) as balancer:
        same(balancer.ask("POST", "/v1/completions", BODIES[0]).status, 502)
        same(a.posts + b.posts, 1)


def tokens_come_at_once(make):
    """The second event is written only after the client has said that it has the first."""
    from threading import Event
    seen = Event()

    def answer(write, _):
        write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
              b"data: one\n\n")
        write(b"data: two\n\n" if seen.wait(15) else b"data: nobody saw the first\n\n")
    with Pretender(answer) as a, Pretender(answer) as b, make(a.ports, b.ports) as balancer:
        with Connection(balancer.port) as c:
            c.send(request_text("POST", "/v1/completions", {"stream": True}))
            c.until(b"data: one\n\n")
            seen.set()
            c.until(b"data: two\n\n")


@balanced("haproxy")
def haproxy_hands_tokens_on_as_they_come():
    tokens_come_at_once(HAProxy)


@balanced("nginx")
def nginx_hands_tokens_on_as_they_come():
    tokens_come_at_once(Nginx)


def leaving_is_noticed(make):
    with long_model() as folder, Replica(model=folder) as a, make(a.ports, a.ports) as balancer:
        with Connection(balancer.port) as c:
            c.send(request_text("POST", "/v1/completions", {
                "prompt": "The", "max_tokens": 16000, "ignore_eos": True}))
            assert eventually(lambda: a.server.gauge("requests_running") > 0)
        assert eventually(a.server.idle), "the work goes on"
        text = a.server.ask("GET", "/metrics", admin=True).body.decode()
        counts = [line for line in text.splitlines() if line.startswith("fathom_cancelled_total")]
        same(sum(float(line.rsplit(" ", 1)[1]) for line in counts), 1)  # not that it was done


@balanced("haproxy")
def haproxy_passes_on_that_a_client_has_left():
    leaving_is_noticed(HAProxy)


@balanced("nginx")
def nginx_passes_on_that_a_client_has_left():
    leaving_is_noticed(Nginx)


def operators_things_stay_inside(make):
    with Replica() as a, make(a.ports, a.ports) as balancer:
        same(balancer.ask("GET", "/metrics").status, 404)
        same(balancer.ask("POST", "/drain", {}).status, 404)
        same(balancer.ask("GET", "/v1/models").status, 200)


@balanced("haproxy")
def haproxy_keeps_operators_things_inside():
    operators_things_stay_inside(HAProxy)


@balanced("nginx")
def nginx_keeps_operators_things_inside():
    operators_things_stay_inside(Nginx)


if __name__ == "__main__":
    sys.exit(main())
