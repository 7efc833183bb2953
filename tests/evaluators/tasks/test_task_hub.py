"""Sets on the hub: a small real hub on this machine, its cache, and every way of not getting there.

The hub's address and offline mode are read when its library is imported, so every case is a process
of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.support.paths import ROOT

COMMIT = "a" * 40
CONFIGS = b"""---
configs:
- config_name: I
  data_files: one.jsonl
- config_name: II
  data_files:
  - split: test
    path: two.jsonl
---
"""
DIAMOND = b"""---
configs:
- config_name: gpqa_main
  data_files: gpqa_main.csv
- config_name: gpqa_diamond
  data_files: gpqa_diamond.csv
---
"""
GPQA = {
    "README.md": DIAMOND,
    "gpqa_main.csv": b"nothing,here\n1,2\n",
    "gpqa_diamond.csv": b"Question,Correct Answer\nHow many?,None\n",
}
SETS: dict[str, dict[str, bytes]] = {
    "org/one": {"README.md": b"# one", "test.jsonl": b'{"problem": "1+1?", "answer": "002"}\n'},
    "org/Papers2025": {
        "README.md": CONFIGS,
        "one.jsonl": b'{"question": "1?", "answer": "1"}\n',
        "two.jsonl": b'{"question": "2?", "answer": "2"}\n',
    },
    "org/splits": {"train.csv": b"problem,answer\n1?,1\n", "test.csv": b"problem,answer\n2?,2\n"},
    "org/gpqa": GPQA,
    "org/locked": GPQA,
    "org/script": {"README.md": b"#", "script.py": b"raise SystemExit('it ran')"},
    "org/nothing": {"README.md": b"#"},
    "org/broken": {"README.md": b"#", "test.jsonl": b'{"a":'},
}
GATED = {"org/locked"}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as the library asks for."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind, *parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if kind == "api":
            kind, *parts = parts
        name, rest = "/".join(parts[:2]), parts[2:]
        if kind != "datasets":
            return self.reply(404, b"")
        if name not in SETS:
            return self.reply(401, b"", **{"X-Error-Code": "RepoNotFound"})
        files = SETS[name]
        if rest[:1] == ["resolve"]:
            return self.resolve(files, "/".join(rest[2:]), name in GATED)
        if rest[:1] == ["tree"]:
            under = "/".join(rest[2:])
            if under:  # no set here has folders
                return self.reply(404, b"{}", **{"X-Error-Code": "EntryNotFound"})
            return self.reply(
                200, json.dumps([self.describe(files, file) for file in files]).encode()
            )
        if rest[:1] == ["paths-info"]:
            paths = (
                json.loads(body)["paths"]
                if body.startswith(b"{")
                else parse_qs(body.decode())["paths"]
            )
            return self.reply(
                200,
                json.dumps(
                    [self.describe(files, path) for path in paths if path in files]
                ).encode(),
            )
        return self.reply(
            200, json.dumps({"_id": "1", "id": name, "sha": COMMIT, "siblings": []}).encode()
        )

    do_GET = do_HEAD = do_POST = answer

    def resolve(self, files: dict[str, bytes], file: str, gated: bool) -> None:
        if gated and file != "README.md":
            self.reply(401, b"", **{"X-Error-Code": "GatedRepo"})
        elif file not in files:
            self.reply(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.reply(
                200,
                files[file],
                **{"X-Repo-Commit": COMMIT, "ETag": f'"{self.digest(files[file])}"'},
            )

    def describe(self, files: dict[str, bytes], file: str) -> dict[str, Any]:
        return {
            "type": "file",
            "path": file,
            "size": len(files[file]),
            "oid": self.digest(files[file]),
        }

    def digest(self, content: bytes) -> str:
        return hashlib.sha1(content).hexdigest()

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


READ = """
import json, sys
from engine.errors import TaskError
from evaluators.tasks.sources.resolve import read
answers = {}
for place in sys.argv[1:]:
    hub_id, _, subset = place.partition(":")
    try:
        reading = read(hub_id, "task_data", "problem, answer", subset or None)
        answers[place] = [[row.cells for table in reading.tables for row in table], reading.notes]
    except TaskError as error:
        answers[place] = str(error)
