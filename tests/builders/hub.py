"""A small stand-in of the model hub on the loopback interface: what diffusers and huggingface_hub ask of it
to push a folder and to load it again. Repositories are in memory, and every commit is kept."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class Hub(ThreadingHTTPServer):
    """`repos`: repository id: its commits in order, each (id, files by path). `unknown`: requests that a hub
    would have known what to do with, and this one does not. `wants_token`: repositories are made for those
    who bring one."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.objects, self.unknown = {}, {}, []
        self.wants_token = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def take_the_place_of_the_real_one(self, monkeypatch, cache):
        """For this process, which reads where the hub is when it imports huggingface_hub."""
        constants = huggingface_hub.constants
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", self.url)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def files(self, repo, revision="main"):
        """The files of a commit by path, or None; the last commit is main."""
        return next((files for name, files in reversed(self.repos[repo]) if revision in ("main", name)), None)

    def commit(self, repo, changes):
        files = {**self.files(repo), **changes}
        state = [(path, hashlib.sha1(content).hexdigest()) for path, content in sorted(files.items())]
        name = hashlib.sha1(f"{len(self.repos[repo])}{state}".encode()).hexdigest()
        self.repos[repo].append((name, files))
        return name

    def put_folder(self, repo, folder):
        """As if pushed."""
        self.repos[repo] = [("0" * 40, {})]
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return self.commit(repo, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


@contextmanager
def running_hub():
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Length": len(body), "Content-Type": "application/json"} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code, **headers):
        self.answer({"error": code}, 404, X_Error_Code=code, **headers)

    def route(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, function in ROUTES:
            match = re.fullmatch(pattern, path)
            if method == wanted and match:
                named = match.groupdict()
                if named.get("repo", "") and named["repo"] not in self.server.repos:
                    return self.missing("RepoNotFound")
                return function(self, body=body, **named)
        self.server.unknown.append(f"{self.command} {path}")
        return self.answer({"error": "not in this stand-in"}, 501)

    do_GET = do_HEAD = do_POST = do_PUT = route

    def chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def create(self, body):
        asked = json.loads(body)
        if self.server.wants_token and "Authorization" not in self.headers:
            return self.answer({"error": "Invalid username or password."}, 401)
        repo = f"{asked['organization'] or 'user'}/{asked['name']}"
        if repo in self.server.repos:
            return self.answer({"error": "exists", "url": f"{self.server.url}/{repo}"}, 409)
        self.server.repos[repo] = [(hashlib.sha1(repo.encode()).hexdigest(), {})]
        return self.answer({"url": f"{self.server.url}/{repo}"})

    def info(self, body, repo, revision="main"):
        files = self.server.files(repo, revision)
        if files is None:
            return self.missing("RevisionNotFound")
        name = self.server.repos[repo][-1][0] if revision == "main" else revision
        return self.answer({"id": repo, "sha": name, "siblings": [{"rfilename": path} for path in files]})

    def tree(self, body, repo, revision):
        return self.answer(
            [
                {"type": "file", "path": path, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
                for path, content in self.server.files(repo, revision).items()
            ]
        )

    def resolve(self, body, repo, revision, path):
        files = self.server.files(repo, revision)
        if files is None:
            return self.missing("RevisionNotFound")
        name = self.server.repos[repo][-1][0] if revision == "main" else revision
        if path not in files:
            return self.missing("EntryNotFound", X_Repo_Commit=name)
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self.answer(
            files[path], Content_Type="application/octet-stream", ETag=etag, X_Repo_Commit=name
        )

    def preupload(self, body, repo, revision):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer({"files": files})

    def batch(self, body, repo):
        objects = [
            item | {"actions": {"upload": {"href": f"{self.server.url}/objects/{item['oid']}"}}}
            for item in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self.answer({"error": "damaged on the way"}, 400)
        self.server.objects[oid] = body
        return self.answer({})

    def commit(self, body, repo, revision):
        changes = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                changes[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                changes[line["value"]["path"]] = self.server.objects[line["value"]["oid"]]
        name = self.server.commit(repo, changes)
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{name}", "commitOid": name})

    def yaml(self, body):
        self.answer({"errors": [], "warnings": []})


ROUTES = (
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.yaml),
    ("GET", rf"/api/models/{REPO}", _Handler.info),
    ("GET", rf"/api/models/{REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/objects/(?P<oid>\w+)", _Handler.put),
    ("GET", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
)
