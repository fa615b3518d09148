"""What may stand before the overrides of a command, and the module whose `main` does it.

A `main` returns what is printed; or, where the command can find something wrong, a pair of that and what is said of it
(None: nothing is wrong), with which the exit code is 1.
"""

from pathlib import Path

VERBS = {
    "table": "advanchor.results.tables",
    "plot": "advanchor.results.figures",
    "front": "advanchor.results.front",
    "gate": "advanchor.results.gate",
    "tune": "advanchor.commands.tune",
    "export": "advanchor.commands.export",
    "doctor": "advanchor.commands.doctor",
    "gallery": "advanchor.commands.gallery",
    "report": "advanchor.commands.report",
    "audit": "advanchor.commands.audit",
    "verify": "advanchor.commands.verify",
}
PLACED = ("verify",)  # whose first word may be a folder or a file


def is_place(word: str) -> bool:
    """Is this a folder or a file, and no override?"""
    return "=" not in word or Path(word).expanduser().exists()
