"""What may stand before the overrides of a command, and the module whose `main` does it."""

VERBS = {
    "table": "advanchor.results.tables",
    "plot": "advanchor.results.figures",
    "front": "advanchor.results.front",
    "tune": "advanchor.commands.tune",
    "export": "advanchor.commands.export",
    "doctor": "advanchor.commands.doctor",
    "gallery": "advanchor.commands.gallery",
}
