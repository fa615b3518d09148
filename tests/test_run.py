"""A run is a value: computed once, resumed after any kill to the same numbers, and never lost to a tracker."""

import concurrent.futures
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from PIL import Image

import advanchor
from advanchor import provenance
from advanchor.anchors.words import Superclass
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.images import Images
from advanchor.methods.ac import AblatingConcepts
from advanchor.models.latent_diffusion import LatentDiffusion
from advanchor.prompts import Prompt
from advanchor.run import run
from advanchor.store import finish, part_of, write_json, write_tensors
from advanchor.trackers.none import NoTracker
from advanchor.training import loop
from advanchor.training.loop import descend
from advanchor.training.pools import Pool

# Where a run can be killed: the n-th time that something of this name is about to get its final name.
MOMENTS = [("-pool-", 1), ("checkpoint.pt", 3), ("edits/", 1), ("samples/", 7), ("metrics/", 3), ("result.json", 1)]
MORE = [
    ("stages.json", 1), ("checkpoint.pt", 1), ("checkpoint.pt", 5), ("edit.json", 1), ("samples/", 1),
    ("samples/base", 1), ("samples/base", 8), ("metrics/", 1), ("grid.png", 1),
]  # fmt: skip
SCHEDULE = ["anchor=adversarial", "anchor.schedule=sequential", "method.zero_grad=false", "metric=[erasure,clip,kid]"]


def work(root: str, overrides: list[str], moment: tuple[str, int] | None) -> None:
    """In a process of its own: the whole run, killed at the moment if there is one; checkpoints after every step."""
    import torch

    from advanchor import erase
    from advanchor.training import loop as training

    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS, training.WRITING = 0.0, float("inf")
    replace, seen = os.replace, [0]

    def rename(source: Any, target: Any, **kw: Any) -> None:
        if moment and moment[0] in str(target):
            seen[0] += 1
            if seen[0] == moment[1]:
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **kw)

    os.replace = rename
    erase(*TINY, f"root={root}", *overrides)