print(json.dumps(answers))
"""
PLACES = ["org/one", "org/Papers2025", "org/splits", "org/gpqa:gpqa_diamond"]
FAILING = ["org/locked:gpqa_diamond", "org/absent", "org/script", "org/nothing", "org/broken"]


def read(home: Path, *places: str, **environment: str) -> Any:
    """What READ prints, with nothing else on stdout or stderr."""
    settings = {
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, *places], cwd=ROOT,
        env={**os.environ, **settings}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def online(home: Path) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield read(home, *PLACES, *FAILING, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_set_is_read_with_all_its_configurations(online: Any) -> None:
    assert online["org/one"] == [[{"problem": "1+1?", "answer": "002"}], []]
    assert online["org/Papers2025"] == [
        [{"question": "1?", "answer": "1"}, {"question": "2?", "answer": "2"}],
        [],
    ]


def test_of_several_splits_the_test_split_is_read_and_that_is_said(online: Any) -> None:
    assert [row["problem"] for row in online["org/splits"][0]] == ["2?"]
    assert online["org/splits"][1] == ["org/splits: read 'test', left out 'train'"]


def test_of_gpqa_the_diamond_set_is_read_and_none_is_an_option(online: Any) -> None:
    assert online["org/gpqa:gpqa_diamond"] == [
        [{"Question": "How many?", "Correct Answer": "None"}],
        [],
    ]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (
            "org/locked:gpqa_diamond",
            "accept its conditions on its page there (datasets/org/locked) and log in (`hf auth",
        ),
        (
            "org/absent",
            "it is not there, or it is private and you are not logged in (`hf auth login`)",
        ),
        ("org/script", "Dataset scripts are no longer supported"),
        ("org/nothing", "doesn't contain any data files"),
        ("org/broken", "JSON"),
    ],
)
def test_a_set_that_cannot_be_had_is_an_error_with_its_reason_and_the_way_out(
    online: Any, place: str, reason: str
) -> None:
    message = online[place]
    assert message.startswith(
        f"{place.partition(':')[0]} cannot be loaded from the Hugging Face hub"
    )
    assert reason in message and "\n" not in message
    assert message.endswith(
        "a local copy is read with --task-data FILE (CSV, JSONL or Parquet; columns problem, "
        "answer)"
    )


def test_what_was_read_once_is_read_again_without_a_network(online: Any, home: Path) -> None:
    assert read(home, *PLACES, HF_HUB_OFFLINE="1") == {place: online[place] for place in PLACES}


def test_offline_without_a_cache_is_an_error_that_says_so(tmp_path: Path) -> None:
    answers = read(tmp_path, "org/one", "org/gpqa:gpqa_diamond", HF_HUB_OFFLINE="1")
    assert all(
        "HF_HUB_OFFLINE is set, and the cache does not hold it" in message
        for message in answers.values()
    )


@pytest.mark.parametrize("task", ["aime24", "aime25", "gpqa-diamond"])
def test_a_named_set_that_cannot_be_loaded_says_what_a_local_copy_must_hold(task: str) -> None:
    from engine.config.run_config import RunConfig
    from engine.errors import TaskError
    from evaluators.tasks.registry import TASKS, load_task

    columns = (
        "Question, Correct Answer, Incorrect Answer 1"
        if task == "gpqa-diamond"
        else "problem, answer and, if"
    )
    with pytest.raises(TaskError) as error:
        load_task(RunConfig(task=task))
    assert str(error.value).startswith(TASKS[task].source)
    assert f"--task-data FILE (CSV, JSONL or Parquet; columns {columns}" in str(error.value)
