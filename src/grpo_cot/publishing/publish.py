"""Publishing: adapter and merged model in the Hub's layout, each with a complete model card, and the push itself."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from httpx import HTTPError
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from grpo_cot.files import InputError, read_json, write_json

CARD = Path(__file__).with_name("card.md.jinja")


def share(value: Mapping[str, float]) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * value['value']:.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def points(paired: Mapping[str, float]) -> str:
    """A paired difference with its interval, in percentage points."""
    return f"{100 * paired['difference']:+.1f} [{100 * paired['low']:+.1f}, {100 * paired['high']:+.1f}]"


def card(part: str, facts: Mapping[str, Any]) -> str:
    """The model card of the adapter or of the merged model, its metadata checked by huggingface_hub."""
    metrics, base, source = facts["metrics"], facts["base_record"], facts["source"]
    judged = source["sets"][metrics["set"]]
    data = ModelCardData(
        base_model=base["id"] or base["name"],
        datasets=[source["id"]] if source["id"] else None,
        license=facts["licence"],
        library_name="peft" if part == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=[*(method.replace("_", "-") for method in facts["methods"]), "reasoning", "trl"],
        model_name=facts["name"],
        eval_results=[
            EvalResult(
                task_type="text-generation", dataset_type=judged["id"] or metrics["set"],
                dataset_name=f"{source['name']}, {metrics['set']}",
                metric_type="exact_match", metric_name=f"{reader} accuracy (n = {metrics['n']})",
                metric_value=metrics["trained"][f"{reader}_accuracy"]["value"],
            )
            for reader in ("strict", "lenient")
        ],
    )  # fmt: skip
    return str(ModelCard.from_template(data, template_path=str(CARD), part=part, share=share, points=points, **facts))


def lay_out(folder: Path, weights: Mapping[str, Path], facts: Mapping[str, Any]) -> None:
    """Copy each part (`adapter`, `merged`) into a folder of its own and write its card."""
    for part, source in weights.items():
        shutil.copytree(source, folder / part)
        configuration = folder / part / "adapter_config.json"
        if configuration.is_file() and facts["base_record"]["id"]:
            base = {"base_model_name_or_path": facts["base_record"]["id"], "revision": facts["base_record"]["revision"]}
            write_json(configuration, read_json(configuration) | base)
        (folder / part / "README.md").write_text(card(part, facts), encoding="utf-8")


def push(folder: Path, repository: str, private: bool, token: str | None) -> dict[str, dict[str, str]]:
    """Push every part to `REPOSITORY-PART` on the Hub; what went where, at which commit.

    Raises:
        InputError: there is no token, or the Hub cannot be reached or refuses.
    """
    if not token:
        raise InputError(f"publish.repository is {repository!r}, but HF_TOKEN is not set: give a token that may write")
    api = HfApi(token=token)
    pushed = {}
    for part in sorted(path.name for path in folder.iterdir()):
        target = f"{repository}-{part}"
        try:
            api.create_repo(target, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=target, folder_path=folder / part, commit_message="Publish from grpo-cot"
            )
        except (HfHubHTTPError, HTTPError, OSError) as error:
            raise InputError(f"the Hub did not take {target}: {' '.join(str(error).split())[:200]}") from None
        pushed[part] = {"repository": target, "commit": commit.oid}
    return pushed
