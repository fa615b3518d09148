"""What somebody who finds an exported model must know: a model card of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from advanchor import hub

TEXT = """---
{data}
---

# {model} without {concept}

The model `{model}`, of which the concept "{concept}" was erased: method `{method}` towards the anchor `{anchor}`, seed
{seed}. {tensors} tensors, {parameters:,} parameters differ from the original, whose licence holds here too.

```python
{form}
```

## What was measured

{measured}

## What that does not show

- Intervals are over the prompts of this one training: how far another seed's would differ is unknown.
- The judges are networks: what they do not know they do not find.
- {tried}
- Whoever compares this with the original sees which tensors changed, and so where the concept was.

## How it was made

Run `{run}` of advanchor {version}; weights of the original {weights}; code of the edit {edit}; everything else is in
`result.json` beside this file.

```yaml
{settings}
```
"""
GROUPS = ("concept", "anchor", "method", "sample", "seed")


def card(result: Mapping[str, Any], lines: str, form: str) -> str:
    """The card of a run's result.

    Args:
        lines: its scores, as the closing table has them.
        form: how the model is loaded.
    """
    from huggingface_hub import EvalResult, ModelCardData

    config, scores = result["config"], result["scores"]
    concept, model = config["concept"]["name"], config["model"]
    base = hub.repository(str(model.get("path")))
    data = ModelCardData(
        model_name=f"{model['name']} without {concept}",
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=base[0] if base else None,
        tags=["concept-erasure", "advanchor", f"erased:{concept}"],
        eval_results=[
            EvalResult(
                task_type="text-to-image",
                dataset_type="prompts",
                dataset_name=f"advanchor's prompts for {concept}",
                metric_type=name,
                metric_value=round(score["value"], 6),
                metric_name=f"{name} (n = {score['n']}{interval(score)})",
            )
            for name, score in scores.items()
            if "@" not in name
        ],
    )
    attacked = sorted({name.split("/")[1] for name in scores if name.startswith("attack/")})
    tried = (
        f"Attacks that were tried: {', '.join(attacked)}; others may find the concept."
        if attacked
        else "No attack was tried: a few steps of fine-tuning, or other words, may bring the concept back."
    )
    made, commit = result["environment"]["packages"]["advanchor"], result["environment"]["commit"]
    return TEXT.format(
        data=data.to_yaml(),
        model=model["name"],
        concept=concept,
        method=config["method"]["name"],
        anchor=config["anchor"]["name"],
        seed=config["seed"],
        tensors=result["changed"]["tensors"],
        parameters=result["changed"]["parameters"],
        form=form,
        measured=f"```\n{lines}\n```" if scores else "Nothing: no judge looked at its pictures.",
        tried=tried,
        run=result["run"],
        version=f"{made}, commit {commit}" if commit else made,
        weights=result["weights"],
        edit=result["provenance"]["edit"],
        settings=OmegaConf.to_yaml(OmegaConf.create({group: config[group] for group in GROUPS})).rstrip(),
    )


def interval(score: Mapping[str, Any]) -> str:
    return f", 95 % [{score['low']:.3f}, {score['high']:.3f}]" if "low" in score else ""


def shared(part: Any) -> Any:
    """A result without the folders of the machine that it is from: of an absolute path its last name."""
    if isinstance(part, dict):
        return {name: shared(value) for name, value in part.items()}
    if isinstance(part, list):
        return [shared(value) for value in part]
    return Path(part).name if isinstance(part, str) and part.startswith(("/", "~/")) else part
