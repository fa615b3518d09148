"""What may stand before the overrides of a command, and the module whose `main` does it.

A `main` returns what is printed; or, where the command can find something wrong, a pair of that and what is said of it
(None: nothing is wrong), with which the exit code is 1.
"""

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
}
