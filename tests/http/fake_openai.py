# SPDX-License-Identifier: Apache-2.0
"""A tiny OpenAI server whose delays are known, for tests of the load generator. Not a model: its text is
always the same."""
import asyncio
import json
import threading
import time


class Fake:
    """Answers on a thread of its own; what it does is set by its attributes, at any time."""

    def __init__(self, **settings):
        self.first_ms, self.gap_ms, self.tokens = 0, 0, 4
        self.piece = 0             # bytes of each write; 0: an event at once
        self.refuse_every = 0      # each n-th request gets 503
        self.break_off = False     # streams end without their end
        self.stall = None          # (seconds after the first request, how long): nothing moves
        self.depths = None         # the answer to /v1/depths; None: 404
        self.tokenizes = False
        self.__dict__.update(settings)
        self.bodies, self.paths, self.arrivals, self.answered = [], [], [], []  # in the order of arrivals
        self.connections = self.open = self.most_open = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self._thread.start()
        self._started.wait()
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _run(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._end.wait()
        server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # a connection may come until the end
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(line.split(":")[1]) for line in head.split("\r\n")
                               if line.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                if not await self._answer(writer, head.split()[1], body):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer, path, body):
        if path == "/v1/models":
            return self._send(writer, 200, {"data": [{"id": "fake"}]})
        if path == "/v1/depths":
            return self._send(writer, 200 if self.depths else 404, self.depths or {"error": {"code": "not_found"}})
        if path == "/tokenize":
            return self._tokenize(writer, json.loads(body))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._generate(writer, path, json.loads(body))
        finally:
            self.open -= 1

    def _tokenize(self, writer, body):
        """A token for each letter that is not blank."""
        if not self.tokenizes:
            return self._send(writer, 404, {"error": {"code": "not_found"}})

        def one(text):
            letters = text.replace(" ", "")
            return {"tokens": [ord(c) for c in letters], "count": len(letters)}
        prompt = body["prompt"]
        return self._send(writer, 200, {"results": [one(t) for t in prompt]} if isinstance(prompt, list) else one(prompt))

    async def _generate(self, writer, path, body):
        now, place = time.monotonic(), len(self.arrivals)
        self.bodies.append(body)
        self.paths.append(path)
        self.arrivals.append(now)
        self.answered.append(None)
        try:
            return await self._answer_late(writer, path, body, now)
        finally:
            self.answered[place] = time.monotonic()

    async def _answer_late(self, writer, path, body, now):
        if self.stall and now - self.arrivals[0] > self.stall[0]:
            _, seconds = self.stall
            self.stall = None
            time.sleep(seconds)  # the whole loop stands still
        if self.refuse_every and len(self.bodies) % self.refuse_every == 0:
            return self._send(writer, 503, {"error": {"code": "server_overloaded"}}, "Retry-After: 1\r\n")
        if body.get("stream"):
            return await self._stream(writer, body)
        await asyncio.sleep((self.first_ms + self.gap_ms * (self.tokens - 1)) / 1000)
        if path == "/v1/embeddings":
            return self._send(writer, 200, {"data": [{"embedding": "AAAA"}], "usage": {"prompt_tokens": 3}})
        return self._send(writer, 200, {"choices": [{"text": "word " * self.tokens, "finish_reason": "length"}],
                                        "usage": {"prompt_tokens": 9, "completion_tokens": self.tokens},
                                        **self._extras(body)})

    def _extras(self, body):
        if not self.depths:
            return {}
        return {"depth": {"used": body["depth"] if isinstance(body.get("depth"), int) else 3, "of": 4},
                "timings": {"queue_ms": 0.5, "predicted_ms": 100.0, "budget_met": True}}

    async def _stream(self, writer, body):
        chat = "messages" in body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(self.first_ms / 1000)
        begun = time.monotonic()
        for i in range(self.tokens):
            last = i + 1 == self.tokens
            if i:  # from the first, so that errors do not add up
                await asyncio.sleep(max(0, begun + i * self.gap_ms / 1000 - time.monotonic()))
            text = {"delta": {"content": "word "}} if chat else {"text": "word "}
            chunk = {"choices": [{"index": 0, **text, "finish_reason": "length" if last else None}]}
            if last or i == 0:
                chunk.update(self._extras(body))
            if self.break_off and last:
                return False
            await self._event(writer, json.dumps(chunk))
        if body.get("stream_options", {}).get("include_usage"):
            await self._event(writer, json.dumps({"choices": [], "usage": {"prompt_tokens": 9,
                                                                           "completion_tokens": self.tokens}}))
        await self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        return True

    async def _event(self, writer, data):
        data = f"data: {data}\n\n".encode()
        step = self.piece or len(data)
        for at in range(0, len(data), step):
            part = data[at:at + step]
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            if self.piece:
                await writer.drain()
                await asyncio.sleep(0)

    @staticmethod
    def _send(writer, status, body, headers=""):
        data = json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return True
