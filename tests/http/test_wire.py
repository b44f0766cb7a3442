#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""HTTP itself: smuggling, limits, timeouts, versions, methods, headers."""
import json
import sys
import time

from harness import PATIENCE, Server, eventually, in_background, main, request_text, same, test

BODY = json.dumps({"prompt": "hello", "max_tokens": 2})
SMUGGLED = "GET /livez HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def refused(server, head, body=""):
    """The request is answered 400 once, and the connection ends: nothing behind it is served."""
    with server.connect() as c:
        c.send(head + "\r\n\r\n" + body)
        answer = c.answer()
        same((answer.status, answer.code), (400, "invalid_request"))
        same(answer.headers.get("connection"), "close")
        assert c.ended(), "something after the refused request was answered"


@test
def content_length_with_transfer_encoding_is_refused(server):
    refused(server, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
            "Transfer-Encoding: chunked", "0\r\n\r\n" + SMUGGLED)


@test
def two_content_lengths_are_refused(server):
    refused(server, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
            f"Content-Length: {len(SMUGGLED)}", SMUGGLED)


@test
def a_blank_before_the_colon_is_refused(server):
    refused(server, f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length : {len(SMUGGLED)}",
            SMUGGLED)


@test
def other_transfer_encodings_are_refused(server):
    for encoding in ("gzip, chunked", "identity", "xchunked", "chunked, chunked"):
        refused(server, "POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
                f"Transfer-Encoding: {encoding}", "0\r\n\r\n" + SMUGGLED)


@test
def http_1_0_with_transfer_encoding_is_refused(server):
    refused(server, "POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n" + SMUGGLED)


@test
def http_1_1_needs_exactly_one_host(server):
    refused(server, "GET /livez HTTP/1.1\r\nAccept: */*")
    refused(server, "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b")


@test
def a_nul_in_the_address_is_refused(server):
    refused(server, "GET /livez%00 HTTP/1.1\r\nHost: a")


@test
def control_bytes_in_headers_are_refused(server):
    refused(server, "GET /livez HTTP/1.1\r\nHost: a\r\nX-A: b\x01c")


@test
def nonsense_lengths_are_refused(server):
    for length in ("-1", "0x10", "1e3", ""):
        with server.connect() as c:
            c.send(f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
            same(c.answer().status, 400)


@test
def garbage_never_hangs():
    with Server("--header-timeout", "500ms") as s:
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
                     b"GET\r\n\r\n", b"\r\n\r\n\x00\x00\r\n\r\n", b"A" * 200 + b"\r\n\r\n"):
            with s.connect() as c:
                c.send(data)
                try:
                    assert c.answer().status in (400, 405, 501, 505)
                except (EOFError, ConnectionResetError):
                    pass
        same(s.ask("GET", "/livez").status, 200)


@test
def oversized_heads_are_refused(server):
    with server.connect() as c:
        c.send("GET /livez HTTP/1.1\r\nHost: a\r\nX-Big: " + "x" * 60000 + "\r\n\r\n")
        same(c.answer().status, 431)
    with server.connect() as c:
        c.send("GET /" + "x" * 60000 + " HTTP/1.1\r\nHost: a\r\n\r\n")
        same(c.answer().status, 414)


@test
def many_small_headers_are_fine(server):
    headers = {f"X-{i}": "y" for i in range(200)}
    same(server.ask("GET", "/livez", headers=headers).status, 200)


@test
def strange_methods_are_405(server):
    for method in ("PUT", "PATCH", "TRACE", "BREW"):
        answer = server.ask(method, "/v1/models")
        same((answer.status, answer.code), (405, "method_not_allowed"))
        same(answer.headers["allow"], "GET, HEAD, OPTIONS")
    with server.connect() as c:
        c.send("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n")
        assert c.answer().status in (400, 404, 405)


@test
def an_unknown_path_names_the_nearest_route(server):
    answer = server.ask("POST", "/v1/completion", {})
    same((answer.status, answer.code), (404, "not_found"))
    assert "/v1/completions" in answer.json()["error"]["message"]
    assert "/v1/models" in server.ask("GET", "/v1/model").json()["error"]["message"]


