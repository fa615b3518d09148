"""No erasure of ours: an edit that somebody else made, to be judged, attacked and compared like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advanchor.concept import Concept
from advanchor.core import BadInput, Log, option
from advanchor.exchange import released
from advanchor.methods.guidance import anchorless
from advanchor.protocols import Edit, Model, Target


@option("method")
class Load:
    """A checkpoint of an erased model (exchange/released.py: ESD, AC, UCE, SPM, SalUn, LoRAs, text encoders, folders).

    Attributes:
        edit: the file, .safetensors or a pickle of tensors, or a folder in the diffusers layout. What is in it
            identifies the run, not where it is.
    """

    name: str
    edit: str | None
    version: int = 1

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if there is no such file: known before a model is loaded."""
        released.check(self.place())

    def place(self) -> Path:
        """Raise BadInput if none is set."""
        if not self.edit:
            raise BadInput("method=load needs the checkpoint of an erased model: add method.edit=<file or folder>.")
        return Path(self.edit).expanduser()

    def erase(self, model: Model, targets: Sequence[Target], seed: int, folder: Path, log: Log) -> Edit:
        anchorless(model, targets, "method=load takes an edit as it is")
        return released.read(self.place(), model)
