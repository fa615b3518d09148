"""Artifacts are named by what made them, and a name means complete."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from omegaconf import OmegaConf
from PIL import Image

from advanchor import identity
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.hub import ASSETS
from advanchor.identity import IDENTITY, contents, file_digest, key, run_id
from advanchor.images import draw
from advanchor.prompts import Prompt
from advanchor.store import SUMS, cached, finish, lock, part_of, slug, verified


def test_key_ignores_the_order_of_keys_and_where_a_class_lives() -> None:
    a = OmegaConf.create({"_target_": "advanchor.old.A", "x": 1, "y": [1, 2]})
    b = OmegaConf.create({"y": [1, 2], "x": 1, "_target_": "advanchor.new.A"})
    assert key(a) == key(b)
    assert key(a) != key({"x": 1, "y": [2, 1]})
    assert key(a) != key({**a, "_target_": "advanchor.old.B"})  # another class with the same settings


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("seed=1", False),
        ("method.lr=0.5", False),
        ("concept=emoji/cat", False),
        ("sample.steps=3", False),
        ("anchor.steps=3", False),
        ("model.seed=1", False),
        ("tracker=none", True),
        ("metric=[kid]", True),
        ("batch=7", True),
        ("root=elsewhere", True),
        ("judge=none", True),
    ],
)
def test_a_run_is_named_by_what_decides_its_images_and_nothing_else(override: str, same: bool) -> None:
    assert (run_id(compose(["model=random"])) == run_id(compose(["model=random", override]))) is same


def test_identity_names_real_groups() -> None:
    assert set(IDENTITY) <= set(compose(["model=random"]))


def test_cached_builds_once(tmp_path: Path) -> None:
    built = []
    for _ in range(2):
        folder = cached(tmp_path, "a", lambda part: (built.append(1), (part / "x").write_text("1"))[0])
    assert built == [1]
    assert (folder / "x").read_text() == "1"


def test_a_build_that_dies_has_no_name_and_goes_on_with_its_files(tmp_path: Path) -> None:
    def die(part: Path) -> None:
        (part / "first").write_text("kept")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "a", die)
    assert not (tmp_path / "a").exists()
    seen = []
    cached(tmp_path, "a", lambda part: seen.append((part / "first").read_text()))
    assert seen == ["kept"]


def test_a_held_lock_is_seen_and_freed(tmp_path: Path) -> None:
    with lock(tmp_path / "l") as first, lock(tmp_path / "l", block=False) as second:
        assert (first, second) == (True, False)
    with lock(tmp_path / "l", block=False) as again:
        assert again


def test_a_file_has_its_name_only_when_its_digest_is_written_and_any_flipped_byte_is_found(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for content in (b"first", b"second"):
        part_of(file).write_bytes(content)
        finish(file)
        assert verified(file) == content
    whole = file.read_bytes()
    for i in range(len(whole)):
        file.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(BadInput, match=f"damaged: delete the folder {tmp_path}"):
            verified(file)
    file.unlink()
    with pytest.raises(BadInput, match="damaged"):
        verified(file)


def test_a_digest_that_a_crash_cut_off_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / SUMS).write_text("0123abc")
    part_of(tmp_path / "x").write_text("1")
    finish(tmp_path / "x")
    assert verified(tmp_path / "x") == b"1"


def test_a_users_words_never_leave_their_folder_and_no_two_texts_share_a_name() -> None:
    names = [
        slug(words)
        for words in ("/elsewhere/x", "../../x", "AC/DC", "AC DC", "<script>", "", "a" * 300, "a" * 299, "müller")
    ]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 80 for name in names)


def test_a_model_is_its_weights_wherever_they_lie_and_others_behind_the_same_path_are_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contents("bundled")
    shutil.copytree(ASSETS / "emoji", tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    ids = [run_id(compose(["model=sd14", f"model.path={path}"])) for path in ("m", "./m", tmp_path / "m", "m/../m")]
    assert len(set(ids)) == 1
    assert contents("m") == own
    (tmp_path / "m/README.md").write_text("not loaded")
    assert contents("m") == own
    (tmp_path / "m/unet").rename(tmp_path / "elsewhere")
    (tmp_path / "m/unet").symlink_to(tmp_path / "elsewhere")
    assert contents("m") == own
    weights = tmp_path / "m/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert contents("m") != own
    assert run_id(compose(["model=sd14", "model.path=m"])) != ids[0]


def test_what_a_file_of_prompts_holds_identifies_and_not_where_it_lies(tmp_path: Path) -> None:
    for name, text in (("a.csv", "a fox"), ("b.csv", "a fox"), ("c.csv", "a red fox")):
        (tmp_path / name).write_text(f"prompt\n{text}\n")
    a, b, c = (key({"prompts_csv": str(tmp_path / f"{name}.csv")}) for name in "abc")
    assert a == b != c
    assert key({"keep": {"path": "a path"}}) != key({"keep": {"path": "a road"}})  # a kept concept of that name


def test_the_digest_of_a_large_file_is_remembered_and_a_damaged_memory_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "LARGE", 1)
    (tmp_path / "w").write_text("weights")
    memory = tmp_path / "store/weights.json"
    first = file_digest(tmp_path / "w", memory)
    for damage in ("", "{", "[]", '{"x": 1}'):
        memory.write_text(damage)
        monkeypatch.setattr(identity, "_digests", {})
        assert file_digest(tmp_path / "w", memory) == first
    monkeypatch.setattr(identity, "_digests", {})
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert file_digest(tmp_path / "w", memory) == first


def test_processes_that_draw_into_one_folder_share_the_batches_and_each_gets_all(tmp_path: Path) -> None:
    prompts = [Prompt("a fox", seed) for seed in range(12)]
    drawn: list[Prompt] = []

    def paint(group: Sequence[Prompt]) -> list[Image.Image]:
        drawn.extend(group)
        time.sleep(0.05)
        return [Image.new("RGB", (2, 2), (p.seed, 0, 0)) for p in group]

    with ThreadPoolExecutor(3) as threads:  # a lock belongs to who opened its file, a thread as well as a process
        all_of = [threads.submit(draw, paint, prompts, tmp_path / "s", batch=2, label="x") for _ in range(3)]
    assert sorted(p.seed for p in drawn) == list(range(12))
    for one in all_of:
        assert [image.getpixel((0, 0))[0] for image in one.result().pictures] == list(range(12))


def test_batches_that_overlap_are_drawn_at_once_and_kept_whole(tmp_path: Path) -> None:
    """Two runs with other prompts share the unedited model's images."""

    def paint(group: Sequence[Prompt]) -> list[Image.Image]:
        time.sleep(0.02)
        return [Image.new("RGB", (2, 2), (p.seed, 0, 0)) for p in group]

    every = [Prompt("a fox", seed) for seed in range(9)]
    with ThreadPoolExecutor(2) as threads:
        sets = [every, every[1:]]
        found = [threads.submit(draw, paint, some, tmp_path / "s", batch=2, label="x") for some in sets]
    for some, one in zip(sets, found, strict=True):
        assert [image.getpixel((0, 0))[0] for image in one.result().pictures] == [p.seed for p in some]


def test_who_waits_for_a_batch_draws_it_if_its_painter_fails(tmp_path: Path) -> None:
    prompts, begun = [Prompt("a fox", 0)], Event()

    def dies(group: Sequence[Prompt]) -> list[Image.Image]:
        begun.set()
        time.sleep(0.3)
        raise RuntimeError

    with ThreadPoolExecutor(2) as threads:
        bad = threads.submit(draw, dies, prompts, tmp_path / "s", batch=1, label="x")
        begun.wait()
        good = threads.submit(
            draw, lambda group: [Image.new("RGB", (2, 2))], prompts, tmp_path / "s", batch=1, label="x"
        )
    assert len(good.result().pictures) == 1
    assert isinstance(bad.exception(), RuntimeError)
