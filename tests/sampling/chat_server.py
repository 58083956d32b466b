"""A real HTTP server on localhost that speaks OpenAI's chat completions with images, and can fail in every
way that servers fail.
"""

import base64
import contextlib
import io
import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from PIL import Image

MODELS = {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "test"}]}


def guess(question: str, seed: int) -> str:
    """An answer in the form that a question of Spatial-SSRL or Actial asks for, without a look."""
    rng = random.Random(seed)
    if "<answer>" in question:
        answer = rng.choice(("left", "right", "none"))
        return f"<think>I guess.</think><answer>{answer}</answer>" if rng.random() < 0.8 else answer
    if "mirrored" in question:
        answer = f"{rng.randrange(4)}-{rng.randrange(2)}"
    elif order := re.search(r"numbers 0 to (\d)", question):
        answer = "-".join(map(str, rng.sample(range(int(order[1]) + 1), int(order[1]) + 1)))
    else:
        answer = rng.choice("ABCD") if "letter" in question else "-".join(rng.sample("123", 3))
    return rf"<think>I guess.</think> \boxed{{{answer}}}" if rng.random() < 0.8 else answer


@dataclass(frozen=True)
class Reply:
    """What a server may send: ``{key}`` in the body is what the request's Authorization header held."""

    body: str
    status: int = 200
    type: str = "application/json"
    headers: tuple = ()


def completion(content=None, **message) -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    common = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny"}
    return json.dumps({**common, "choices": [choice]})


class ChatServer(ThreadingHTTPServer):
    """Answers each request with a box that depends on its seed, or with the boxes of the objects it is told;
    request n goes through ``faults.get(n)`` first.

    Faults: ``"drop"`` closes the connection, ``"hang"`` answers nothing for long, ``"cut"`` ends in the
    middle of the body, ``"slow headers"`` sends headers without end, ``"trickle"`` and ``"endless"`` send a
    body that never ends, a byte now and then or as fast as it is read, a number is that HTTP status, a
    :class:`Reply` is sent as it is. ``models`` is a Reply to whoever asks for the models. Other paths than
    those under /v1 are not found.

    Attributes:
        seen: (text, picture size, request body) of each answered request.
        asked: (path, headers) of every request.
        adds: what every answer ends with, a Reply's ``{key}`` included.
        answers: (text, seed) → answer, in place of boxes.
        most_at_once: the highest number of requests in flight.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, faults=(), models=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.seen, self.count, self.now, self.most_at_once = dict(faults), [], 0, 0, 0
        self.adds = ""
        self.answers = None
        self.models, self.asked = models or Reply(json.dumps(MODELS)), []
        self.statuses, self.lock, self.closing = Counter(), threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.shutdown()
        self.server_close()


NOT_FOUND = Reply('{"detail": "Not Found"}', 404)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers))
        self._send(self.server.models if urlsplit(self.path).path == "/v1/models" else NOT_FOUND)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.asked.append((self.path, self.headers))
        if urlsplit(self.path).path != "/v1/chat/completions":
            return self._send(NOT_FOUND)
        with server.lock:
            number, server.count = server.count, server.count + 1
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
        try:
            self._answer(body, server.faults.get(number, server.faults.get("always")))
        finally:
            with server.lock:
                server.now -= 1

    def _answer(self, body: dict, fault):
        self.server.statuses[fault] += 1
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "hang":
            self.server.closing.wait(30)
            self.close_connection = True
        elif fault == "cut":
            self._send(Reply(completion("a red circle")), cut=20)
        elif fault in ("trickle", "endless"):
            self._send_for_ever(
                b" " if fault == "trickle" else b" " * (1 << 20), 0.02 if fault == "trickle" else 0
            )
        elif fault == "slow headers":
            self._send_headers_for_ever()
        elif isinstance(fault, Reply):
            self._send(fault)
        elif fault:
            again = (("Retry-After", "0.05"),) if fault == 429 else ()
            error = {"error": {"message": f"told to answer {fault}", "type": "test"}}
            self._send(Reply(json.dumps(error), fault, headers=again))
        else:
            time.sleep(0.01)
            picture, *_, text = body["messages"][0]["content"]
            image = Image.open(
                io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition("base64,")[2]))
            )
            image.load()
            self.server.seen.append((text["text"], image.size, body))
            if self.server.answers:
                return self._send(Reply(completion(self.server.answers(text["text"], body["seed"]))))
            # Behind the region: objects of a reference prompt.
            told = re.findall(r"\[[\d., ]+\]", text["text"])[1:]
            boxes = told or [f"[0.{body['seed'] % 4}, 0.1, 0.{body['seed'] % 5 + 5}, 0.9]"]
            said = f" {', '.join(f'a red circle {box}' for box in boxes)}{self.server.adds} "
            self._send(Reply(completion(said)))

    def _send(self, reply: Reply, cut: int = 0):
        data = reply.body.replace("{key}", self.headers.get("Authorization", "")).encode()
        self.send_response(reply.status)
        for name, value in (("Content-Type", reply.type), ("Content-Length", str(len(data))), *reply.headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) - cut])
        if cut:
            self.close_connection = True
            self.connection.close()

    def _send_for_ever(self, part: bytes, pause: float):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.closing.wait(pause):
                self.wfile.write(part)

    def _send_headers_for_ever(self):
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while not self.server.closing.wait(0.02):
                self.wfile.write(b"X-Soon: yes\r\n")

    def log_message(self, *args):
        pass


# Replies that are none.
PAGE = "<html><body>502 Bad Gateway</body></html>"


MALFORMED = {
    "no choices": '{"choices": []}',
    "choices of another kind": '{"choices": {"0": "a dog"}}',
    "a choice of another kind": '{"choices": ["a dog"]}',
    "no choices at all": '{"object": "chat.completion"}',
    "an old completion": '{"choices": [{"text": "a dog", "index": 0}]}',
    "no message": '{"choices": [{"message": null}]}',
    "a number": completion(7),
    "an object": completion({"text": "a dog"}),
    "parts that are none": completion(["a dog"]),
    "a part without text": completion([{"type": "text", "text": None}]),
    "an error with 200": '{"error": {"message": "the engine is dead", "code": 500}}',
    "a list": "[]",
    "null": "null",
    "a page": PAGE,
    "nothing": "",
    "half": '{"choices": [{"mess',
    "deep": "[" * 100_000,
    "a long number": '{"choices": ' + "1" * 5000 + "}",
}
