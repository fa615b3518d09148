"""Where a model lies: in a folder, or, of a repository of the Hugging Face hub, `org/name` or `org/name@revision`, in
the hub's cache (HF_HOME, HF_HUB_CACHE).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from advanchor.core import BadInput

ASSETS = Path(__file__).parent / "assets"
BUNDLED = {"bundled": "emoji", "bundled_flow": "emoji_flow"}  # what ships with the package
NAME = re.compile(r"(?P<repository>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
PARTS = (*NETWORKS, "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler")
TEXTS = (".json", ".txt", "spiece.model")

log = logging.getLogger(__name__)


def repository(path: str) -> tuple[str, str] | None:
    """Repository and revision of a path that names one; a folder or file that is there is itself."""
    found = NAME.fullmatch(path)
    if not found or Path(path).expanduser().exists():
        return None
    return found["repository"], found["revision"] or "main"


def place(path: str) -> Path:
    """The absolute folder or file of a model's path, which need not be there: "bundled" and "bundled_flow" are
    the emoji models; of a repository it is the copy in the hub's cache, looked for without a network.
    """
    if path in BUNDLED:
        return ASSETS / BUNDLED[path]
    if named := repository(path):
        from huggingface_hub import errors, try_to_load_from_cache

        try:
            found = try_to_load_from_cache(named[0], "model_index.json", revision=named[1])
        except errors.HFValidationError:  # a path that no repository can have
            found = None
        if isinstance(found, str):
            return Path(found).parent
    return Path(path).expanduser().resolve()


def wanted(names: Sequence[str]) -> list[str]:
    """Of a repository's files those that are loaded: configs, tokenizer, and of each network the safetensors, in half
    precision where there are no others.
    """
    parts = {part: [n.removeprefix(f"{part}/") for n in names if n.rpartition("/")[0] == part] for part in PARTS}
    found = {f"{part}/{n}" for part, own in parts.items() for n in own if n.endswith(TEXTS) and ".index." not in n}
    found |= {f"{part}/{file}" for part in NETWORKS for file in weights_of(part, parts[part])}
    return sorted({*found, *(name for name in names if name == "model_index.json")})


def weights_of(part: str, names: Collection[str]) -> list[str]:
    """Of the names in a network's folder those of its weights: one file, or an index and the files it is cut into; in
    half precision if there are no others; none if there are none.
    """
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    for half in ("", ".fp16"):
        index, cut = f"{stem}.safetensors.index{half}.json", re.compile(rf"{stem}{half}-\d+-of-\d+\.safetensors")
        whole = [one] if (one := f"{stem}{half}.safetensors") in names else []
        pieces = [index, *sorted(filter(cut.fullmatch, names))] if index in names else []
        # which of both is loaded where both are there: transformers takes the whole, diffusers the pieces
        if found := whole or pieces if stem == "model" else pieces or whole:
            return found
    return []


def fetch(path: str, weights: bool) -> None:
    """Download what a path's repository lacks in the cache: configs and tokenizers, which decide whether it will do,
    and `weights`, whose size is said first.

    Raises:
        BadInput: it is no repository, or cannot be had.
    """
    named = repository(path)
    if named is None:
        return
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    which, revision = named
    try:
        names = [one.rfilename for one in HfApi().model_info(which, revision=revision).siblings or []]
        chosen = wanted(names)
        if "model_index.json" not in chosen:
            raise BadInput(f"{which} is no diffusers pipeline (no model_index.json in it): name another repository.")
        if not weights:
            snapshot_download(which, revision=revision, allow_patterns=[n for n in chosen if "safetensors" not in n])
            return
        files = snapshot_download(which, revision=revision, allow_patterns=chosen, dry_run=True)
        missing = [file for file in files if file.will_download]
        size = sum(file.file_size or 0 for file in missing)
        log.info(
            "fetching %d files, %.3g GB, of %s@%s into %s ...",
            *(len(missing), size / 1e9, which, revision, constants.HF_HUB_CACHE),
        )
        snapshot_download(which, revision=revision, allow_patterns=chosen)
    except errors.OfflineModeIsEnabled:
        raise BadInput(
            f"{path} is no folder here, and the hub's cache ({constants.HF_HUB_CACHE}) has no whole copy of such a "
            "repository: name a folder, or leave HF_HUB_OFFLINE out to fetch it."
        ) from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"{which} has no revision {revision}: name another one, or none for main.") from None
    except errors.RepositoryNotFoundError:  # a gated one too
        raise BadInput(
            f"{path} is no folder here, and the hub has no repository {which} that may be read: name another one, or "
            "log in by `hf auth login` if its terms were accepted."
        ) from None
    except BadInput:
        raise
    except Exception as error:  # which library carries the bytes is the hub's affair
        raise BadInput(
            f"{path} is no folder here, and {which} cannot be fetched from the hub "
            f"({' '.join(str(error).split())[:150]}): name a folder, or try again with a network."
        ) from None
