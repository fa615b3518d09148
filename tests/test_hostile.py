"""Whatever a user writes: a run that can be made, or one sentence before anything is loaded."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from advanchor.compose import compose
from advanchor.core import BadInput


def leaves(node: Any, path: str = "") -> list[str]:
    """The dotted names of all settings of a config, groups included."""
    found = [path] if path else []
    if isinstance(node, DictConfig):
        for name in node:
            found += leaves(node._get_node(name), f"{path}.{name}" if path else str(name))
    return found


SETTINGS = sorted({name for overrides in (["model=random"], ["model=random", "method=mace", "anchor=learned"], ["model=random", "method=esd", "anchor=noise"],
                                          ["concept=emoji/fox_and_car", "metric=[kid,cmmd,precision_recall]"], ["model=sd14", "model.path=advanchor/assets/emoji", "judge=sd"])
                   for name in leaves(OmegaConf.create(OmegaConf.to_container(compose(overrides), resolve=True)))})  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["null", "true", "nan", "inf", "-inf", "''", "0", "-1", "1e400", "1e-400", "[]", "{}", "[null]", "{a: 1}", "[1,2]", "???", "${seed}", "${nope}",
                     "/", "../..", "'  '", "a{}b", "{name}", "'{}'", "'{} {}'", "'<script>'", "'\\n'", "'\\x00'", "'müller'", "10000000000000000000000", "'1'", "1.0", "0x10", "1_0"]),
    st.integers().map(str), st.floats().map(str), st.text("abc{}'/.~=,[] $", max_size=6).map(lambda text: "'" + text.replace("'", "") + "'"),
)  # fmt: skip


def answer(overrides: list[str]) -> str:
    """ "ok", or the sentence."""
    try:
        compose(overrides)
    except BadInput as error:
        said = str(error)
        assert said.strip(), overrides
        assert "\n" not in said, overrides
        assert len(said) < 2500, overrides  # the list of all concepts
        return said
    return "ok"


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SETTINGS), VALUES, st.sampled_from(["", "", "", "+", "++"]))
def test_any_value_of_any_setting_is_taken_or_refused_in_one_sentence(name: str, value: str, prefix: str) -> None:
    answer([f"{prefix}{name}={value}"])
