"""A stand-in for the Hub: it serves files, and takes an upload where the Hub would, in the Hub's own words.

It speaks the protocol as the real client asks it: creation, validation of a card, pre-upload, LFS objects (batch, PUT),
commits with a parent, trees with git's and LFS's hashes, and files by revision and range. Faults can be put in.

What it refuses is written down here from the Hub's answers and documents, apart from the code under test: the list of
licences as its own error names it (huggingface_hub's issue 4218), the card's metadata (hub-docs' modelcard.md), names
(huggingface_hub's `validate_repo_id`, which mirrors the Hub's rule), and results (hub-docs' eval_results.yaml).
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_plantedForThisTest"
READER = "hf_mayOnlyRead"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LICENCES = """apache-2.0, mit, openrail, bigscience-openrail-m, creativeml-openrail-m, bigscience-bloom-rail-1.0,
bigcode-openrail-m, afl-3.0, artistic-2.0, bsl-1.0, bsd, bsd-2-clause, bsd-3-clause, bsd-3-clause-clear, c-uda, cc,
cc0-1.0, cc-by-2.0, cc-by-2.5, cc-by-3.0, cc-by-4.0, cc-by-sa-3.0, cc-by-sa-4.0, cc-by-nc-2.0, cc-by-nc-3.0,
cc-by-nc-4.0, cc-by-nd-4.0, cc-by-nc-nd-3.0, cc-by-nc-nd-4.0, cc-by-nc-sa-2.0, cc-by-nc-sa-3.0, cc-by-nc-sa-4.0,
cdla-sharing-1.0, cdla-permissive-1.0, cdla-permissive-2.0, wtfpl, ecl-2.0, epl-1.0, epl-2.0, etalab-2.0, eupl-1.1,
eupl-1.2, agpl-3.0, gfdl, gpl, gpl-2.0, gpl-3.0, lgpl, lgpl-2.1, lgpl-3.0, isc, h-research, intel-research, lppl-1.3c,
ms-pl, apple-ascl, apple-amlr, mpl-2.0, odc-by, odbl, openmdw-1.0, openrail++, osl-3.0, postgresql, ofl-1.1, ncsa,
unlicense, zlib, pddl, lgpl-lr, deepfloyd-if-license, fair-noncommercial-research-license, llama2, llama3, llama3.1,
llama3.2, llama3.3, llama4, grok2-community, gemma, unknown, other""".replace("\n", " ").split(", ")
NAME = re.compile(r"(?!.*(?:--|\.\.))(?![-.])[A-Za-z0-9._-]{1,96}(?<![-.])(?<!\.git)")
Answer = tuple[int, dict[str, str], bytes]


class Hub:
    """What a test's Hub holds, was asked and refuses."""

    def __init__(self) -> None:
        self.address = ""
        self.seen: list[dict[str, Any]] = []
        self.repositories: dict[str, dict[str, bytes]] = {}  # what was made here, by its name
        self.public: set[str] = set()  # those of them that all may see
        self.served: dict[str, dict[str, bytes]] = {}  # what can be downloaded, by OWNER/NAME@COMMIT
        self.faults: list[tuple[str, Answer]] = []  # paths that match are answered so
        self.passing: list[tuple[str, Answer]] = []  # such a fault, which is gone after one answer
        self.commits: dict[str, list[dict[str, Any]]] = {}  # of each repository, the newest first
        self.lfs = ""  # names of files that match go to LFS, not into the commit itself
        self.objects: dict[str, bytes] = {}  # what is in LFS, by its sha256
        self.loses: set[str] = set()  # files that a commit is said to take, and does not
        self.spoils: set[str] = set()  # files whose bytes are others when they are downloaded
        self.cuts = 0  # so many downloads end after half of their bytes
        self.meanwhile: str | None = None  # a title: somebody else commits under it before the next commit
        self.delay = 0.0  # seconds before an answer

    def paths(self) -> list[str]:
        """The paths that were asked for."""
        return [request["path"] for request in self.seen]


def page(status: int, text: str = "<html><body>Sign in to the network</body></html>") -> Answer:
    """A web page, as a proxy answers."""
    return status, {"Content-Type": "text/html; charset=utf-8"}, text.encode()


def refusal(status: int, message: str, **headers: str) -> Answer:
    """An error in the Hub's form."""
    said = {"X-Error-Message": message.replace("\n", " "), **{key.replace("_", "-"): v for key, v in headers.items()}}
    return status, {"Content-Type": "application/json", **said}, json.dumps({"error": message}).encode()


