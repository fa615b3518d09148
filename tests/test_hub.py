"""A model that is named by its repository: fetched once, kept, and the same model as its folder."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from advanchor.hub import wanted

COMMIT = "0123456789" * 4
SAYS = """
import json, logging, sys
logging.getLogger("advanchor").setLevel(logging.INFO)
logging.getLogger("advanchor").addHandler(logging.StreamHandler(sys.stdout))
logging.disable(logging.NOTSET)
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.identity import run_id
try:
    print("run", run_id(compose(["model=sd14", "judge=none", f"model.path={sys.argv[1]}"])))
except BadInput as error:
    print("refused", error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download needs."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.about(parts[2:])
        owner, name, _, revision, *file = parts
        place = self.folder.joinpath(*file)
        if (owner, name) != ("CompVis", "sd") or revision not in ("main", COMMIT) or not place.is_file():
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        body = place.read_bytes()
        return self.answer(200, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{sha1(body).hexdigest()}"'})

    do_HEAD = do_GET

    def about(self, parts: list[str]) -> None:
        if parts[:2] != ["CompVis", "sd"]:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if parts[2:3] == ["revision"] and parts[3] not in ("main", COMMIT):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        names = [f.relative_to(self.folder).as_posix() for f in sorted(self.folder.rglob("*")) if f.is_file()]
        if parts[2:3] == ["tree"]:
            told: Any = [
                {"type": "file", "path": n, "oid": sha1((self.folder / n).read_bytes()).hexdigest(),
                 "size": (self.folder / n).stat().st_size} for n in names
            ]  # fmt: skip
        else:
            told = {"id": "CompVis/sd", "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
        return self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    place = tmp_path / "served"
    model.pipe.save_pretrained(place)
    (place / "unet/diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    shutil.copy(
        place / "unet/diffusion_pytorch_model.safetensors", place / "unet/diffusion_pytorch_model.fp16.safetensors"
    )
    (place / "README.md").write_text("# Terms")
    return place


@pytest.fixture
def hub(folder: Path, tmp_path: Path) -> Iterator[tuple[Callable[..., str], list[str]]]:
    """Name a model in a process of its own, beside a hub that has CompVis/sd; what was asked of it."""
    Hub.folder, Hub.asked = folder, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def name(path: str, **more: str) -> str:
        where = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        told = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **where, **more}
        done = subprocess.run(
            [sys.executable, "-c", SAYS, path], env=told, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield name, Hub.asked
    server.shutdown()


def test_a_repository_is_fetched_once_its_size_is_said_first_and_it_is_the_same_model_as_its_folder(
    hub: tuple[Callable[..., str], list[str]], folder: Path, tmp_path: Path
) -> None:
    name, asked = hub
    said, last = name("CompVis/sd").splitlines()
    assert said.startswith("fetching 3 files, 0.00")
    assert "of CompVis/sd@main into" in said
    fetched = [one.partition("/resolve/")[2].partition("/")[2] for one in asked if "/resolve/" in one]
    assert "unet/diffusion_pytorch_model.safetensors" in fetched
    assert not [one for one in fetched if ".bin" in one or "fp16" in one or "README" in one]
    before = len(asked)
    assert name("CompVis/sd").splitlines() == name("CompVis/sd@main", HF_HUB_OFFLINE="1").splitlines() == [last]
    assert name(f"CompVis/sd@{COMMIT}").splitlines() == [last]
    assert len(asked) == before, "what is in the cache is not asked for again"
    (folder / "unet/diffusion_pytorch_model.bin").unlink()
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    assert name(str(folder)).splitlines() == [last]


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("CompVis/sd", {"HF_HUB_OFFLINE": "1"}, "leave HF_HUB_OFFLINE out to fetch it"),
        ("CompVis/sd@v9", {}, "CompVis/sd has no revision v9: name another one"),
        ("outputs/nothing", {}, "outputs/nothing is no folder here, and the hub has no repository outputs/nothing"),
        ("outputs/no--thing", {}, "outputs/no--thing is no folder here, and outputs/no--thing cannot be fetched"),
        ("CompVis/sd", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be fetched from the hub"),
    ],
)
def test_a_repository_that_cannot_be_had_is_one_sentence(
    hub: tuple[Callable[..., str], list[str]], path: str, more: dict[str, str], said: str
) -> None:
    answer = hub[0](path, **more)
    assert answer.startswith("refused")
    assert said in answer
    assert len(answer.splitlines()) == 1


def test_of_a_repositorys_files_those_are_fetched_that_are_loaded() -> None:
    unet, vae = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
    chosen = [f"{unet}.safetensors", f"{vae}.fp16.safetensors", "model_index.json", "unet/config.json"]
    others = [f"{unet}.bin", f"{unet}.fp16.safetensors", f"{unet}.non_ema.safetensors", "x.ckpt", "README.md"]
    others += [f"{unet}-00001-of-00002.safetensors", "safety_checker/model.safetensors"]
    assert wanted([*others, *chosen]) == sorted(chosen)