@pytest.fixture(scope="module")
def process() -> Callable[..., int]:
    """Call `work` in a child of a server that has imported everything once; returns the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "advanchor.models.latent_diffusion",
            "advanchor.judges.emoji",
            "advanchor.training.loop",
            "torchmetrics.image.fid",
        ]
    )

    def call(root: Path, overrides: list[str], moment: tuple[str, int] | None = None) -> int:
        child = context.Process(target=work, args=(str(root), overrides, moment))
        child.start()
        child.join()
        assert child.exitcode is not None
        return child.exitcode

    return call


def outcome(root: Path) -> dict[str, Any]:
    """Everything a run leaves that must not depend on when it was killed."""
    (record,) = root.glob("*/result.json")
    result = json.loads(record.read_text())
    files = {
        str(f.relative_to(root)): f.read_bytes()
        for f in sorted((root / "store").rglob("*"))
        if f.suffix in (".png", ".safetensors", ".jsonl")
    }
    parts = [str(f) for f in root.rglob("*.part")]
    diagnostics = {k: v for k, v in result["diagnostics"].items() if not k.startswith("cost/")}
    return {
        "scores": result["scores"],
        "diagnostics": diagnostics,
        "files": files,
        "parts": parts,
        "grid": (record.parent / "grid.png").read_bytes(),
    }


@pytest.fixture(scope="module")
def undisturbed(process: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("undisturbed")
    assert process(root, SCHEDULE) == 0
    return outcome(root)


@pytest.mark.parametrize(
    "moment",
    [*MOMENTS, *(pytest.param(m, marks=pytest.mark.slow) for m in MORE)],
    ids=lambda m: f"{m[0].strip('/').replace('/', '-')}-{m[1]}",
)
def test_a_run_killed_at_any_stage_ends_with_the_numbers_of_an_undisturbed_one(
    moment: tuple[str, int], process: Callable[..., int], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    assert process(tmp_path, SCHEDULE, moment) == -signal.SIGKILL
    assert not list(tmp_path.glob("*/result.json"))
    assert process(tmp_path, SCHEDULE) == 0
    assert outcome(tmp_path) == undisturbed


def test_a_finished_run_computes_nothing(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny()
    monkeypatch.setattr("advanchor.models.tiny.Random.open", None)
    assert tiny() == first


def test_another_metric_on_a_finished_run_draws_nothing_and_keeps_the_other_scores(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny("metric=[erasure]")
    monkeypatch.setattr("advanchor.models.latent_diffusion.LatentDiffusion._denoise", None)
    second = tiny("metric=[erasure,lpips]")
    assert second["scores"].keys() > first["scores"].keys()
    assert all(second["scores"][k] == v for k, v in first["scores"].items())


def test_a_metric_with_other_settings_and_back_again_has_the_score_of_its_settings(tiny: Any) -> None:
    first, other, again = (
        tiny("metric=[cmmd]", f"metric.cmmd.sigma={size}")["scores"]["cmmd/keep"]["value"] for size in (8, 3, 8)
    )
    assert first == again != other


def test_every_score_stands_in_the_closing_table(tiny: Any) -> None:
    result = tiny("metric=[unlearncanvas,cmmd,precision_recall]")
    shown = advanchor.table(result)
    assert all(name in shown for name in result["scores"] if "@" not in name and ":" not in name)


def test_an_edit_by_older_code_is_said(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny("metric=[]")["provenance"]
    sources = {
        name: text + b"# later" if name == "advanchor.images" else text for name, text in provenance.SOURCES.items()
    }
    monkeypatch.setattr(provenance, "SOURCES", sources)
    later = tiny("metric=[]", "sample.erase=2")["provenance"]  # the same edit, other images
    assert later["edit"] == first["edit"]
    assert later["images"] != first["images"]


FILES = (
    "*/result.json", "*/metrics/*.json", "store/edits/*/edit.safetensors", "store/edits/*/edit.json",
    "store/edits/*/anchor.safetensors", "store/samples/base-*/a-wolf*.png", "store/samples/base-*/seen-*/*.pt",
    "store/latents/*/*-pool-*/latents.safetensors", "store/latents/*/*-closeness-*/latents.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    advanchor.erase(*TINY, f"root={root}", "metric=[erasure,clip,anchor]")
    return root


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_names_itself_and_the_folder_whose_deletion_mends_it(
    name: str, whole: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(whole, tmp_path / "out")
    call = partial(advanchor.erase, *TINY, f"root={root}", "metric=[erasure,clip,anchor]")
    (first,) = root.glob("*/result.json")
    scores = json.loads(first.read_text())["scores"]
    for file in root.glob(name):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    if "result.json" not in name:  # otherwise nothing else would be read
        shutil.rmtree(first.parent) if "metrics" not in name else first.unlink()
    if "latents" in name:
        shutil.rmtree(root / "store" / "edits")
    if "seen" not in name:
        shutil.rmtree(next((root / "store" / "samples").glob("base-*/seen-*")))
    with pytest.raises(BadInput, match="damaged: delete the folder") as said:
        call()
    shutil.rmtree(re.search(r"delete the folder (\S+) and run", str(said.value))[1])  # type: ignore[index]
    assert call()["scores"] == scores


def test_damaged_scalars_stop_nothing(whole: Path, tmp_path: Path) -> None:
    root = shutil.copytree(whole, tmp_path / "out")
    for file in root.glob("store/edits/*/train.jsonl"):
        file.write_bytes(b"\xff\xfe{" + file.read_bytes())
    shutil.rmtree(next(root.glob("*/result.json")).parent)
    advanchor.erase(*TINY, f"root={root}", "metric=[erasure,clip,anchor]")


def test_the_result_of_another_run_is_never_shown_as_this_ones(tiny: Any, tmp_path: Path) -> None:
    first = tiny("metric=[]")
    cfg = compose([*TINY, f"root={tmp_path}", "seed=1", "metric=[]"])
    with pytest.raises(BadInput, match="another run"):
        run(cfg, tmp_path / first["run"])


def test_a_last_update_that_is_not_finite_is_refused_also_when_it_is_resumed(
    model: Any, concept: Any, tmp_path: Path
) -> None:
    target = Superclass(name="superclass").start(model, concept, 0)
    source = Pool(model, concept, torch.zeros(2, 4, 8, 8), concept.templates[:1] * 2, 0)
    for _ in range(2):
        theta = {"w": torch.zeros(1, requires_grad=True)}
        with pytest.raises(
            BadInput, match=r"not finite after the last update: lower method\.lr"
        ):  # the slope of a root at 0 is infinite, its value is not
            descend(
                theta,
                lambda i, step: theta["w"].sqrt().sum(),
                source,
                [target],
                tmp_path,
                lambda i, **s: None,
                steps=1,
                lr=1.0,
                batch=1,
            )


def test_no_number_that_is_not_finite_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not finite"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    with pytest.raises(BadInput, match=r"w of x\.safetensors is not finite"):
        write_tensors(tmp_path / "x.safetensors", {"w": torch.tensor([1.0, float("inf")])})
    assert not list(tmp_path.iterdir()) or not (tmp_path / "x.json").exists()


def test_prompts_that_are_cut_are_counted_and_a_concept_that_is_cut_is_refused(tiny: Any, caplog: Any) -> None:
    long = " and a house" * 20
    with caplog.at_level("WARNING"):
        assert (
            tiny("metric=[]", f"concept.evaluate=['{{}} in noto style','{{}}{long}']", "method=none", "anchor=concept")[
                "cut"
            ]
            > 0
        )
    assert "are longer than the text encoder" in caplog.text
    with pytest.raises(BadInput, match="fox"):
        tiny("metric=[]", f"concept.evaluate=['a house{long} and {{}}']", "method=none", "anchor=concept")


def test_what_is_drawn_for_erasing_fits_in_batches_of_the_users_size(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    latents = LatentDiffusion.latents
    monkeypatch.setattr(
        LatentDiffusion,
        "latents",
        lambda self, texts, *a, **kw: sizes.append(len(texts)) or latents(self, texts, *a, **kw),
    )
    tiny("metric=[]", "anchor=superclass", "method.pool=3", "batch=1")
    assert sizes[:3] == [1, 1, 1]
    assert {*sizes} == {1}


def test_writing_checkpoints_takes_a_small_share_of_the_time(
    model: Any, concept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []

    def slow(file: Path) -> None:
        time.sleep(0.1)
        written.append(time.monotonic())
        finish(file)

    monkeypatch.setattr(loop, "finish", slow)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    target = Superclass(name="superclass").start(model, concept, 0)
    source = Pool(model, concept, torch.zeros(2, 4, 8, 8), concept.templates[:1] * 2, 0)
    theta = {"w": torch.ones(1, requires_grad=True)}
    begun = time.monotonic()
    descend(
        theta, lambda i, step: theta["w"].square().sum(), source, [target], tmp_path, lambda i, **s: None,
        steps=400, lr=1e-3, batch=1,
    )  # fmt: skip
    spent = time.monotonic() - begun
    assert len(written) <= 2 + spent / 2  # the first, one every two seconds, the last


def test_what_a_judge_saw_is_asked_by_all_that_the_answer_depends_on_and_decoded_once(tmp_path: Path) -> None:
    prompts = [Prompt("a", 0), Prompt("b", 0)]
    for i, prompt in enumerate(prompts):
        Image.new("RGB", (2, 2), (i, 0, 0)).save(part_of(tmp_path / prompt.file), format="PNG")
    finish(*(tmp_path / prompt.file for prompt in prompts))
    asked: list[str] = []

    def look(shown: Any, answer: str) -> Any:
        asked.append(answer)
        return [answer, *(image.getpixel((0, 0))[0] for image in shown)]

    def seen(what: str, of: list[Prompt] = prompts) -> Any:
        return Images(tmp_path, of, tmp_path / "seen").seen(what, lambda shown: look(shown, what))

    assert seen("find object") == ["find object", 0, 1]
    assert seen("find style") == ["find style", 0, 1]
    assert seen("find object", prompts[1:]) == ["find object", 1]
    assert seen("find object") == ["find object", 0, 1]
    assert asked == ["find object", "find style", "find object"]
    images = Images(tmp_path, prompts)
    assert images.pictures[0] is images.pictures[0]


@pytest.mark.parametrize("place", ["store/edits/*", "store/samples/*", "store/latents/*/*", "*/metrics"])
def test_folders_that_changed_places_are_no_others(place: str, tmp_path: Path) -> None:
    asked = [*TINY, f"root={tmp_path}", "metric=[erasure,clip]", "anchor=superclass"]
    first = advanchor.erase(*asked)
    second = advanchor.erase(*asked, "seed=1")
    a, b = sorted(f for f in tmp_path.glob(place) if f.is_dir() and not f.name.startswith("."))[-2:]
    for here, there in ((a, tmp_path / "aside"), (b, a), (tmp_path / "aside", b)):
        here.rename(there)
    for run_ in (first["run"], second["run"]):
        (tmp_path / run_ / "result.json").unlink()
    if "latents" in place:
        shutil.rmtree(tmp_path / "store/edits")
    if "metrics" in place:
        assert advanchor.erase(*asked)["scores"] == first["scores"]
        return
    said = []
    for more in ((), ("seed=1",)):
        try:
            advanchor.erase(*asked, *more)
        except BadInput as error:
            said.append(str(error))
    assert said
    assert all("belongs to another name: delete the folder" in one for one in said)


def test_a_metric_is_called_by_a_plain_word(tmp_path: Path) -> None:
    (tmp_path / "mine/metric").mkdir(parents=True)
    node = "{_target_: advanchor.metrics.clip.Clip, name: clip, version: 1}"
    (tmp_path / "mine/metric/x.yaml").write_text(f'# X.\n"../../../escape": {node}\n')
    with pytest.raises(BadInput, match="one plain word"):
        advanchor.erase(*TINY, f"root={tmp_path / 'out'}", "metric=[x]", config_dir=str(tmp_path / "mine"))
    assert not (tmp_path / "out").exists()


def test_an_edit_that_is_learned_anew_by_other_code_is_drawn_anew(tiny: Any, tmp_path: Path, monkeypatch: Any) -> None:
    first = tiny("metric=[clip]", "anchor=superclass", "method.lr=0.01")
    shutil.rmtree(tmp_path / first["artifacts"]["edit"])
    (tmp_path / first["run"] / "result.json").unlink()
    erase = AblatingConcepts.erase

    def otherwise(self: Any, *how: Any) -> Any:
        return {name: 1.5 * tensor.detach() for name, tensor in erase(self, *how).items()}

    monkeypatch.setattr(AblatingConcepts, "erase", otherwise)
    again = tiny("metric=[clip]", "anchor=superclass", "method.lr=0.01")
    assert again["run"] == first["run"]
    assert again["scores"]["clip/erase"] != first["scores"]["clip/erase"]
    assert again["scores"]["clip/erase@base"] == first["scores"]["clip/erase@base"]


def share_an_edit(what: tuple[str, int]) -> Any:
    return advanchor.erase(*TINY, f"root={what[0]}", "metric=[]", f"sample.steps={what[1]}")["provenance"]


def test_two_runs_that_share_an_edit_both_end_whatever_the_order(tmp_path: Path) -> None:
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        first, second = pool.map(share_an_edit, [(str(tmp_path), steps) for steps in (2, 3)])
    assert first == second


def test_erase_is_one_run() -> None:
    with pytest.raises(BadInput, match="this is a sweep of 180"):
        advanchor.erase("experiment=methods")


def test_a_metric_that_one_image_is_too_few_for_says_so_before_anything_is_loaded(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advanchor.models.tiny.Random.open", lambda *_: pytest.fail("loaded"))
    with pytest.raises(
        BadInput, match=r"metric fid needs at least 2 images of `erase`, and there is 1: raise sample.erase"
    ):
        tiny("metric=[fid]", "sample.erase=1", "concept.evaluate=['{}']")


def test_a_single_other_metric_loses_no_score_and_another_judge_measures_anew(tiny: Any) -> None:
    unmeasured = tiny("judge=none", "metric=[erasure]")
    assert not unmeasured["scores"]
    first = tiny("metric=[erasure]")
    second = tiny("metric=[kid]")
    assert second["scores"].keys() == first["scores"].keys() | {
        f"kid/{which}{at}" for which in ("erase", "keep") for at in ("", "@floor")
    }
    assert set(second["config"]["metric"]) == {"erasure", "kid"}


def test_runs_of_one_model_share_the_unedited_models_images(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from advanchor.models.latent_diffusion import LatentDiffusion

    tiny("metric=[erasure]")
    drawn: list[str] = []
    original = LatentDiffusion.draw
    monkeypatch.setattr(
        LatentDiffusion,
        "draw",
        lambda self, prompts, **kw: drawn.extend(p.text for p in prompts) or original(self, prompts, **kw),
    )
    result = tiny("method.steps=2", "metric=[erasure]")
    assert len(drawn) == sum(result["scores"][name]["n"] for name in ("erasure/hit", "keep/hit", "keep/hit_near"))


def test_a_result_names_its_commit_versions_costs_and_sizes(tiny: Any) -> None:
    result = tiny()
    assert {"load", "erase", "draw", "draw@base", "measure"} <= set(result["stages"])
    assert all(s["seconds"] >= 0 and s["peak_mb"] > 50 for s in result["stages"].values())
    assert result["environment"]["packages"]["torch"]
    assert "commit" in result["environment"]
    assert result["changed"]["tensors"] > 0
    assert all({"value", "n", "better"} <= set(s) for s in result["scores"].values())


def test_the_images_behind_a_mean_are_kept_one_by_one_beside_the_result(tiny: Any, tmp_path: Path) -> None:
    result = tiny("metric=[erasure,clip,anchor]")
    kept: dict[str, Any] = {}
    for file in (tmp_path / result["run"] / "metrics").glob("*.json"):
        kept |= json.loads(file.read_text())
    for name in ("erasure/hit", "keep/hit_cross@base", "clip/keep"):
        assert len(kept[name]["values"]) == result["scores"][name]["n"]
        assert sum(kept[name]["values"]) / len(kept[name]["values"]) == pytest.approx(result["scores"][name]["value"])
    assert not any("values" in score for score in result["scores"].values())


def test_a_judge_that_cannot_look_at_the_model_says_so_before_erasing(tiny: Any) -> None:
    with pytest.raises(BadInput, match="knows no object 'wombat'"):
        tiny("concept.name=wombat", "concept.phrase=a wombat")
    with pytest.raises(BadInput, match="device=tpu is not available"):
        tiny("device=tpu")


# --- trackers ---------------------------------------------------------------------------------------------------


def test_the_jsonl_tracker_holds_every_step_also_of_an_edit_that_another_run_made(tiny: Any) -> None:
    for overrides in ((), ("sample.steps=3",)):
        result = tiny("tracker=jsonl", *overrides)
        events = [json.loads(line) for line in Path(result["tracker"]).read_text().splitlines()]
        assert [e["event"] for e in events] == ["start", *["step"] * 5, "finish"]
        assert all("anchor/loss" in e for e in events if e["event"] == "step")
        learned = ["train/loss" in e for e in events if e["event"] == "step"]
        assert learned == [False, False, True, True, True]  # the anchor comes first
        assert events[-1]["scores"].keys() == result["scores"].keys()


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run: W&B's protocol buffers in a LevelDB log, blocks of 32 KiB after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, pieces = file.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:  # too small for a header: the rest of the block is padding
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", raw, at + 4)
        pieces += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(pieces)
            pieces = b""


def test_an_offline_wandb_run_reads_back_with_config_scalars_scores_and_picture(tiny: Any, tmp_path: Path) -> None:
    result = tiny("tracker=wandb", "study=trial")
    (file,) = tmp_path.rglob("*.wandb")
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    run = None
    for record in wandb_records(file):
        if record.HasField("run"):
            run = record.run
        if record.HasField("history"):
            history.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
        if record.HasField("summary"):
            summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
    assert run is not None
    assert (run.run_group, run.job_type, run.run_id) == ("trial", "ac", result["run"])
    config = {i.key: json.loads(i.value_json) for i in run.config.update}
    assert config["concept"]["name"] == "fox"
    assert config["method"]["lr"] == result["config"]["method"]["lr"]
    assert [h["train_step"] for h in history if "anchor/norm" in h] == [0, 1, 2, 3, 4]
    assert [h["train_step"] for h in history if "train/loss" in h] == [2, 3, 4]  # the anchor comes first
    pictures = [h["grid/path"] for h in history if "grid/path" in h]
    assert len(pictures) == 1
    assert (file.parent / "files" / pictures[0]).exists()
    assert all(summary[k] == pytest.approx(v["value"]) for k, v in result["scores"].items())
    assert result["tracker"] == str(file.parent)


@pytest.mark.parametrize("moment", ["start", "step", "end"])
def test_wandb_failing_loses_no_run(tiny: Any, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    import wandb

    class Broken:
        offline, dir, summary = True, "nowhere/files", None

        def log(self, values: dict[str, Any]) -> None:
            if moment == "step":
                raise wandb.Error("the disk is full")

        def define_metric(self, *args: Any, **kw: Any) -> None: ...

        def finish(self, exit_code: int) -> None: ...

    def init(**settings: Any) -> Broken:
        if moment == "start":
            raise wandb.Error("no server")
        return Broken()

    monkeypatch.setattr("wandb.init", init)
    assert tiny("tracker=wandb")["scores"]


def test_a_tracker_is_closed_as_failed_when_the_run_fails(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[bool] = []
    monkeypatch.setattr(NoTracker, "finish", lambda self, scores, grid, failed: ends.append(failed) or "none")
    with pytest.raises(BadInput, match=r"lower method\.lr"):
        tiny("method.lr=1e30", "method.steps=6")
    assert ends == [True]


# --- the command ------------------------------------------------------------------------------------------------


def command(folder: Path, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "advanchor.cli", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_a_mistake_on_the_command_line_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    done = command(tmp_path, "concept=emoji/foxx")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "did you mean emoji/fox?" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_sweep_runs_every_cell_leaves_error_txt_in_the_failed_one_and_exits_with_1(tmp_path: Path) -> None:
    done = command(
        tmp_path, *TINY, "-m", "anchor=adversarial_faithful,adversarial", "method.lr=1e-4,1e30", "method.steps=6"
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    results, errors = list(tmp_path.glob("outputs/*/result.json")), list(tmp_path.glob("outputs/*/error.txt"))
    assert len(results) + len(errors) == 4
    assert errors
    assert all("lower method.lr" in e.read_text() for e in errors)
    assert f"sweep: {len(results)} of 4 done, 0 running, {len(errors)} failed, 0 left" in done.stdout + done.stderr
    assert all(str(e.parent.name) in done.stderr for e in errors)


@pytest.mark.slow
def test_several_sweeps_are_run_by_one_command_and_a_second_time_nothing_is_computed(tmp_path: Path) -> None:
    overrides = [
        "experiment=anchors,three_concepts",
        "model=random",
        "tracker=none",
        "concept=emoji/fox",
        "anchor=superclass",
        "metric=[erasure]",
        "sample.steps=1",
    ]
    done = command(tmp_path, *overrides)
    assert done.returncode == 0, done.stderr
    results = sorted(tmp_path.glob("outputs/*/result.json"))
    assert {json.loads(f.read_text())["config"]["study"] for f in results} == {"anchors", "three_concepts"}
    assert "sweep: 2 of 2 done, 0 running, 0 failed, 0 left" in done.stdout + done.stderr
    files = {
        f: f.stat().st_mtime_ns
        for f in (tmp_path / "outputs").rglob("*")
        if f.suffix in (".png", ".safetensors", ".pt", ".json")
    }
    again = command(tmp_path, *overrides)
    assert (again.stdout + again.stderr).count("nothing to compute") == 2
    assert {f: f.stat().st_mtime_ns for f in files} == files


RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'advanchor[ray]'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    ["workers", "submitit_local", pytest.param("ray", marks=RAY)],
)
def test_a_launcher_is_one_word_and_what_fails_in_its_workers_is_said_at_the_end(tmp_path: Path, launcher: str) -> None:
    done = command(
        tmp_path, *TINY, "metric=[erasure]", "-m", "method.lr=1e-4,1e30", "method.steps=6", f"hydra/launcher={launcher}"
    )
    assert done.returncode == 1, done.stdout
    assert "sweep: 1 of 2 done, 0 running, 1 failed, 0 left" in done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("lower method.lr (now 1e+30), or anchor.lr.")
    assert len(list(tmp_path.glob("outputs/*/result.json"))) == 1


@pytest.mark.slow
def test_two_processes_with_the_same_sweep_share_its_cells(tmp_path: Path) -> None:
    sweep, one = (
        [sys.executable, "-m", "advanchor.cli", *TINY, "-m", "seed=0,1,2"],
        {**os.environ, "OMP_NUM_THREADS": "1"},
    )  # as many threads as cores in each of two thrash
    both = [
        subprocess.Popen(sweep, cwd=tmp_path, env=one, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert len(list(tmp_path.glob("outputs/*/result.json"))) == 3
    # Each cell was computed by one of them; the other left it alone or found it complete.
    assert said.count("left to it") + said.count("nothing to compute") == 3


@pytest.mark.slow
def test_two_processes_with_the_same_run_share_its_images_and_one_measures(tmp_path: Path) -> None:
    # A batch of one is many batches, and a sampling of some length leaves the second time to come.
    slow = ["batch=1", "sample.steps=40", "metric=[erasure]"]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "advanchor.cli", *(word for word in TINY if word != "batch=6"), *slow],
            cwd=tmp_path,
            env=one,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert "drawing with it ..." in said
    assert "its images are drawn, the rest is left to it." in said
    (result,) = tmp_path.glob("outputs/*/result.json")
    folder = tmp_path / "outputs" / json.loads(result.read_text())["artifacts"]["samples"]
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == len(set(sums)) == len(list(folder.glob("*.png"))) + 1  # its name; each image was made once


def test_the_command_ends_with_a_table_of_before_and_after(tmp_path: Path) -> None:
    done = command(tmp_path, *TINY)
    assert done.returncode == 0, done.stderr
    for words in (
        "fox: found",
        "fox: rest of the sentence found",
        "kept: own concept found",
        "neighbours: own concept found",
        "no picture of anything",
        "judges agree",
        "CLIP score",
        "FID",
        "cost",
        "changed",
        "pictures",
        "cosine_span",
    ):
        assert words in done.stdout


@pytest.mark.slow
def test_a_built_wheel_carries_its_configs_and_assets_and_runs_anywhere(tmp_path: Path) -> None:
    checkout = Path(__file__).resolve().parents[1]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    (tmp_path / "elsewhere").mkdir()
    done = command(tmp_path / "elsewhere", *TINY, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr
    record = json.loads(next((tmp_path / "elsewhere/outputs").glob("*/result.json")).read_text())
    assert record["environment"]["commit"] is None  # the wheel ran, not the checkout
