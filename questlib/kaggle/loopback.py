"""A server on this machine that the real client takes for Kaggle: it keeps what arrives and refuses what it is told to.

The client talks to it with KAGGLE_API_ENVIRONMENT=LOCALHOST, which means port 80 here.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from questlib.checks import refuse_unknown
from questlib.kaggle.archives import unpack
from questlib.kaggle.kernels import COMPETITION
from questlib.run_folder import SUBMISSION

_PREFIX = "/api/v1/"
# What the site answers with status 200 although it did not do what was asked, and what it answers with another status.
REPLIES: dict[str, dict[str, Any]] = {
    "quota": {"error": "Maximum batch GPU session count of 2 reached."},
    "datasets": {"invalidDatasetSources": ["alice/questlib-wheels"]},
    "competitions": {"invalidCompetitionSources": ["google-quest-challenge"]},
    "kernels": {"invalidKernelSources": ["alice/other-kernel"]},
    "models": {"invalidModelSources": ["alice/model/transformers/default/1"]},
    "tags": {"invalidTags": ["nlp"]},
}
STATUSES = {"conflict": 409, "forbidden": 403, "missing": 404, "too large": 400, "fault": 500}
# What reads back otherwise than it was sent.
CHANGES: dict[str, dict[str, Any]] = {
    "internet": {"enableInternet": True},
    "no dataset": {"datasetDataSources": []},
    "no gpu": {"enableGpu": False},
    "models": {"modelDataSources": []},  # the client does not print which it was told are invalid
}
# How a submission is refused, with status 200 at worst, or not scored.
SUBMISSIONS: dict[str, tuple[int, str]] = {
    "rules": (403, "You cannot submit until you accept the competition rules"),
    "phone": (403, "You must verify your phone number before you can submit"),
    "either": (403, "Permission 'competitions.participate' was denied"),
    "allowance": (400, "Submission not allowed: your team has used its submission allowance (5 of 5)"),
    "not taken": (200, f"Successfully submitted to {COMPETITION}"),  # and yet not listed
}
OTHERS = (
    "dataset in use", "dataset is late", "text", "running", "failed", "error page", "half a list", "not scored",
    "stays pending", "not read back",
)  # fmt: skip


class Loopback(ThreadingHTTPServer):
    """The server and what it keeps.

    Args:
        folder: Takes datasets/<owner>/<slug>/, kernels/<owner>/<slug>/, submissions.json and requests.jsonl.
        refusal: A key of `REPLIES`, `STATUSES`, `CHANGES` or `SUBMISSIONS`, one of `OTHERS`, or nothing.
    """

    def __init__(self, folder: Path, *, refusal: str = "") -> None:
        refuse_unknown([refusal], known=["", *REPLIES, *STATUSES, *CHANGES, *SUBMISSIONS, *OTHERS], what="refusal")
        super().__init__(("127.0.0.1", 80), _Handler)
        self.folder, self.refusal = folder, refusal
        folder.mkdir(parents=True, exist_ok=True)

    def read_requests(self) -> list[dict]:
        """Read what arrived: name, size and body of each call, in order."""
        path = self.folder / "requests.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@contextmanager
def serve(folder: Path, *, refusal: str = "") -> Iterator[Loopback]:
    """Serve in the background. Arguments as `Loopback`."""
    server = Loopback(folder, refusal=refusal)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _name_fresh(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")  # a dataset that arrived and is not ready yet


class _Handler(BaseHTTPRequestHandler):
    server: Loopback

    def do_POST(self) -> None:
        call = self.path.removeprefix(_PREFIX).split("/")[-1]
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw or b"{}")
        with (self.server.folder / "requests.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"call": call, "bytes": len(raw), "body": body}) + "\n")
        answer = getattr(self, f"_answer_{call}", None)
        if answer is None:
            self._send({"code": 404, "message": f"no call {call}"}, status=404)
        else:
            answer(body)

    def do_PUT(self) -> None:
        path = self.server.folder / "blobs" / self.path.removeprefix("/blobs/")
        path.parent.mkdir(exist_ok=True)
        left = int(self.headers.get("Content-Length", 0))
        with path.open("wb") as stream:
            while left:
                chunk = self.rfile.read(min(left, 1 << 20))
                stream.write(chunk)
                left -= len(chunk)
        self._send({})

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self._send({"code": 404, "message": "Not found"}, status=404)
            return
        content, status = path.read_bytes(), 200
        if self.server.refusal == "error page" and path.name == "scores.json":
            content, status = b"<html><title>503 Service Unavailable</title></html>", 503
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Keep silent: requests.jsonl says more."""

    def _send(self, content: dict, *, status: int = 200) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    # The client names calls as it does, hence the names below.

    def _answer_StartBlobUpload(self, body: dict) -> None:  # noqa: N802
        token = f"{time.monotonic_ns()}-{body['name']}"
        self._send({"token": token, "createUrl": f"http://localhost:{self.server.server_port}/blobs/{token}"})

    def _answer_CreateDataset(self, body: dict) -> None:  # noqa: N802
        folder = self._dataset(body["ownerSlug"], body["slug"])
        if folder.exists() or self.server.refusal == "dataset in use":
            self._send({"status": "error", "error": f"The requested title {body['title']!r} is already in use"})
            return
        self._store(folder, body["files"])

    def _answer_CreateDatasetVersion(self, body: dict) -> None:  # noqa: N802
        self._store(self._dataset(body["ownerSlug"], body["datasetSlug"]), body["body"]["files"])

    def _store(self, folder: Path, files: list[dict]) -> None:
        """Keep the files as the site does: archives are unpacked, and what was there before is gone."""
        fresh = _name_fresh(folder)
        fresh.mkdir(parents=True)
        for file in files:
            blob = self.server.folder / "blobs" / file["token"]
            name = file["token"].split("-", 1)[1]
            if name.endswith(".zip"):
                unpack(blob, fresh / name.removesuffix(".zip"))
                blob.unlink()
            else:
                blob.replace(fresh / name)
        if self.server.refusal != "dataset is late":
            self._publish(folder)
        self._send({"status": "ok", "url": f"http://localhost/datasets/{folder.parent.name}/{folder.name}"})

    def _publish(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        _name_fresh(folder).replace(folder)

    def _dataset(self, owner: str, slug: str) -> Path:
        return self.server.folder / "datasets" / owner / slug

    def _answer_GetDatasetStatus(self, body: dict) -> None:  # noqa: N802
        folder = self._dataset(body["ownerSlug"], body["datasetSlug"])
        if not folder.exists() and _name_fresh(folder).exists():
            self._send({"status": "BLOBS_RECEIVED"})
            if self.server.refusal != "dataset is late":  # whoever asks the next time finds it ready
                self._publish(folder)
        elif not folder.exists():
            self._send({"code": 403, "message": "Permission 'datasets.get' was denied"}, status=403)
        else:
            self._send({"status": "READY"})

    def _answer_DownloadDataset(self, body: dict) -> None:  # noqa: N802
        path = self._dataset(body["ownerSlug"], body["datasetSlug"]) / body["fileName"]
        if not path.is_file():
            self._send({"code": 403, "message": "Permission 'datasets.get' was denied"}, status=403)
            return
        self.send_response(302)
        self.send_header("Location", f"/{path.relative_to(self.server.folder)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer_GetDatasetMetadata(self, body: dict) -> None:  # noqa: N802
        self._send({"info": {"ownerUser": body["ownerSlug"], "licenses": [{"name": "other"}]}})

    def _kernel(self, name: str) -> Path:
        return self.server.folder / "kernels" / name

    def _answer_SaveKernel(self, body: dict) -> None:  # noqa: N802
        refusal = self.server.refusal
        if refusal in STATUSES:
            status = STATUSES[refusal]
            self._send({"code": status, "message": f"{refusal} (status {status})"}, status=status)
            return
        reply = REPLIES.get(refusal, {})
        url, folder = f"http://localhost/code/{body['slug']}", self._kernel(body["slug"])
        version = len(list(folder.glob("version-*"))) + 1
        if "error" not in reply:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"version-{version}").touch()
            (folder / "kernel.ipynb").write_text(body["text"], encoding="utf-8")
            (folder / "request.json").write_text(json.dumps(body), encoding="utf-8")
        self._send({"ref": body["slug"], "url": url, "versionNumber": version} | reply)

    def _answer_GetKernel(self, body: dict) -> None:  # noqa: N802
        name = f"{body['userName']}/{body['kernelSlug']}"
        folder = self._kernel(name)
        if not folder.exists() or self.server.refusal == "not read back":
            self._send({"code": 404, "message": "Not found"}, status=404)
            return
        sent = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        kept = {key: value for key, value in sent.items() if key not in ("text", "slug", "newTitle", "id")}
        kept |= {"ref": name, "id": 7, "title": sent["newTitle"], "slug": body["kernelSlug"]}
        kept |= CHANGES.get(self.server.refusal, {})
        text = (folder / "kernel.ipynb").read_text(encoding="utf-8")
        if self.server.refusal == "text":
            text = text.replace("import os", "import  os")
        blob = {"source": text, "language": "python", "kernelType": "notebook", "slug": body["kernelSlug"]}
        self._send({"metadata": kept, "blob": blob})

    def _answer_GetKernelSessionStatus(self, body: dict) -> None:  # noqa: N802
        state = {"running": "RUNNING", "failed": "ERROR"}.get(self.server.refusal, "COMPLETE")
        self._send({"status": state} | ({"failureMessage": "Notebook Threw Exception"} if state == "ERROR" else {}))

    def _answer_ListKernelSessionOutput(self, body: dict) -> None:  # noqa: N802
        folder = self._kernel(f"{body['userName']}/{body['kernelSlug']}") / "output"
        here = f"http://localhost:{self.server.server_port}/{folder.relative_to(self.server.folder)}"
        files = [
            {"url": f"{here}/{path.relative_to(folder)}", "fileName": str(path.relative_to(folder))}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        if self.server.refusal == "half a list":
            files = files[: len(files) // 2 + 1]
        log = [{"stream_name": "stdout", "time": 1.5, "data": "fold 0\n"}, {"stream_name": "stderr", "data": "done\n"}]
        self._send({"files": files, "log": json.dumps(log)})

    def _submissions(self) -> list[dict]:
        path = self.server.folder / "submissions.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def _keep_submissions(self, submissions: list[dict]) -> None:
        (self.server.folder / "submissions.json").write_text(json.dumps(submissions), encoding="utf-8")

    def _answer_CreateCodeSubmission(self, body: dict) -> None:  # noqa: N802
        folder, submissions = self._kernel(f"{body['kernelOwner']}/{body['kernelSlug']}"), self._submissions()
        known = (folder / f"version-{body['kernelVersion']}").exists()
        status, said = SUBMISSIONS.get(self.server.refusal, (200, f"Successfully submitted to {COMPETITION}"))
        if status == 200 and not known:
            status, said = 404, "Kernel version not found"
        elif status == 200 and not (folder / "output" / SUBMISSION).is_file():
            status, said = 400, f"The kernel version has no output file {SUBMISSION}"
        if status == 200 and self.server.refusal != "not taken":
            entry = {"ref": 100 + len(submissions), "description": body["submissionDescription"], "status": "PENDING"}
            self._keep_submissions(
                [{**entry, "fileName": body["fileName"], "date": "2026-01-01T00:00:00Z"}, *submissions]
            )
        self._send({"code": status, "message": said} if status != 200 else {"message": said}, status=status)

    def _answer_ListSubmissions(self, body: dict) -> None:  # noqa: N802
        if self.server.refusal == "either":
            status, said = SUBMISSIONS["either"]
            self._send({"code": status, "message": said}, status=status)
            return
        submissions = self._submissions()
        self._send({"submissions": submissions})
        # Whoever asks the next time finds them scored.
        scored = {"status": "COMPLETE", "publicScore": "0.41234", "privateScore": "0.40321"}
        if self.server.refusal == "not scored":
            scored = {"status": "ERROR"}
        if self.server.refusal != "stays pending":
            self._keep_submissions([one | scored if one["status"] == "PENDING" else one for one in submissions])

    def _answer_GetSubmissionLimits(self, body: dict) -> None:  # noqa: N802
        n_left = 0 if self.server.refusal in ("allowance", "not taken") else 5 - len(self._submissions())
        self._send({"numToday": 5 - n_left, "numTotal": 5 - n_left, "numAllowedNow": n_left})
