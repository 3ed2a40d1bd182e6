"""A data hub of one machine: the few addresses that `datasets` and `huggingface_hub` ask, over a folder of owner/name/files."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse


COMMIT = "0" * 40


class FakeHub:
    """Serves `root`; `break_after` bytes of data files are sent before connections are cut, until it is set to None."""

    def __init__(self, root):
        self.root, self.break_after, self.requests = Path(root), None, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                self.answer(body=True, posted=self.rfile.read(length))

            def answer(self, body, posted=b""):
                url = urlparse(self.path)
                hub.requests.append((self.command, self.path))
                parts = [unquote(part) for part in url.path.strip("/").split("/")]
                if parts[:2] == ["api", "datasets"]:
                    return self.send_api(parts[2:], parse_qs(url.query), posted)
                if parts[0] == "datasets" and "resolve" in parts:
                    return self.send_data(hub.root / parts[1] / parts[2] / "/".join(parts[5:]), body)
                return self.send_json({"error": "not found"}, 404)

            def send_api(self, parts, query, posted):
                folder = hub.root / parts[0] / parts[1]
                if not folder.is_dir():
                    return self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                if parts[2:3] == ["tree"]:
                    below = "/".join(parts[4:])
                    if not (folder / below).is_dir():
                        return self.send_json({"error": "no entry"}, 404, {"X-Error-Code": "EntryNotFound"})
                    recursive = query.get("recursive", ["False"])[0].lower() == "true"
                    found = (folder / below).rglob("*") if recursive else (folder / below).iterdir()
                    return self.send_json([describe(folder, path) for path in sorted(found)])
                if parts[2:3] == ["paths-info"]:
                    wanted = parse_qs(posted.decode()).get("paths") or json.loads(posted or b"{}").get("paths", [])
                    wanted = [wanted] if isinstance(wanted, str) else wanted
                    return self.send_json([describe(folder, folder / p) for p in wanted if (folder / p).exists()])
                files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                siblings = [{"rfilename": str(f.relative_to(folder)), "size": f.stat().st_size} for f in files]
                name = f"{parts[0]}/{parts[1]}"
                return self.send_json({"id": name, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []})

            def send_data(self, path, body):
                if not path.is_file():
                    return self.send_json({"error": "no entry"}, 404, {"X-Error-Code": "EntryNotFound"})
                content = path.read_bytes()
                headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
                status, start = 200, 0
                if "Range" in self.headers:
                    first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                    status, start = 206, int(first)
                    stop = int(last) + 1 if last else len(content)
                    headers["Content-Range"] = f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"
                    content = content[start:stop]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body and path.suffix == ".parquet" and hub.break_after is not None:
                    self.wfile.write(content[: hub.break_after])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()
                elif body:
                    self.wfile.write(content)

            def send_json(self, content, status=200, headers=None):
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def etag(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


def describe(folder, path):
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "1" * 40, "size": 0}
    return {"type": "file", "path": name, "oid": etag(path), "size": path.stat().st_size}
