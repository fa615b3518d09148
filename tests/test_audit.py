"""A record says what a run measured, and whatever becomes of it is found: by digests, a signature, or measuring anew"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

import advanchor
from advanchor import cli, provenance
from advanchor.audit import held, seal
from advanchor.audit.drawn import asked
from advanchor.audit.exported import weights_in
from advanchor.audit.page import page
from advanchor.audit.recomputed import differing, tolerance
from advanchor.audit.statement import command, limits
from advanchor.commands import audit, verify
from advanchor.commands.export import export
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.identity import run_id
from advanchor.ledger import check
from advanchor.store import SUMS, read_json
from advanchor.units import with_interval

WORDS = [*TINY, "method=esd", "method.lr=1e-2", "metric=[erasure]"]
GATE = ["gate=lenient", "gate.kept_lost=null", "gate.content_lost=null", "gate.nothing=null", "gate.fewest=1"]


def key(folder: Path, name: str) -> tuple[Path, Path]:
    """A private key and its public one, as openssl writes them."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private, files = ec.generate_private_key(ec.SECP256R1()), (folder / f"{name}.pem", folder / f"{name}.pub.pem")
    plain = form.NoEncryption()
    files[0].write_bytes(private.private_bytes(form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, plain))
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    files[1].write_bytes(public)
    return files


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of a root, an exported model, two keys, and a signed record."""
    folder = tmp_path_factory.mktemp("audit")
    assert cli.command([*WORDS, f"root={folder / 'runs'}"]) is None
    result = read_json(folder / "runs" / run_id(compose(WORDS)) / "result.json")
    export(result, folder / "exported", "tensors")
    private, _ = key(folder, "mine")
    key(folder, "theirs")
    flags = [f"--to={folder / 'record'}", f"--model={folder / 'exported'}", f"--sign={private}"]
    assert cli.command(["audit", *WORDS, *GATE, "gate.found=1", f"root={folder / 'runs'}", *flags]) is None
    return folder


@pytest.fixture
def record(base: Path, tmp_path: Path) -> Path:
    """A copy of the record, to be harmed."""
    return Path(shutil.copytree(base / "record", tmp_path / "record"))


def found(folder: Path, *flags: str) -> list[str]:
    """What `advanchor verify` finds wrong."""
    text, _ = verify.main([*flags, str(folder)])
    return [line.removeprefix("WRONG  ") for line in text.splitlines() if line.startswith("WRONG  ")]


def made_anew(folder: Path, change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]) -> None:
    """What somebody does who changes the predicate, the result and the metrics of a record and forgets nothing."""
    file = folder / "statement.json"
    said = json.loads(file.read_text())
    (metrics,) = (folder / "metrics").glob("*.json")
    result, measured = json.loads((folder / "result.json").read_text()), json.loads(metrics.read_text())
    predicate = said["predicate"]
    change(predicate, result, measured)
    (folder / "result.json").write_text(json.dumps(result))
    metrics.write_text(json.dumps(measured))
    (folder / "AUDIT.md").write_text(page(predicate))
    predicate["files"] = {name: seal.digest(folder / name) for name in predicate["files"]}
    file.write_text(json.dumps(said))
    (folder / SUMS).write_text(seal.sums(folder))


def better(folder: Path) -> Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]:
    """Every kept picture is said to be found, with the interval that would have."""

    def change(predicate: dict[str, Any], result: dict[str, Any], measured: dict[str, Any]) -> None:
        measured["keep/hit"] |= {"value": 1.0, "values": [1.0] * len(measured["keep/hit"]["values"])}
        result["scores"]["keep/hit"] = with_interval(asked(folder), "keep/hit", measured["keep/hit"])
        predicate["scores"]["keep/hit"] = {**result["scores"]["keep/hit"], "code": measured["keep/hit"]["code"]}

    return change


def test_a_record_that_nobody_touched_passes_with_its_key_and_its_exported_model(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--key={base / 'mine.pub.pem'}", f"--model={base / 'exported'}"]
    assert cli.command(["verify", str(base / "record"), *flags]) is None
    text = capsys.readouterr().out
    assert f"signed by {base / 'mine.pub.pem'}" in text
    assert f"sha256 of SHA256SUMS: {seal.digest(base / 'record' / SUMS)}" in text
    subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=base / "record", check=True)


def test_a_flipped_byte_is_found_in_every_file_wherever_it_is(record: Path) -> None:
    files = [*seal.files(record), SUMS]
    assert {"AUDIT.md", "statement.json", "edit.safetensors", "audit.sig", "grid.png", "prompts.csv"} <= {*files}
    for name in files:
        whole = (record / name).read_bytes()
        for i in {0, len(whole) // 2, len(whole) - 1}:
            (record / name).write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
            assert found(record), f"{name}, byte {i}"
        (record / name).write_bytes(whole)
    assert not found(record)


def test_every_flipped_byte_of_the_digests_is_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    whole = seal.sums(tmp_path).encode()
    for i in range(len(whole)):
        for bit in (1, 7):  # a line feed becomes a vertical tab, and a carriage return
            (tmp_path / SUMS).write_bytes(whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :])
            assert seal.broken(tmp_path), f"byte {i}"
    (tmp_path / SUMS).write_bytes(whole)
    assert seal.broken(tmp_path) == []


def test_a_file_too_few_or_too_many_is_found_and_so_is_a_link(record: Path) -> None:
    for name in [*seal.files(record)]:
        whole = (record / name).read_bytes()
        (record / name).unlink()
        assert f"{name} is gone" in found(record)
        (record / name).symlink_to(record / "elsewhere")
        assert f"{name} is a link: a record holds its files itself" in found(record)
        (record / name).unlink()
        (record / name).write_bytes(whole)
    for name in (".hidden", "metrics/more.json"):
        (record / name).write_text("{}")
        assert f"{name} is no file of this record" in found(record)
        (record / name).unlink()
    assert not found(record)
    (record / SUMS).unlink()
    with pytest.raises(BadInput, match="has no SHA256SUMS, so it is no record"):
        found(record)


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("AUDIT.md", "This is a record, not a certificate", "This is a certificate", "AUDIT.md is not the file that"),
        ("statement.json", "This is no certificate", "This is a certificate", "what it does not show was reworded"),
        ("statement.json", '"concept": "fox"', '"concept": "wolf"', "AUDIT.md does not say what statement.json says"),
        (
            "statement.json",
            "pass  found, resnet: 0.0",
            "pass  found, resnet: 1.0",
            "the gate does not say that of these",
        ),
        ("statement.json", '"better": "lower"', '"better": "higher"', "is not what statement.json says"),
    ],
)
def test_who_changes_one_file_and_makes_the_digests_anew_is_contradicted_by_the_others(
    file: str, old: str, new: str, why: str, record: Path
) -> None:
    text = (record / file).read_text()
    assert old in text
    (record / file).write_text(text.replace(old, new, 1))
    (record / SUMS).write_text(seal.sums(record))
    assert any(why in one for one in found(record)), found(record)


def test_who_makes_every_file_anew_is_found_by_the_signature_by_a_copied_digest_and_by_measuring_again(
    base: Path, record: Path
) -> None:
    made_anew(record, better(record))
    assert found(record) == []  # as AUDIT.md says
    assert found(record, f"--key={base / 'mine.pub.pem'}") == ["audit.sig is not this key's signature of these files"]
    assert seal.digest(record / SUMS) != seal.digest(base / "record" / SUMS)
    (wrong,) = found(record, "--recompute")
    assert wrong == "keep/hit is 1, and 0 when measured again: nothing may differ"


def test_a_record_measured_again_on_the_same_machine_has_the_same_scores_to_the_last_bit(
    base: Path, tmp_path: Path
) -> None:
    root = tmp_path / "again"
    text, wrong = verify.main(["--recompute", str(base / "record"), f"root={root}"])
    assert wrong is None
    scores = read_json(base / "runs" / run_id(compose(WORDS)) / "result.json")["scores"]
    assert f"on the same versions and kind of machine: {len(scores)} of {len(scores)} scores are the same" in text
    again = read_json(root / run_id(compose(WORDS)) / "result.json")
    assert {name: one["value"] for name, one in again["scores"].items()} == {n: s["value"] for n, s in scores.items()}
    assert not (root / "store/trails").exists()
    with pytest.raises(BadInput, match="is not empty, and nothing is taken from there"):
        verify.main(["--recompute", str(base / "record"), f"root={base / 'runs'}"])
    with pytest.raises(BadInput, match=r"make the run \w{12} here, and not"):
        verify.main(["--recompute", str(base / "record"), "seed=3"])
    with pytest.raises(BadInput, match="metric=fid here has other settings or files"):
        verify.main(["--recompute", str(base / "record"), "metric=[fid]"])


def test_elsewhere_a_score_may_be_off_by_what_two_pictures_change_and_the_rest_by_a_twentieth(record: Path) -> None:
    assert tolerance({"value": 0.5}, [0.0, 1.0] * 50) == pytest.approx(0.02)
    assert tolerance({"value": 1.0}, [1.0] * 100) == pytest.approx(0.02)  # another picture may be missed
    assert tolerance({"value": 30.0}, [10.0, 50.0] * 50) == pytest.approx(0.8)
    assert tolerance({"value": 60.0}, []) == pytest.approx(3.0)
    said = held.stated(record)["predicate"]
    again = json.loads(json.dumps(said))
    again["environment"]["python"] = "3.99"
    n = again["scores"]["keep/hit"]["n"]
    again["scores"]["keep/hit"]["value"] += 1 / n
    ((may, what),) = differing(record, said, again)
    assert may
    assert what.endswith(f": {2 / n:.3g} may")
    again["scores"]["keep/hit"]["value"] += 2 / n
    assert [may for may, _ in differing(record, said, again)] == [False]
    del again["scores"]["keep/hit"]
    assert [*differing(record, said, again)] == [(False, "keep/hit is stated, and was not measured again")]


def test_a_signature_holds_for_its_own_key_and_files_alone(base: Path, record: Path) -> None:
    mine, theirs = (f"--key={base / name}.pub.pem" for name in ("mine", "theirs"))
    no = ["audit.sig is not this key's signature of these files"]
    assert found(record, mine) == []
    assert found(record, theirs) == no
    text = (record / "AUDIT.md").read_text()
    (record / "AUDIT.md").write_text(f"{text}\n")
    (record / SUMS).write_text(seal.sums(record))
    assert no[0] in found(record, mine)
    (record / "AUDIT.md").write_text(text)
    (record / "audit.sig").unlink()
    (record / SUMS).write_text(seal.sums(record))
    assert found(record, mine) == ["there is no audit.sig: nobody signed this record"]


def test_a_key_that_is_none_or_a_package_that_is_missing_gets_one_sentence(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (base / "mine.pub.pem", base / "exported", base / "nowhere", base / "record/AUDIT.md"):
        with pytest.raises(BadInput, match=r"^--sign=.*(is no private key|cannot be read)"):
            audit.main([*WORDS, f"--sign={file}", "--to=nowhere"])
    with pytest.raises(BadInput, match=r"^--key=.*is no public key"):
        found(base / "record", f"--key={base / 'record/AUDIT.md'}")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for call in (
        lambda: audit.main([*WORDS, f"--sign={base / 'mine.pem'}", "--to=nowhere"]),
        lambda: found(base / "record", f"--key={base / 'mine.pub.pem'}"),
    ):
        with pytest.raises(BadInput, match=r"pip install 'advanchor\[sign\]'"):
            call()


def test_a_statement_is_one_of_in_totos_and_says_what_was_measured_how_and_what_that_does_not_show(base: Path) -> None:
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    text = (base / "record/statement.json").read_text()
    Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
    said, result = json.loads(text), json.loads((base / "record/result.json").read_text())
    assert {one["name"] for one in said["subject"]} == {"edit.safetensors", "exported/unet.safetensors"}
    predicate = said["predicate"]
    for name, score in result["scores"].items():
        assert predicate["scores"][name].items() > score.items()
        assert len(predicate["scores"][name]["code"]) == 10
    assert predicate["gate"]["passed"]
    assert predicate["gate"]["limits"]["found"] == 1
    assert predicate["config"] == result["config"]
    assert predicate["judge"]["detectors"] == ["resnet", "vit"]
    assert len(predicate["judge"]["files"]) > 5
    assert predicate["does_not_show"] == limits(sum(predicate["prompts"]["count"].values()), [])
    assert "No attack was tried." in predicate["does_not_show"][3]
    done = [json.loads(line) for line in (base / "runs/audit.jsonl").read_text().splitlines()][-1]
    assert predicate["result"] == done["result"]
    assert predicate["log"] == {"lines": 3, "head": check(base / "runs").head, "wrong": []}


def test_the_page_for_people_shows_every_score_the_pictures_and_the_limits(base: Path) -> None:
    text = (base / "record/AUDIT.md").read_text()
    predicate = json.loads((base / "record/statement.json").read_text())["predicate"]
    assert all(f"| `{name}` |" in text for name in predicate["scores"])
    assert all(one in text for one in predicate["does_not_show"])
    assert text.count("![before](pictures/") == len(predicate["shown"]) > 5
    assert all((base / "record" / one[at]).is_file() for one in predicate["shown"] for at in ("before", "after"))
    assert "It holds all of them" in text
    assert "- pass  found, resnet:" in text


def test_a_record_does_not_say_where_it_was_made(base: Path) -> None:
    for file in (base / "record").rglob("*"):
        if file.is_file() and file.suffix not in (".png", ".safetensors"):
            text = file.read_text()
            assert str(base) not in text, file
            assert str(Path(advanchor.__file__).parent) not in text, file
    words = ["model.path=/models/sd14", "seed=1", "root=/data", 'concept.prompts_csv="/a b/c.csv"', "anchor.text=a/b"]
    assert command(words) == ["model.path=sd14", "seed=1", 'concept.prompts_csv="a b/c.csv"', "anchor.text=a/b"]


def test_what_is_no_record_to_be_made_gets_one_sentence_and_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, to = [*WORDS, f"root={base / 'runs'}"], f"--to={tmp_path / 'new'}"
    other = tmp_path / "other"
    shutil.copytree(base / "exported", other)
    torch, files = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    tensors = files.load_file(other / "unet.safetensors")
    name = next(iter(tensors))
    files.save_file({**tensors, name: tensors[name] + torch.tensor(0.01)}, other / "unet.safetensors")
    for more, why in (
        (["seed=3", to], "holds no finished run: `advanchor "),
        (["seed=0,1", to], "a sweep of 2"),
        ([f"--to={base / 'record'}"], "nothing is written over"),
        ([], "say where, --to=<folder>"),
        (["metric=[]", to], r"the run has metric=erasure too.*say metric=\[erasure\]"),
        ([*GATE, "gate.nothing=0.5", to], "broken/erase, which no metric of the run measured"),
        ([f"--model={base / 'record/metrics'}", to], "holds no weights"),
        ([f"--model={other}", to], "is not the model of this run, since "),
        ([f"--to={base / 'mine.pem' / 'x'}"], "cannot be written"),
    ):
        with pytest.raises(BadInput, match=why):
            audit.main([w for w in words if not w.startswith("metric=") or "metric=[]" not in more] + more)
    module = "advanchor.metrics.erasure"
    monkeypatch.setitem(provenance.SOURCES, module, provenance.SOURCES[module] + b"\n# changed")
    with pytest.raises(BadInput, match="was made by other code"):
        audit.main([*words, to])
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_a_gate_that_is_not_held_stands_in_the_record_and_so_does_that_none_was_asked_for(
    base: Path, tmp_path: Path
) -> None:
    words = [*WORDS, f"root={base / 'runs'}"]
    text = audit.main([*words, *GATE, "gate.found=0", f"--to={tmp_path / 'failed'}"])
    assert "gate=lenient FAILS, not signed" in text
    assert "does **not** hold all of them" in (tmp_path / "failed/AUDIT.md").read_text()
    assert "no gate" in audit.main([*words, f"--to={tmp_path / 'none'}"])
    assert "held against no limits" in (tmp_path / "none/AUDIT.md").read_text()
    assert found(tmp_path / "failed") == found(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[:-40], r"is damaged \(line \d+: "),
        (lambda text: "[]", "is no in-toto Statement v1"),
        (lambda text: text.replace("urn:advanchor:audit:v1", "urn:other"), "states something else"),
        (lambda text: text.replace('"scores"', '"scorse"'), "its predicate has no scores"),
        (lambda text: text.replace('"subject"', '"object"'), "a subject needs a name"),
        (lambda text: text.replace('"name": "edit.safetensors"', '"name": "x"'), "is none of its subjects"),
    ],
)
def test_a_damaged_statement_gets_a_sentence_that_says_how(
    change: Callable[[str], str], why: str, record: Path
) -> None:
    file = record / "statement.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(BadInput, match=why):
        held.stated(record)
    assert len(found(record)) == 2  # its digest, and how
    (record / SUMS).write_text(seal.sums(record))
    with pytest.raises(BadInput, match=why):
        found(record)


def test_an_exported_model_in_any_form_is_told_from_another_runs(
    base: Path, tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    first, second = (
        read_json(base / "runs" / run_id(compose(WORDS)) / "result.json"),
        tiny("method=spm", "method.lr=1e-1"),
    )
    for form, own, other in (("folder", first, second), ("lora", second, first)):
        to = export(own, tmp_path / form, form)
        assert {f"{form}/{file.relative_to(to)}" for file in to.rglob("*.safetensors")} == weights_in(to, own).keys()
        with pytest.raises(BadInput, match="is not the model of this run"):
            weights_in(to, other)


def test_another_exported_model_than_the_records_is_found(base: Path, record: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(base / "exported", tmp_path / "model"))
    assert found(record, f"--model={model}") == []
    weights = model / "unet.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    (model / "more.safetensors").touch()
    assert found(record, f"--model={model}") == [
        f"{model / 'more.safetensors'} is not of this record",
        f"{weights} is not what it was",
    ]
    with pytest.raises(BadInput, match="is no folder"):
        found(record, f"--model={tmp_path / 'nowhere'}")
    with pytest.raises(BadInput, match="root=x is for --recompute"):
        found(record, "root=x")


def test_a_record_of_ones_own_options_is_measured_again_where_they_are_named(tmp_path: Path) -> None:
    own = tmp_path / "mine/concept"
    own.mkdir(parents=True)
    shutil.copy(Path(advanchor.__file__).parents[1] / "conf/concept/emoji/butterfly.yaml", own / "insect.yaml")
    words = [*(w for w in WORDS if not w.startswith("concept=")), "concept=insect"]
    there = [f"--config-dir={tmp_path / 'mine'}", *words, f"root={tmp_path / 'runs'}"]
    assert cli.command(there) is None
    assert cli.command(["audit", *there, f"--to={tmp_path / 'record'}"]) is None
    with pytest.raises(BadInput, match="If the run had options of its own, add --config-dir="):
        cli.command(["verify", str(tmp_path / "record"), "--recompute"])
    assert cli.command(["verify", str(tmp_path / "record"), "--recompute", f"--config-dir={tmp_path / 'mine'}"]) is None
