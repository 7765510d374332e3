"""A server on this machine that stands for where public files come from, hub and others."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class Handler(BaseHTTPRequestHandler):
    """Files under `root`; a hub's repository lies in datasets/owner/name or models/owner/name.

    breaks: name of a file -> bytes after which its next transfer breaks off; ranges: the first
    bytes that were asked for of each file, in turn.
    """

    root: Path
    breaks: dict[str, int]
    ranges: list[tuple[str, int]]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if asked := re.fullmatch(r"api/(datasets|models)/([^/]+/[^/]+)(/revision/\w+)?", path):
            return self.say(self.describe(*asked.groups()[:2]))
        if asked := re.fullmatch(r"api/(datasets|models)/([^/]+/[^/]+)/tree/\w+", path):
            return self.say(self.list(*asked.groups()))
        if asked := re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            kind, name, file = asked.groups()
            path = f"{kind or 'models/'}{name}/{file}"
        file = self.root / path
        if not file.is_file():
            self.send_response(404)
            if "resolve" in self.path:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.send_file(file)

    def list(self, kind: str, name: str) -> list | None:
        folder = self.root / kind / name
        return folder.is_dir() and [
            {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size,
             "oid": hashlib.sha1(str(file).encode()).hexdigest()}
            for file in sorted(folder.rglob("*")) if file.is_file()
        ]  # fmt: skip

    def describe(self, kind: str, name: str) -> dict | None:
        files = self.list(kind, name)
        siblings = [{"rfilename": f["path"], "size": f["size"]} for f in files or []]
        return files and {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [],
                          "private": False, "downloads": 0, "likes": 0,
                          "cardData": {"license": "a-licence"}}  # fmt: skip

    def say(self, content) -> None:
        body = json.dumps(content or {"error": "Repository not found"}).encode()
        self.send_response(200 if content else 404)
        if not content:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, file: Path) -> None:
        content, start = file.read_bytes(), 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
        if self.command == "GET":
            self.ranges.append((file.name, start))
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            end = self.breaks.pop(file.name, len(content))
            self.wfile.write(content[start:end])
            self.close_connection = end < len(content)


@contextmanager
def serve(root: Path):
    """The handler's class, with `url`, while a server answers with the files under `root`."""
    handler = type("Served", (Handler,), {"root": root, "breaks": {}, "ranges": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler
    finally:
        server.shutdown()
        server.server_close()