@test
def head_answers_like_get_without_a_body(server):
    for path in ("/livez", "/v1/models", "/v1/depths", "/", "/openapi.json", "/metrics"):
        get, head = server.ask("GET", path), server.ask("HEAD", path)
        same((head.status, head.body), (get.status, b""))
        same(head.headers["content-type"], get.headers["content-type"])
    with server.connect() as c:  # nothing of a body comes before the next answer
        c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        same(c.answer(body=False).status, 200)
        same(c.answer().json()["status"], "live")


@test
def options_answers_with_allow(server):
    answer = server.ask("OPTIONS", "/v1/completions")
    same((answer.status, answer.headers["allow"], answer.body), (204, "POST, OPTIONS", b""))
    assert "POST" in server.ask("OPTIONS", "*").headers["allow"]
    same(server.ask("OPTIONS", "/nothing").status, 404)


@test
def the_address_may_be_absolute_or_escaped(server):
    same(server.ask("GET", "http://test/livez?x=1").status, 200)
    same(server.ask("GET", "/v1/models/tiny%2Dopt%402").json()["id"], "tiny-opt@2")


@test
def media_types_are_checked(server):
    body = {"prompt": "a", "max_tokens": 1}
    for given, status in (("application/json; charset=utf-8", 200), ("APPLICATION/JSON", 200),
                          ("text/plain", 415), ("application/x-www-form-urlencoded", 415),
                          ("multipart/form-data; boundary=x", 415)):
        same(server.complete(headers={"Content-Type": given}, **body).status, status)
    with server.connect() as c:
        c.send(f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\n\r\n"
               + BODY)
        same(c.answer().status, 200)
    answer = server.complete(headers={"Content-Encoding": "gzip"}, **body)
    same((answer.status, answer.code), (415, "unsupported_media_type"))
    same(server.complete(headers={"Content-Encoding": "identity"}, **body).status, 200)


