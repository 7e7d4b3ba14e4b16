"""An HTTP proxy in front of an S3 server that breaks requests on purpose, and counts what it broke.

    with FaultyS3(endpoint) as proxy:              # proxy.endpoint is what the client talks to
        proxy.inject(Rule(SLOW_DOWN, "put", times=2), Rule(CUT_GET, share=0.1))
        ...
        proxy.injected[SLOW_DOWN] == 2

Requests are named by what they do (`operation`), not by their method alone. The Host header goes on as the
client sent it, because it is signed. The server lives in threads of this process and ends with the context.
"""

import random
import re
import socket
import struct
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

SLOW_DOWN = "503 SlowDown"
RETRY_AFTER = "503 SlowDown, Retry-After"
INTERNAL = "500 InternalError"
SILENT = "no answer"
SLOW_START = "slow first byte"
RESET = "reset before the answer"
CUT_GET = "body of GET cut"
STALL_GET = "body of GET stalls"
CUT_PUT = "body of PUT cut"
LOST_ANSWER = "done, answer lost"
ERROR_200 = "error inside 200"
FAULTS = (
    *(SLOW_DOWN, RETRY_AFTER, INTERNAL, SILENT, SLOW_START, RESET),
    *(CUT_GET, STALL_GET, CUT_PUT, LOST_ANSWER, ERROR_200),
)

OPERATIONS = ("get", "head", "list", "put", "part", "start", "complete", "abort", "delete", "other")
_WITH_BODY = ("put", "part")
# Where a fault can happen at all; everywhere else it is passed over.
_ONLY = {CUT_GET: ("get", "list"), STALL_GET: ("get", "list"), CUT_PUT: _WITH_BODY, ERROR_200: ("complete",)}


@dataclass(frozen=True)
class Rule:
    """Which requests get which fault. Of several rules that fit, the first one counts."""

    fault: str
    operations: str = ""  # of OPERATIONS, between spaces; "" is all of them
    key: str = ""  # a pattern that is searched in the key, or in the prefix of a listing
    skip: int = 0  # so many fitting requests pass before the first fault
    times: int | None = None  # then so many are broken; None is no end
    share: float = 1.0  # of the fitting requests, drawn with the proxy's seed
    seconds: float = 1.0  # how long a slow one waits, or a silent one, before it is reset

    def fits(self, operation: str, key: str) -> bool:
        return (
            operation in (self.operations.split() or OPERATIONS)
            and operation in _ONLY.get(self.fault, OPERATIONS)
            and re.search(self.key, key, re.DOTALL) is not None
        )


class FaultyS3:
    """The proxy; `injected` counts faults, `breakdown` (fault, operation), `requests` all operations."""

    def __init__(self, upstream: str, *rules: Rule, seed: int = 0):
        self.upstream = urlsplit(upstream).netloc
        self.injected, self.requests, self.breakdown = Counter(), Counter(), Counter()
        self.stopping = threading.Event()
        self._lock, self._random = threading.Lock(), random.Random(seed)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.inject(*rules)

    def inject(self, *rules: Rule) -> None:
        """Replaces all rules and forgets what was counted."""
        with self._lock:
            self._rules, self._fitted = rules, Counter()
            for counter in (self.injected, self.requests, self.breakdown):
                counter.clear()

    def fault(self, operation: str, key: str) -> Rule | None:
        """The rule that breaks this request, if any; counts it."""
        with self._lock:
            self.requests[operation] += 1
            for number, rule in enumerate(self._rules):
                if not rule.fits(operation, key):
                    continue
                self._fitted[number] += 1
                nth = self._fitted[number] - rule.skip
                if nth <= 0 or (rule.times is not None and self._spent(number) >= rule.times):
                    continue
                if rule.share < 1 and self._random.random() >= rule.share:
                    continue
                self._fitted[number, "broken"] += 1
                self.injected[rule.fault] += 1
                self.breakdown[rule.fault, operation] += 1
                return rule
        return None

    def _spent(self, number: int) -> int:
        return self._fitted[number, "broken"]

    def __enter__(self) -> "FaultyS3":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


def operation(method: str, target: str) -> tuple[str, str]:
    """What a request does, of OPERATIONS, and its key (the prefix of a listing)."""
    path, _, query = target.partition("?")
    bucket, _, key = path.lstrip("/").partition("/")
    asked = parse_qs(query, keep_blank_values=True)
    if method == "GET" and not key:
        return "list" if "prefix" in asked or "list-type" in asked else "other", asked.get("prefix", [""])[0]
    key = unquote(key)
    if not key:
        return "other", bucket
    if method == "POST":
        return ("start" if "uploads" in asked else "complete" if "uploadId" in asked else "other"), key
    if "uploadId" in asked:
        return {"PUT": "part", "DELETE": "abort"}.get(method, "other"), key
    return {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete"}.get(method, "other"), key


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that has lost its patience and left
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers must not wait for the acknowledgement of their own head.
    disable_nagle_algorithm = True
    proxy: FaultyS3

    def setup(self) -> None:
        super().setup()
        self.proxy = self.server.proxy
        self.onward = HTTPConnection(self.proxy.upstream, timeout=120)

    def finish(self) -> None:
        self.onward.close()
        super().finish()

    def _serve(self) -> None:
        rule = self.proxy.fault(*operation(self.command, self.path))
        fault = rule.fault if rule else ""
        if fault == CUT_PUT:
            self.rfile.read(max(1, int(self.headers.get("Content-Length") or 0) // 2))
            return self._reset()
        body = self._body()
        if fault in (SLOW_DOWN, RETRY_AFTER, INTERNAL, ERROR_200):
            return self._refuse(fault)
        if fault == SILENT:
            self.proxy.stopping.wait(rule.seconds)
            return self._reset()
        if fault == RESET:
            return self._reset()
        if fault == SLOW_START:
            self.proxy.stopping.wait(rule.seconds)
        answer, data = self._forward(body)
        if fault == LOST_ANSWER:
            return self._reset()
        self._head(answer, len(data))
        if self.command == "HEAD":
            return None
        if fault in (CUT_GET, STALL_GET):
            self.wfile.write(data[: len(data) // 2])
            self.proxy.stopping.wait(rule.seconds if fault == STALL_GET else 0)
            return self._reset()
        self.wfile.write(data)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def _forward(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        for attempt in (1, 2):
            try:
                self.onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection", "transfer-encoding", "content-length"):
                        self.onward.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    self.onward.putheader("Content-Length", str(len(body)))
                self.onward.endheaders(body or None)
                answer = self.onward.getresponse()
                return answer, answer.read()
            except (HTTPException, OSError):
                # The server closed a connection that had been idle.
                self.onward.close()
                if attempt == 2:
                    raise
        raise AssertionError("not reached")

    def _head(self, answer: HTTPResponse, size: int) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "keep-alive"):
                self.send_header(name, value)
        if self.command == "HEAD":
            size = int(answer.getheader("Content-Length") or 0)
        if answer.status != 204:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def _refuse(self, fault: str) -> None:
        code, status = ("SlowDown", 503) if fault in (SLOW_DOWN, RETRY_AFTER) else ("InternalError", 500)
        # S3 answers CompleteMultipartUpload with 200 before it knows how that ends.
        status = 200 if fault == ERROR_200 else status
        text = f"<Error><Code>{code}</Code><Message>injected</Message><RequestId>0</RequestId></Error>"
        data = b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode()
        self.send_response_only(status)
        if fault == RETRY_AFTER:
            self.send_header("Retry-After", "2")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        # Without time to linger, close sends a reset and throws away what was not sent.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        return
