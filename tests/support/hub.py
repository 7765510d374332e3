"""A local server in place of Hugging Face's hub and other servers of public files."""

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
    """Answers with the files under `root`.

    The repositories of the hub are in datasets/owner/name and models/owner/name.

    breaks: name of a file -> number of bytes after which its next transfer breaks off;
    ranges: (name of a file, first requested byte) of all requests, in their order.
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
        if match := re.fullmatch(r"api/(datasets|models)/([^/]+/[^/]+)(/revision/\w+)?", path):
            return self.send_json(self.describe(*match.groups()[:2]))
        if match := re.fullmatch(r"api/(datasets|models)/([^/]+/[^/]+)/tree/\w+", path):
            return self.send_json(self.list_files(*match.groups()))
        if match := re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            kind, name, file = match.groups()
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

    def list_files(self, kind: str, name: str) -> list[dict] | None:
        """Return a repository's files as the hub's API does; None if the repository is missing."""
        folder = self.root / kind / name
        if not folder.is_dir():
            return None
        return [
            {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size,
             "oid": hashlib.sha1(str(file).encode()).hexdigest()}
            for file in sorted(folder.rglob("*")) if file.is_file()
        ]  # fmt: skip

    def describe(self, kind: str, name: str) -> dict | None:
        """Return the description of a repository as the hub's API does; None if it is missing."""
        files = self.list_files(kind, name)
        if not files:
            return None
        siblings = [{"rfilename": file["path"], "size": file["size"]} for file in files]
        return {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False,
                "downloads": 0, "likes": 0, "cardData": {"license": "a-licence"}}  # fmt: skip

    def send_json(self, content: dict | list | None) -> None:
        """Send `content`, or the hub's error for a missing repository if it is empty."""
        body = json.dumps(content or {"error": "Repository not found"}).encode()
        self.send_response(200 if content else 404)
        if not content:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, file: Path) -> None:
        """Send a file, or the part of it that the request's Range asks for."""
        content, start = file.read_bytes(), 0
        if range_match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(range_match[1])
        if self.command == "GET":
            self.ranges.append((file.name, start))
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if range_match else 200)
        if range_match:
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
    """Serve the files under `root`; yield the handler's class, whose `url` is the server's."""
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
