"""The model card of a published part, its metadata checked by huggingface_hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from grpo_cot.hub.licences import full_name

ACCURACIES = {  # in metrics.json: the type of the metric on the Hub, and its name
    "strict_accuracy": ("exact_match", "strict accuracy"), "lenient_accuracy": ("exact_match", "lenient accuracy"),
    "pair_accuracy": ("accuracy", "pairs of answers ranked right"),
    "wanted_share": ("judged_share", "completions judged {wanted} by an independent judge"),
}  # fmt: skip
CARD = Path(__file__).with_name("card.md.jinja")


def share(value: Mapping[str, float]) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * value['value']:.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def points(paired: Mapping[str, float]) -> str:
    """A paired difference with its interval, in percentage points."""
    return f"{100 * paired['difference']:+.1f} [{100 * paired['low']:+.1f}, {100 * paired['high']:+.1f}]"


def card(part: str, facts: Mapping[str, Any]) -> str:
    """The model card of the adapter or of the merged model, its metadata checked by huggingface_hub."""
    metrics, base, source, licence = facts["metrics"], facts["base_record"], facts["source"], facts["licence"]
    evaluation_set = source["sets"][metrics["set"]]
    reasons, wanted = "strict_accuracy" in metrics["paired"], metrics.get("texts", {}).get("wanted")
    data = ModelCardData(
        base_model=base["id"], datasets=[source["id"]] if source["id"] else None,
        license=licence["id"], license_name=licence["name"], license_link=licence["link"],
        library_name="peft" if part == "adapter" else "transformers",
        pipeline_tag="text-generation", model_name=facts["name"],
        tags=[*(method.replace("_", "-") for method in facts["methods"]), *(["reasoning"] if reasons else []), "trl"],
        eval_results=[
            EvalResult(
                task_type="text-generation", dataset_type=evaluation_set["id"] or metrics["set"],
                dataset_name=f"{source['name']}, {metrics['set']}", metric_type=kind,
                metric_name=f"{name.format(wanted=wanted)} (n = {metrics['n']})",
                metric_value=metrics["trained"][key]["value"],
            )
            for key, (kind, name) in ACCURACIES.items()
            if key in metrics["paired"]
        ],
    )  # fmt: skip
    before = metrics["before"]
    words: dict[str, Any] = {
        "share": share, "points": points, "full_name": full_name, "wanted": wanted,
        "compared": f"after {before}" if before else "base",
    }  # fmt: skip
    return str(ModelCard.from_template(data, template_path=str(CARD), part=part, **words, **facts))