def metadata_errors(card: str, files: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """What the Hub has against a card's metadata; `files` are those beside it."""
    block = re.match(r"---[\n\r]+([\S\s]*?)[\n\r]+---[\n\r]", card)
    data = yaml.safe_load(block[1]) if block else {}
    found = []
    licence = data.get("license")
    if licence is not None and licence not in LICENCES:
        found.append(f'"license" must be one of [{", ".join(LICENCES)}, array]')
    if licence == "other":
        if not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license_name") or "")):
            found.append('"license_name" is required, as an id, when "license" is other')
        link = str(data.get("license_link") or "")
        if not (link.startswith("https://") or link in ("LICENSE", "LICENSE.md")) and "LICENSE" not in files:
            found.append('"license_link" must be one of [LICENSE, LICENSE.md] or a valid uri')
    for field, kind in (("base_model", "models"), ("datasets", "datasets")):
        values = data.get(field) or []
        for value in [values] if isinstance(values, str) else values:
            if not all(NAME.fullmatch(part) for part in value.split("/")) or value.count("/") > 1:
                found.append(f'"{field}" with value "{value}" is not valid. Use an id from https://hf.co/{kind}.')
    for number, model in enumerate(data.get("model-index") or []):
        place = f'"model-index[{number}]'
        if not model.get("name"):
            found.append(f'{place}.name" is required')
        for result in model.get("results") or []:
            if not (result.get("task") or {}).get("type"):
                found.append(f'{place}.results.task.type" is required')
            found += [
                f'{place}.results.dataset.{k}" is required' for k in ("type", "name") if not result["dataset"].get(k)
            ]
            found += [
                f'{place}.results.metrics.{k}" is required'
                for metric in result["metrics"] for k in ("type", "value") if metric.get(k) is None
            ]  # fmt: skip
    return found


def results_errors(text: bytes) -> list[str]:
    """What the Hub has against a file of `.eval_results/`."""
    entries = yaml.safe_load(text)
    if not isinstance(entries, list) or not entries:
        return ["a list of results is expected"]
    found = []
    for entry in entries:
        dataset = entry.get("dataset") or {}
        found += [f'"dataset.{key}" is required' for key in ("id", "task_id") if not isinstance(dataset.get(key), str)]
        if not isinstance(entry.get("value"), int | float):
            found.append('"value" is required')
        if unknown := entry.keys() - {"dataset", "value", "verifyToken", "date", "source", "notes"}:
            found.append(f'"{min(unknown)}" is not allowed')
        if unknown := dataset.keys() - {"id", "task_id", "revision"}:
            found.append(f'"dataset.{min(unknown)}" is not allowed')
    return found


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer(self._note("") or self._read())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self._answer(self._note(body) or self._written(body))

    def _note(self, body: str) -> Answer | None:
        token = self.headers.get("Authorization")
        self.hub.seen.append({"path": self.path, "authorization": token, "body": body})
        for number, (pattern, answer) in enumerate(self.hub.passing):
            if re.search(pattern, self.path):
                del self.hub.passing[number]
                return answer
        return next((answer for pattern, answer in self.hub.faults if re.search(pattern, self.path)), None)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        refused = self._note("")
        if refused is None:
            self.hub.objects[self.path.removeprefix("/lfs/")] = data
        self._answer(refused or (200, {}, b""))

    def _account(self) -> dict[str, Any] | None:
        role = {f"Bearer {TOKEN}": "write", f"Bearer {READER}": "read"}.get(self.headers.get("Authorization", ""))
        orgs = [{"name": "a-team", "roleInOrg": "write"}, {"name": "watched", "roleInOrg": "read"}]
        return role and {"name": "somebody", "orgs": orgs, "auth": {"accessToken": {"role": role}}}

    def _read(self) -> Answer:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2":
            account = self._account()
            return _json(account) if account else refusal(401, "Invalid credentials in Authorization header")
        made = re.fullmatch("(?:/api/models)?/([^/]+/[^/]+)(?:/(tree|revision|commits|resolve)/([^/]+)/?(.*))?", path)
        if made and made[1] in self.hub.repositories:
            return self._of_repository(*made.groups())
        for pinned, files in self.hub.served.items():
            name, commit = pinned.split("@")
            if path == f"/api/models/{name}/tree/{commit}":
                return _json(_tree(files))
            if path.startswith(f"/{name}/resolve/{commit}/"):
                file = path.split(f"{commit}/", 1)[1]
                if file not in files:
                    return refusal(404, "Entry not found", X_Error_Code="EntryNotFound")
                return self._file(files[file], file, commit)
            if path.startswith((f"/api/models/{name}/", f"/{name}/")):
                return refusal(404, f"Invalid rev id: {path.split('/')[-1]}", X_Error_Code="RevisionNotFound")
        return refusal(404, "Repository not found", X_Error_Code="RepoNotFound")

    def _of_repository(self, name: str, what: str | None, revision: str, file: str) -> Answer:
        files = self.hub.repositories[name]
        head = self.hub.commits[name][0]["id"]
        if what == "commits":
            return _json(self.hub.commits[name])
        if what == "tree":
            return _json(_tree(files, self.hub.lfs))
        if what != "resolve":
            return _json({"id": name, "sha": head, "private": name not in self.hub.public})
        if file not in files:
            return refusal(404, "Entry not found", X_Error_Code="EntryNotFound")
        data = files[file]
        return self._file(data[:-1] + b"?" if file in self.hub.spoils else data, file, head)

    def _file(self, data: bytes, name: str, commit: str) -> Answer:
        begin = int(re.sub("bytes=([0-9]+)-.*", r"\1", self.headers.get("Range", "bytes=0-")))
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return 206 if begin else 200, headers, data[begin:]

    def _written(self, body: str) -> Answer:
        if self.path == "/api/validate-yaml":
            errors = metadata_errors(json.loads(body)["content"])
            return _json({"errors": [{"message": text} for text in errors], "warnings": []}, 400 if errors else 200)
        account = self._account()
        if account is None or account["auth"]["accessToken"]["role"] == "read":
            return refusal(403, "You don't have the rights to write here")
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        repository = "/".join(self.path.split("/")[3:5])
        if repository not in self.hub.repositories:
            return refusal(404, "Repository not found", X_Error_Code="RepoNotFound")
        if "/preupload/" in self.path:
            there = {entry["path"]: entry for entry in _tree(self.hub.repositories[repository], self.hub.lfs)}
            files = [
                {"path": file["path"], "uploadMode": _mode(file["path"], self.hub.lfs), "shouldIgnore": False}
                | ({"oid": there[file["path"]].get("lfs", there[file["path"]])["oid"]} if file["path"] in there else {})
                for file in json.loads(body)["files"]
            ]
            return _json({"files": files})
        return self._commit(repository, body)

    def _create(self, asked: dict[str, Any]) -> Answer:
        owner = asked.get("organization") or "somebody"
        if not NAME.fullmatch(asked["name"]):
            return refusal(400, f"Invalid model name: {asked['name']}")
        if owner not in ("somebody", "a-team"):
            return refusal(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repositories:
            return _json({"error": "You already created this model repo", "url": f"{self.hub.address}/{name}"}, 409)
        self.hub.repositories[name] = {}
        self.hub.commits[name] = [_commit("initial commit", "1" * 40)]
        self.hub.public |= {name} if asked["visibility"] == "public" else set()
        return _json({"url": f"{self.hub.address}/{name}"})

    def _commit(self, repository: str, body: str) -> Answer:
        entries = [json.loads(line) for line in body.splitlines()]
        files = {e["value"]["path"]: base64.b64decode(e["value"]["content"]) for e in entries if e["key"] == "file"}
        for entry in (e["value"] for e in entries if e["key"] == "lfsFile"):
            if entry["oid"] not in self.hub.objects:
                return refusal(400, f"LFS pointer pointed to a file that does not exist: {entry['path']}")
            files[entry["path"]] = self.hub.objects[entry["oid"]]
        if self.hub.meanwhile:
            self.hub.commits[repository].insert(0, _commit(self.hub.meanwhile, "2" * 40))
            self.hub.meanwhile = None
        if entries[0]["value"].get("parentCommit", "") != self.hub.commits[repository][0]["id"]:
            return refusal(412, "A commit has happened since. Please refresh and try again.")
        errors = metadata_errors(files["README.md"].decode(), set(files)) if "README.md" in files else []
        errors += [e for path in files if path.startswith(".eval_results/") for e in results_errors(files[path])]
        if errors:
            return refusal(400, "\n".join(errors))
        self.hub.repositories[repository] |= {path: data for path, data in files.items() if path not in self.hub.loses}
        made = len(self.hub.commits[repository])
        commit = COMMIT if made == 1 else f"{made:040x}"
        self.hub.commits[repository].insert(0, _commit(entries[0]["value"]["summary"], commit))
        for gone in (e["value"]["path"] for e in entries if e["key"] == "deletedFile"):
            del self.hub.repositories[repository][gone]
        return _json({"commitOid": commit, "commitUrl": f"{self.hub.address}/{repository}/commit/{commit}"})

    def _batch(self, asked: dict[str, Any]) -> Answer:
        """Where LFS wants each object that it has not; of the client's transfers, the basic one."""
        objects = [
            {"oid": one["oid"], "size": one["size"]}
            | ({} if one["oid"] in self.hub.objects else {
                "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}
            })
            for one in asked["objects"]
        ]  # fmt: skip
        return _json({"transfer": "basic", "objects": objects})

    def _answer(self, answer: Answer) -> None:
        status, headers, data = answer
        time.sleep(self.hub.delay)
        with suppress(ConnectionError):  # nobody waits for it any more
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                cut = self.hub.cuts > 0 and "/resolve/" in self.path and len(data) > 1000
                self.hub.cuts -= cut
                self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = cut

    def log_message(self, *arguments: Any) -> None:
        pass


def _tree(files: dict[str, bytes], lfs: str = "") -> list[dict[str, Any]]:
    entries = []
    for path, data in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob, "size": len(data)}
        if _mode(path, lfs) == "lfs":
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entries.append(entry)
    return entries


def _mode(path: str, lfs: str) -> str:
    return "lfs" if lfs and re.search(lfs, path) else "regular"


def _commit(title: str, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "title": title,
        "message": "",
        "authors": [{"user": "somebody"}],
        "date": "2026-11-27T12:00:00Z",
    }


def _json(content: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub at its `address` for the life of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
