"""Which code makes each stage of a run, told from its options alone: what a result keeps beside its numbers, and what a
number can be held against later, without a model being loaded.
"""

from __future__ import annotations

from advanchor.identity import file_digest, key
from advanchor.protocols import Anchor, Judge, Method
from advanchor.provenance import code


def erasing(made_by: str, method: Method, anchor: Anchor) -> str:
    """Of an edit.

    Args:
        made_by: the module that puts the model together (protocols.Model).
    """
    classes = (type(one).__module__ for one in (method, anchor))
    return code(made_by, *classes, "advanchor.anchors.similarity", "advanchor.training.closeness")


def drawing(made_by: str) -> str:
    """Of images, whatever they are of."""
    return code(made_by, "advanchor.images")


def seeing(judge: Judge) -> str:
    """Of what a judge sees in images, its weights included."""
    return key(code(type(judge).__module__), [file_digest(file) for file in judge.files()])


def measuring(metric: object, judge: Judge, seen_by: str, *more: str) -> str:
    """Of a metric's scores.

    Args:
        seen_by: `seeing` of the judge.
        more: of an attack's scores what `attacking` says.
    """
    return key(code(type(metric).__module__, type(judge).__module__), seen_by, *more)[:10]


def attacking(attack: object, made_by: str) -> str:
    """Of what an attack finds."""
    return code(type(attack).__module__, made_by)
