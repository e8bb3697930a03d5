"""A Cloud Storage server with one bucket, in memory.

It has the part of the JSON API that gcsfs and TensorStore use. Like the real one it keeps whole
objects only, and has neither folders, rename nor append. It numbers each version (generation) of an
object, so that a writer can demand that nobody wrote in between.
"""

import base64
import hashlib
import itertools
import json
import re
import threading
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


class Object(NamedTuple):
    data: bytes
    generation: int


class Bucket:
    """`with Bucket() as bucket:` serves gs://bucket at localhost:bucket.port.

    `bucket.objects` are its contents.
    """

    def __init__(self):
        self.objects: dict[str, Object] = {}
        self._uploads: dict[str, tuple[str, dict]] = {}
        self._generations, self._lock = itertools.count(1), threading.Lock()
        bucket = self

        class Handler(_Handler):
            cloud = bucket

        self._server = ThreadingHTTPServer(("localhost", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def put(self, name, data, query=()):
        """(status, answer) of a write, which a condition on the generation may refuse."""
        with self._lock:
            if not self._allowed(name, dict(query)):
                return 412, {"error": {"code": 412, "message": "conditionNotMet"}}
            self.objects[name] = Object(data, next(self._generations))
            return 200, self.metadata(name)

    def delete(self, name, query=()):
        with self._lock:
            if name not in self.objects:
                return 404, {"error": {"code": 404, "message": "not found"}}
            if not self._allowed(name, dict(query)):
                return 412, {"error": {"code": 412, "message": "conditionNotMet"}}
            del self.objects[name]
            return 204, None

    def _allowed(self, name, query):
        now = self.objects[name].generation if name in self.objects else 0
        return "ifGenerationMatch" not in query or int(query["ifGenerationMatch"]) == now

    def metadata(self, name):
        data, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "id": f"bucket/{name}/{generation}",
            "name": name,
            "bucket": "bucket",
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(data)),
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "crc32c": base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
        }

    def listing(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        with self._lock:
            for name in sorted(self.objects):
                if not name.startswith(prefix) or name < query.get("startOffset", ""):
                    continue
                if "endOffset" in query and name >= query["endOffset"]:
                    continue
                head, cut, _ = (
                    name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                )
                if cut:
                    prefixes.add(prefix + head + delimiter)
                else:
                    items.append(self.metadata(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Bucket

    def log_message(self, *_):
        pass

    def answer(self, status, body=None, headers=()):
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if not isinstance(body, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def parts(self):
        url = urlsplit(self.path)
        return url.path, {
            name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        path, query = self.parts()
        if re.fullmatch(r"/storage/v1/b/bucket/?", path):
            return self.answer(200, {"kind": "storage#bucket", "name": "bucket", "id": "bucket"})
        if re.fullmatch(r"/storage/v1/b/bucket/o/?", path):
            return self.answer(200, self.cloud.listing(query))
        found = re.fullmatch(r"(?:/download)?/storage/v1/b/bucket/o/(.+)", path)
        name = unquote(found[1]) if found else None
        stored = self.cloud.objects.get(name)
        if stored is None:
            return self.answer(404, {"error": {"code": 404, "message": "not found"}})
        if query.get("alt") != "media":
            return self.answer(200, self.cloud.metadata(name))
        if query.get("ifGenerationNotMatch") == str(stored.generation):
            return self.answer(304)
        headers = {
            "x-goog-generation": str(stored.generation),
            "x-goog-stored-content-length": str(len(stored.data)),
        }
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.answer(200, stored.data, headers)
        size = len(stored.data)
        first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first >= size:
            return self.answer(416, b"", headers)
        return self.answer(
            206,
            stored.data[first : last + 1],
            headers | {"Content-Range": f"bytes {first}-{last}/{size}"},
        )

    def do_POST(self):
        path, query = self.parts()
        data = self.body()
        if path == "/resume":
            return self.resume(data, query)
        if path.startswith("/batch/"):
            return self.batch(data)
        copy = re.fullmatch(
            r"/storage/v1/b/bucket/o/(.+)/(?:rewriteTo|copyTo)/b/bucket/o/(.+)", path
        )
        if copy:
            status, answer = self.cloud.put(
                unquote(copy[2]), self.cloud.objects[unquote(copy[1])].data, query
            )
            return self.answer(status, {"done": True, "resource": answer})
        if query.get("uploadType") == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, content = BytesParser().parsebytes(head + data).get_payload()
            return self.answer(
                *self.cloud.put(
                    json.loads(about.get_payload())["name"], content.get_payload(decode=True), query
                )
            )
        if query.get("uploadType") == "resumable":
            name = query.get("name") or json.loads(data)["name"]
            place = (
                f"http://localhost:{self.cloud.port}/resume?upload_id={len(self.cloud._uploads)}"
            )
            self.cloud._uploads[str(len(self.cloud._uploads))] = (
                name,
                {"data": b"", "query": query},
            )
            return self.answer(200, None, {"Location": place})
        return self.answer(*self.cloud.put(query["name"], data, query))

    def do_PUT(self):
        return self.resume(self.body(), self.parts()[1])

    def resume(self, data, query):
        """One piece of an upload; the object appears with the last."""
        name, upload = self.cloud._uploads[query["upload_id"]]
        upload["data"] += data
        if self.headers.get("Content-Range", "").endswith("/*"):
            return self.answer(308, None, {"Range": f"bytes=0-{len(upload['data']) - 1}"})
        return self.answer(*self.cloud.put(name, upload["data"], upload["query"]))

    def do_DELETE(self):
        path, query = self.parts()
        return self.answer(
            *self.cloud.delete(unquote(path.removeprefix("/storage/v1/b/bucket/o/")), query)
        )

    def batch(self, data):
        """Several deletions in one request."""
        answers = []
        for name in re.findall(rb"DELETE [^ ]*/b/bucket/o/([^ ?]+)", data):
            status, _ = self.cloud.delete(unquote(name.decode()))
            answers.append(
                f"--batch\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} x\r\n\r\n\r\n"
            )
        body = ("".join(answers) + "--batch--\r\n").encode()
        return self.answer(200, body, {"Content-Type": "multipart/mixed; boundary=batch"})
