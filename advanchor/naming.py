"""Names in sentences: found as whole words in any case and number, and put into slots."""

from __future__ import annotations

import re
from functools import cache

APART = r"(?<![^\W_]){}(?![^\W_])"  # no letter and no digit touches it


@cache
def whole(words: str) -> re.Pattern[str]:
    """Finds the words in a sentence: whole ones, in any case; never a part of another word."""
    return re.compile(APART.format(r"\s+".join(map(re.escape, words.split()))), re.IGNORECASE)


@cache
def named(name: str) -> re.Pattern[str]:
    """Finds the name as `whole` does, in the singular and in English's regular plural: "fox" in "foxes" and back."""
    *before, last = name.split()
    shorter = [last[:-1], last[:-2], *(last[:-3] + end for end in ("y", "f", "fe"))]
    ends = {last, *plurals(last), *(word for word in shorter if word and last.lower() in plurals(word))}
    words = [*map(re.escape, before), f"(?:{'|'.join(map(re.escape, sorted(ends)))})"]
    return re.compile(APART.format(r"\s+".join(words)), re.IGNORECASE)


def plurals(word: str) -> set[str]:
    """The regular plural of an English word, in small letters: foxes, ladies, cars; both of wolves and chefs."""
    word = word.lower()
    if re.search(r"(s|x|z|ch|sh)$", word):
        return {word + "es"}
    if re.search(r"[^aeiou]y$", word):
        return {word[:-1] + "ies"}
    if word.endswith("o"):
        return {word + "s", word + "es"}
    return {word + "s", re.sub("fe?$", "ves", word)} if re.search("fe?$", word) else {word + "s"}


def same(name: str, other: str) -> bool:
    """Are the two names one, whatever their case and number?"""
    return named(other).fullmatch(name.strip()) is not None


def mentions(sentence: str, name: str, own: str = "") -> bool:
    """Does the sentence name it, in words of their own, whatever their case and number?

    Args:
        own: what the sentence is about. Where that holds the name as a part ("hot dog" for "dog"), those words are not
            looked at.
    """
    if own and named(name).search(own):
        sentence = named(own).sub(" ", sentence)
    return named(name).search(sentence) is not None


def slots(sentence: str) -> list[str]:
    """All that stands in braces, and single braces."""
    return re.findall(r"\{[^{}]*\}|[{}]", sentence)


def fill(sentence: str, name: str, phrase: str) -> str:
    """The sentence with its slots filled and spaces tidied, so that an empty phrase leaves a clean sentence."""
    return " ".join(sentence.replace("{name}", name).replace("{}", phrase).split())
