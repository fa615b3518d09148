"""What the judge's detectors say of images: each of them, and whether they say the same; and what else than its label a
sentence asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from advanchor.core import Head
from advanchor.naming import mentions
from advanchor.prompts import Prompt
from advanchor.protocols import Judge

Thing = tuple[Head, str]  # what a head should find


def verdicts(judge: Judge, look: Callable[[str], list[bool]]) -> dict[str, list[bool]]:
    """What each detector says of each image, {"": the first, "2": the second}, and of several "agree": do they say the
    same?

    Args:
        look: a detector's name -> what it says of each image.
    """
    each = [look(by) for by in judge.judges]
    said = {str(i) if i > 1 else "": one for i, one in enumerate(each, 1)}
    return said | ({"agree": [len(set(of_one)) == 1 for of_one in zip(*each, strict=True)]} if len(each) > 1 else {})


def known(judge: Judge, heads: Iterable[Head]) -> dict[Head, Sequence[str]]:
    """What the judge can find by each of these heads that it has."""
    return {head: labels for head in heads if (labels := judge.labels(head))}


def other(p: Prompt, known: Mapping[Head, Sequence[str]], erased: Collection[Thing]) -> Thing | None:
    """The other thing that a sentence names: the one label of another head than the prompt's own that stands in it in
    words of its own and is not erased. None if there is none, or several: which of them it should show nobody can say.
    """
    also = [(head, label) for head in known for label in known[head] if head != p.head and mentions(p.text, label)]
    return also[0] if len(also) == 1 and also[0] not in erased else None
