"""A real HTTP server on localhost that speaks OpenAI's chat completions with images, and can fail in every way that servers fail."""

import base64
import io
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


class ChatServer(ThreadingHTTPServer):
    """Answers each request with a box that depends on its seed, or with the boxes of the objects it is told; request n goes through ``faults.get(n)`` first.

    Faults: ``"drop"`` closes the connection, ``"hang"`` answers nothing for long, a number is that HTTP status.

    Attributes:
        seen: (text, picture size, request body) of each answered request.
        most_at_once: the highest number of requests in flight.
    """

    daemon_threads = True

    def __init__(self, faults=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.seen, self.count, self.now, self.most_at_once = dict(faults), [], 0, 0, 0
        self.statuses, self.lock, self.closing = Counter(), threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "test"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
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
        elif fault:
            self._reply(fault, {"error": {"message": f"told to answer {fault}", "type": "test"}})
        else:
            time.sleep(0.01)
            picture, text = body["messages"][0]["content"]
            image = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])))
            image.load()
            self.server.seen.append((text["text"], image.size, body))
            told = re.findall(r"\[[\d., ]+\]", text["text"])[1:]  # behind the region: objects of a reference prompt
            boxes = told or [f"[0.{body['seed'] % 4}, 0.1, 0.{body['seed'] % 5 + 5}, 0.9]"]
            said = f" {', '.join(f'a red circle {box}' for box in boxes)} "
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._reply(200, {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]})

    def _reply(self, status: int, content: dict):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0.05")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass
