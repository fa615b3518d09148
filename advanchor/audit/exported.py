"""Is an exported model that of a run? Its weights' digests, once its tensors have been held against the run's edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import advanchor
from advanchor.audit.made_of import weights_of
from advanchor.audit.seal import digest
from advanchor.core import BadInput


def weights_in(folder: Path, result: dict[str, Any], config_dir: str | None = None) -> dict[str, str]:
    """Name -> sha256 of each file with weights of an exported model.

    Raises:
        BadInput: there are none, or a tensor is not what the run's edit makes of it; as `advanchor.load`.
    """
    import torch

    from advanchor.exchange import released
    from advanchor.models import saving

    found = weights_of(folder) if folder.is_dir() else []
    if not found:
        raise BadInput(f"--model={folder} holds no weights: name a folder that `advanchor export` wrote.")
    place = folder / saving.LORA if (folder / saving.LORA).exists() else folder
    model, edit = advanchor.load(result, config_dir)
    frozen = {**model.weights("full"), **model.weights("text_encoder")}
    ours, theirs = (
        {**saving.whole(model, one), **{name: t for name, t in one.items() if name.startswith("text_encoder")}}
        for one in (edit, released.read(place, model))
    )
    for name in sorted({*ours, *theirs}):
        mine, other = (one.get(name, frozen[name]).detach().cpu().to(frozen[name].dtype) for one in (ours, theirs))
        if not torch.allclose(mine.float(), other.float()):
            remedy = "export the run again, or name the folder that is its own"
            raise BadInput(f"--model={folder} is not the model of this run, since {name} differs: {remedy}.")
    return {f"{folder.name}/{file.relative_to(folder).as_posix()}": digest(file) for file in found}
