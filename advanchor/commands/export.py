"""`advanchor export key=value ... --to=folder`: a finished run's model, to be used without us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import advanchor
from advanchor.commands.folder import new_folder
from advanchor.compose import compose, expand
from advanchor.core import BadInput
from advanchor.exchange.card import card, shared
from advanchor.identity import run_id
from advanchor.report import attacks_of, lines_of
from advanchor.results.sweep import erasures
from advanchor.results.tables import parted
from advanchor.run import result_in
from advanchor.store import write_json

HELP = """\
advanchor export key=value ... --to=<folder>   the model of a finished run, as others use it, with a model card

--as=folder                     the whole pipeline in the diffusers layout, in float32 (unless told otherwise)
--as=tensors                    the changed tensors alone, under diffusers' names, as ESD and UCE are released
--as=lora                       a LoRA of diffusers, of a method that learns low-rank factors (spm)
--help                          this text

The words are those of the run: `advanchor method=esd seed=1` is exported by `advanchor export method=esd seed=1`."""
SHOWN = {  # how each form is loaded
    "folder": "pipe = diffusers.DiffusionPipeline.from_pretrained('<this folder>'{without})",
    "tensors": "for file in folder.glob('*.safetensors'):    # called unet, transformer, text_encoder ...\n"
    "    network, tensors = getattr(pipe, file.stem), safetensors.torch.load_file(file)\n"
    "    assert not network.load_state_dict(tensors, strict=False).unexpected_keys    # names of transformers 5",
    "lora": "pipe.load_lora_weights('<this folder>')    # needs peft",
}


def export(result: dict[str, Any], to: Path, form: str = "folder", config_dir: str | None = None) -> Path:
    """Write the model of a run's result to a folder that is not there yet, with README.md (the card) and result.json.

    Args:
        form: folder, tensors or lora.

    Raises:
        BadInput: as `advanchor.load`; the folder is there; this form cannot say what the run changed.
    """
    from advanchor.models import saving

    if form not in SHOWN:
        raise BadInput(f"--as={form} is no form of a model: take one of {', '.join(SHOWN)}.")
    with new_folder(to) as part:
        model, edit = advanchor.load(result, config_dir)
        changed = {**saving.whole(model, edit), **{n: t for n, t in edit.items() if n.startswith("text_encoder")}}
        {"folder": saving.pipeline, "tensors": saving.tensors, "lora": saving.lora}[form](model, edit, part)
        scores, result = result["scores"], shared(result)
        measured = "\n".join([*lines_of(scores, result["config"]["concept"]["name"]), *attacks_of(scores)])
        without = "".join(f", {name}=None" for name in saving.lacking(model))
        counted = {"tensors": len(changed), "parameters": sum(t.numel() for t in changed.values())}
        said = card({**result, "changed": counted}, measured, SHOWN[form].replace("{without}", without))
        (part / "README.md").write_text(said)
        write_json(part / "result.json", result)
    return to


def main(args: Sequence[str]) -> str:
    """The command's arguments -> what was written."""
    flags, overrides = parted("export", args, ["--to=<folder>", *(f"--as={form}" for form in SHOWN), "--help"])
    if "--help" in flags:
        return HELP
    if not flags.get("--to"):
        raise BadInput("export writes a folder: say where, --to=<folder>.")
    if len(runs := expand(overrides)) != 1:
        raise BadInput(f"export takes one run, and this is a sweep of {len(runs)}: name one.")
    cfg = compose(runs[0])
    erasures([cfg], "export")
    folder = Path(cfg.root) / run_id(cfg)
    if (result := result_in(cfg, folder)) is None:
        raise BadInput(f"there is no result in {folder}: make the run first, by the same words without export.")
    own = next((word.partition("=")[2] for word in overrides if word.startswith("config_dir=")), None)
    to = export(result, Path(flags["--to"]).expanduser(), flags.get("--as", "folder"), own)
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file()) / 1e6
    return f"wrote {to}: {size:.1f} MB, with README.md (the model card) and result.json"
