# SPDX-License-Identifier: Apache-2.0
"""Servers under test: this one and llama-server, behind the same few calls; and clients that keep them busy."""
import concurrent.futures
import http.client
import json
import os
import random
import socket
import subprocess
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that answers on self.host."""

    def post(self, path, body):
        connection = http.client.HTTPConnection(self.host, timeout=600)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{self.host}{path}: {response.status} {data[:500]}")
        return json.loads(data)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


class Fathom(Server):
    def __init__(self, binary, model, *flags):
        self.process = subprocess.Popen([binary, "serve", "--model", model, "--port", "0", "--log-level", "warn", *flags],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        self.host = line.split()[-1].removeprefix("http://")

    def complete(self, prompt, tokens, depth=None):
        """Token ids of a greedy answer that does not end early."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "return_token_ids": True,
                "cache_prompt": False, **({"depth": depth} if depth else {})}
        return self.post("/v1/completions", body)["choices"][0]["token_ids"]


class Llama(Server):
    """llama-server with a slot for each of `streams` texts of at most `context` tokens."""

    def __init__(self, program, file, threads, streams, context, passive=False):
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        environment = {**os.environ, **({"OMP_WAIT_POLICY": "passive"} if passive else {})}
        waits = ["--poll", "0", "--poll-batch", "0"] if passive else []
        self.process = subprocess.Popen([program, "-m", file, "--port", str(port), "-t", str(threads), "-np", str(streams), "-c",
                                         str(streams * context), "-cb", "--no-webui", *waits], env=environment,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait()

    def wait(self):
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection(self.host, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit("llama-server did not start")

    def complete(self, prompt, tokens, depth=None):
        del depth  # a file has one
        answer = self.post("/completion", {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True,
                                           "cache_prompt": False, "return_tokens": True})
        if answer["tokens_predicted"] != tokens:
            raise RuntimeError(f"{answer['tokens_predicted']} tokens instead of {tokens}")
        return answer["tokens"]


def resident_bytes(alive):
    """Memory of these processes together: what is theirs alone, and each mapped file's pages once, whoever else maps them too."""
    own, files = 0, {}
    for server in alive:
        with open(f"/proc/{server.process.pid}/smaps", encoding="utf-8") as smaps:
            for line in smaps:
                words = line.split()
                if "-" in words[0]:
                    file = tuple(words[2:5]) if words[4] != "0" else None  # offset, device, inode
                elif words[0] == "Rss:":
                    size = int(words[1]) * 1024
                    if file:
                        files[file] = max(files.get(file, 0), size)
                    else:
                        own += size
    return own + sum(files.values())


def prompts(seed, vocab, count, length):
    rng = random.Random(seed)
    return [[rng.randrange(vocab // 10, vocab) for _ in range(length)] for _ in range(count)]


def load(streams, requests):
    """streams: (server, depth, prompts, tokens), each a client that sends its prompts one after another, `requests` times.

    Returns (seconds until all were answered, tokens, tokens times depth)."""
    def client(stream):
        server, depth, texts, tokens = stream
        for i in range(requests):
            if len(server.complete(texts[i % len(texts)], tokens, depth)) != tokens:
                raise RuntimeError("an answer ended early")
        return requests * tokens, requests * tokens * (depth or 0)

    with concurrent.futures.ThreadPoolExecutor(len(streams)) as pool:
        start = time.monotonic()
        done = list(pool.map(client, streams))
        seconds = time.monotonic() - start
    return seconds, sum(d[0] for d in done), sum(d[1] for d in done)
