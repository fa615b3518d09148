"""How far is the edited model from models that never learned the concept? Their pictures of the same prompts and seeds,
and their predictions, are what an erasure should leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from math import fsum
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from advanchor.concept import Concept
from advanchor.core import BadInput, Scores, mean, option
from advanchor.images import Images
from advanchor.lazy import torch
from advanchor.metrics.distance import cmmd, kid
from advanchor.metrics.sound import finite
from advanchor.naming import mentions
from advanchor.prompts import Prompt, Sample
from advanchor.protocols import Edit, Judge, Model
from advanchor.references import MADE, about, ignorant

if TYPE_CHECKING:
    from torch import Tensor

SIDES = ("erase", "keep")
SIGMA = 10.0  # CMMD's kernel, as in its paper
TIMES, LATENTS = 10, 16  # of the prediction distance: timesteps, and images that are looked at


@option("metric")
class Reference:
    """Distances to the references, models that were trained without the concept; lower is closer.

    `reference/labels`: total variation between what the first detector calls the erased prompts' images and what it
    calls the reference's, nothing among it; mean over the erased concepts. `reference/kid_erase`, `_keep`, and `cmmd_`
    the same: as the metrics kid and cmmd, x 1000. `reference/eps`: mean squared difference of the predictions, also
    for each timestep (`reference/eps:50`). All are means over the references, and each has

    - `@base`: the unedited model's distance to them, where the erasure began;
    - `@floor`: that of references of different seeds to each other, the closest that can be expected;
    - `@noise`: the unedited model's to models of the references' training that learned everything, what another
      training alone does.

    `reference/draws`: share of the kept prompts' images of all these other models in which the first detector finds
    what is asked for: are they any good?

    Prompts that name something else that the references never knew are left out.

    Attributes:
        references: folders of models that never knew the concept, of two seeds or more.
        floor: folders of models of the same training, with everything.
    """

    fewest: ClassVar = 2
    name: str
    references: tuple[str, ...]
    floor: tuple[str, ...]
    version: int = 1

    @property
    def networks(self) -> tuple[str, ...]:
        """The folders of all models whose images are looked at, which the set `<side>@<folder>` has."""
        return tuple(dict.fromkeys((*self.references, *self.floor)))

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of images that it looks at."""
        return tuple(side + which for side in SIDES for which in ("", "@base", *(f"@{one}" for one in self.networks)))

    def suits(self, concept: Concept) -> None:
        """Raise BadInput if a folder is no such model, or they do not belong together; nothing is loaded."""
        setting = f"metric.{self.name}.references"
        if not self.references:
            raise BadInput(
                f"{setting} is empty: name the folders of two models that never knew {concept.name}; {MADE}."
            )
        told = {folder: about(folder) for folder in self.networks}
        for folder in self.references:
            ignorant(folder, [concept.name], setting)
        for folder in self.floor:
            if without := told[folder]["without"]:
                raise BadInput(
                    f"metric.{self.name}.floor: {folder} was trained without {', '.join(without)}, "
                    "and these are to have learned everything: name it among the references, or another one here."
                )
        if len({told[folder]["seed"] for folder in self.references}) < max(2, len(self.references)):
            raise BadInput(f"{setting} must be models of two seeds or more, each of its own: they are their own floor.")
        for what in ("steps", "again", "data", "encoders"):
            if len({told[folder].get(what) for folder in self.networks}) > 1:
                raise BadInput(f"{setting} and floor differ in their {what}: name models of one training.")
        if len({tuple(told[folder]["without"]) for folder in self.references}) > 1:
            raise BadInput(f"{setting} were trained without different names: name models that lack the same.")

    def fair(self, prompts: Mapping[str, Sequence[Prompt]]) -> dict[str, list[Prompt]]:
        """The prompts that name nothing which the references never knew but what is erased.

        Raises:
            BadInput: too few.
        """
        erased = {p.label for p in prompts["erase"]}
        unknown = set(about(self.references[0])["without"]) - erased
        found = {}
        for side in SIDES:
            found[side] = [
                p
                for p in prompts[side]
                if p.label not in unknown and not any(mentions(p.text, one, p.label) for one in unknown)
            ]
            if len(found[side]) < self.fewest:
                raise BadInput(
                    f"metric {self.name}: {len(found[side])} prompts of `{side}` name nothing else that the references "
                    f"never knew ({', '.join(sorted(unknown))}), and {self.fewest} are needed: raise sample.{side}, or "
                    "name others."
                )
        return found

    def __call__(self, judge: Judge, images: Mapping[str, Images]) -> Scores:
        fair = self.fair({side: images[side].prompts for side in SIDES})
        others = [f"@{folder}" for folder in self.networks]
        shown = {
            side + which: replace(images[side + which], prompts=fair[side])
            for side in SIDES
            for which in ("", "@base", *others)
        }
        said = {which: called(judge, shown[f"erase{which}"]) for which in ("", "@base", *others)}
        scores = self.over("labels", lambda a, b: variation(said[a], said[b]), len(fair["erase"]))
        looks: dict[str, tuple[Callable[[Any, Any], float], Callable[..., Tensor], str]] = {
            "kid": (kid, judge.features, judge.extractor),
            "cmmd": (lambda x, y: cmmd(x, y, SIGMA), judge.embed, judge.embedder),
        }
        for name, (far, look, extractor) in looks.items():
            what = {"kid": "features", "cmmd": "embed"}[name]
            seen = {
                one: finite(drawn.seen(what, look), self.name, f"{what} of `{one}`") for one, drawn in shown.items()
            }
            for side in SIDES:
                each = {which: seen[side + which] for which in said}
                found = self.over(f"{name}_{side}", lambda a, b: 1000 * far(each[a], each[b]), len(fair[side]))  # noqa: B023
                scores |= {name: {**score, "extractor": extractor} for name, score in found.items()}
        right = zip(*(shown[f"keep{which}"].right(judge) for which in others), strict=True)
        drawn = mean([fmean(of_one) for of_one in right], "higher")
        return {**scores, "reference/draws": {**drawn, "texts": [p.text for p in fair["keep"]]}}

    def predictions(
        self, model: Model, edits: Mapping[str, Edit], prompts: Mapping[str, Sequence[Prompt]], sample: Sample
    ) -> Scores:
        """`reference/eps`: of what is predicted for what the unedited model draws of the erased prompts,
        noised to TIMES timesteps that are spread evenly.

        Args:
            edits: {"": ..., "@base": ..., "@<folder>": ...}, what makes the model each of these.
        """
        fair = self.fair(prompts)["erase"]
        some = [fair[i * len(fair) // min(LATENTS, len(fair))] for i in range(min(LATENTS, len(fair)))]
        texts, seeds = [p.text for p in some], [p.seed for p in some]
        z = model.latents(texts, seeds, steps=sample.steps, guidance=sample.guidance)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(model.device)
        times = [(2 * i + 1) * model.timesteps // (2 * TIMES) for i in range(TIMES)]
        said: dict[str, dict[int, Tensor]] = {}
        for which, edit in edits.items():
            with model.edited(edit), torch.no_grad():
                cond, each = model.encode(texts), [torch.full((len(z),), t, device=model.device) for t in times]
                said[which] = {
                    time: model.predict(model.noised(z, t, noise), t, cond).double()
                    for time, t in zip(times, each, strict=True)
                }

        def far(a: str, b: str, times: Sequence[int] = times) -> float:
            return fmean(float((said[a][t] - said[b][t]).square().mean()) for t in times)

        scores = self.over("eps", far, len(z))
        for t in times:
            scores |= self.over(f"eps:{t}", partial(far, times=[t]), len(z))
        return scores

    def over(self, name: str, far: Callable[[str, str], float], n: int) -> Scores:
        """A distance between two models, "" the edited one, over all pairs of each kind."""
        references = [f"@{folder}" for folder in self.references]
        pairs = {
            "": [("", one) for one in references],
            "@base": [("@base", one) for one in references],
            "@floor": list(combinations(references, 2)),
            "@noise": [("@base", f"@{folder}") for folder in self.floor],
        }
        return {
            f"reference/{name}{which}": {"value": fmean(far(a, b) for a, b in some), "n": n, "better": "lower"}
            for which, some in pairs.items()
            if some
        }


def called(judge: Judge, shown: Images) -> dict[str, list[str]]:
    """What the first detector calls each image, by what was asked for."""
    found, said = shown.found(judge, [p.head for p in shown.prompts]), dict[str, list[str]]()
    for i, p in enumerate(shown.prompts):
        said.setdefault(p.label, []).append(found[p.head][i])
    return said


def variation(x: Mapping[str, Sequence[str]], y: Mapping[str, Sequence[str]]) -> float:
    """Total variation, sum |p - q| / 2, of the two distributions of names; mean over what was asked for."""
    each = []
    for asked in x:
        p, q = Counter(x[asked]), Counter(y[asked])
        each.append(fsum(abs(p[one] / p.total() - q[one] / q.total()) for one in sorted(p.keys() | q.keys())) / 2)
    return fmean(each)