@test
def request_ids_are_echoed_or_made(server):
    answer = server.ask("GET", "/livez", headers={"X-Request-Id": "abc-1.2_3"})
    same(answer.headers["x-request-id"], "abc-1.2_3")
    for bad in ("a b", "x" * 129, "<script>", ""):
        made = server.ask("GET", "/livez", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert made != bad and made.startswith("req_"), made
    error = server.ask("GET", "/nothing", headers={"X-Request-Id": "mine"}).json()["error"]
    same(error["request_id"], "mine")


@test
def a_kept_connection_serves_many_requests(server):
    with server.connect() as c:
        for i in range(50):
            c.send(request_text("GET", "/livez"))
            same(c.answer().status, 200)
        c.send(request_text("POST", "/v1/completions", b"{bad", {}))
        same(c.answer().status, 400)  # a refusal does not end it
        c.send(request_text("GET", "/nothing"))
        same(c.answer().status, 404)
        c.send(request_text("GET", "/livez"))
        same(c.answer().status, 200)


@test
def pipelined_requests_are_answered_in_order(server):
    with server.connect() as c:
        c.send(request_text("POST", "/v1/completions", {"prompt": "a", "max_tokens": 20})
               + request_text("GET", "/livez")
               + request_text("POST", "/v1/completions",
                              {"prompt": "b", "max_tokens": 3, "stream": True})
               + request_text("GET", "/v1/models"))
        same(c.answer().json()["object"], "text_completion")
        same(c.answer().json()["status"], "live")
        assert c.answer().body.endswith(b"data: [DONE]\n\n")
        same(c.answer().json()["object"], "list")


@test
def a_request_in_single_bytes_is_understood(server):
    with server.connect() as c:
        for byte in request_text("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}):
            c.send(bytes([byte]))
        same(c.answer().status, 200)


@test
def a_chunked_body_is_taken(server):
    with server.connect() as c:
        c.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (BODY[:5], BODY[5:]):
            c.send(f"{len(part):x}\r\n{part}\r\n")
        c.send("0\r\n\r\n")
        same(c.answer().status, 200)


@test
def expect_100_continue_is_honoured(server):
    head = ("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            "Expect: 100-continue\r\nContent-Length: ")
    with server.connect() as c:
        c.send(head + f"{len(BODY)}\r\n\r\n")
        same(c.head()[1], 100)
        c.send(BODY)
        same(c.answer().status, 200)
    with server.connect() as c:
        c.send(head + "99999999\r\n\r\n")
        answer = c.answer()  # without a 100 before it
        same((answer.status, answer.code), (413, "request_too_large"))
        assert c.ended()


@test
def a_large_body_is_refused_before_it_is_read(server):
    with server.connect() as c:
        c.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n")
        answer = c.answer()
        same((answer.status, answer.headers["connection"]), (413, "close"))


@test
def a_large_chunked_body_is_refused_after_it_is_dropped(server):
    with server.connect() as c:
        c.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        part = b" " * 65536
        for _ in range(20):
            c.send(b"10000\r\n" + part + b"\r\n")
        c.send("0\r\n\r\n")
        same(c.answer().code, "request_too_large")


@test
def the_largest_body_is_taken(server):
    body = json.dumps({"prompt": "hello", "max_tokens": 1}).encode()
    body += b" " * (1048576 - len(body))
    same(server.ask("POST", "/v1/completions", body).status, 200)


@test
def http_1_0_is_served(server):
    with server.connect() as c:
        c.send("GET /livez HTTP/1.0\r\n\r\n")
        same(c.answer().status, 200)
        assert c.ended()
    with server.connect() as c:
        c.send("GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = c.answer()
        same(answer.headers.get("connection", "").lower(), "keep-alive")
        c.send("GET /livez HTTP/1.0\r\n\r\n")
        same(c.answer().status, 200)


@test
def http_1_0_streams_end_by_close(server):
    body = json.dumps({"prompt": "a", "max_tokens": 3, "stream": True})
    with server.connect() as c:
        c.send(f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        answer = c.answer()
        assert "transfer-encoding" not in answer.headers
        assert answer.body.endswith(b"data: [DONE]\n\n")


@test
def cross_origin_requests_need_an_allowed_origin(server):
    plain = server.ask("GET", "/livez", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in plain.headers
    with Server("--cors-origin", "https://app.example") as s:
        good = s.ask("GET", "/livez", headers={"Origin": "https://app.example"})
        same(good.headers["access-control-allow-origin"], "https://app.example")
        assert "X-Depth" in good.headers["access-control-expose-headers"]
        bad = s.ask("GET", "/livez", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in bad.headers
        preflight = s.ask("OPTIONS", "/v1/completions", headers={
            "Origin": "https://app.example", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers":
                "authorization,content-type,x-stainless-os,x-evil"})
        same(preflight.status, 204)
        allowed = preflight.headers["access-control-allow-headers"].split(", ")
        assert {"authorization", "content-type", "x-stainless-os"} <= set(allowed)
        assert "x-evil" not in allowed
        assert "POST" in preflight.headers["access-control-allow-methods"]


@test
def slow_clients_are_cut_by_absolute_deadlines():
    with Server("--header-timeout", "600ms", "--body-timeout", "600ms",
                "--idle-timeout", "1s") as s:
        def trickle():
            start = time.monotonic()
            with s.connect() as c:
                try:
                    c.send("GET /livez HTTP/1.1\r\nHost: ")
                    while time.monotonic() - start < PATIENCE:  # never silent for long, never done
                        c.send("a")
                        time.sleep(0.1)
                except OSError:
                    pass
                return time.monotonic() - start

        def trickle_body():
            with s.connect() as c:
                c.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
                for _ in range(4):
                    time.sleep(0.1)
                    c.send(" ")
                answer = c.answer()
                return answer.status, answer.code, c.ended()

        def rest():
            with s.connect() as c:
                c.send(request_text("GET", "/livez"))
                c.answer()
                start = time.monotonic()
                return c.ended() and time.monotonic() - start
        threads = [in_background(f) for f in (trickle, trickle_body, rest)]
        for t in threads:
            t.join()
        slow, body, idle = (t.result[0] for t in threads)
        assert 0.4 < slow < PATIENCE, slow
        same(body, (408, "request_timeout", True))
        assert idle > 0.8, idle


@test
def the_log_has_one_line_for_each_request(server):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    server.complete(prompt="secret words", max_tokens=3, depth=2, seed=1,
                    headers={"X-Request-Id": "logged-1", "traceparent": trace})

    def logged():
        return [e for e in server.lines("request") if e["request_id"] == "logged-1"]
    eventually(logged)  # it is written after the answer
    lines = logged()
    same(len(lines), 1)
    line = lines[0]
    same((line["method"], line["route"], line["status"], line["depth"], line["traceparent"]),
         ("POST", "/v1/completions", 200, 2, trace))
    same(line["tokens"], 3)
    assert "secret" not in server.errors()


if __name__ == "__main__":
    sys.exit(main(server=Server))
