"""A run's outputs up to publishing, made by hand, for tests of the steps base and publish against the stand-in Hub."""

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import base
import publish
import pytest
from graded import metrics
from stand_in_hub import Hub
from support import ROOT

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml, write_json, write_jsonl

AGREEMENT = "AGREEMENT\n\nBy using the materials you accept these terms.\n"
BASES = {
    "qwen2.5-3b-instruct": ("grpo-cot-3b", "me-model"),
    "llama-3.2-1b-instruct": ("small-reasoner-llama-1b", "Llama-model"),
}


class Workshop:
    """A run's outputs up to publishing, made by hand, and the two steps that speak to the Hub."""

    def __init__(self, folder: Path, hub: Hub, base: str) -> None:
        self.folder, self.hub = folder, hub
        recipe, name = BASES[base]
        self.base_source = folder / f"{base}.yaml"
        text = (ROOT / f"sources/bases/{base}.yaml").read_text()
        # The Hub serves the embedded base under its name, whose vocabulary is another.
        self.base_source.write_text("".join(line for line in text.splitlines(True) if not line.startswith("tokens:")))
        self.recipe = folder / f"{recipe}.yaml"
        self.recipe.write_text((ROOT / f"experiments/{recipe}.yaml").read_text())
        self.edit(self.recipe, "repository: null ", f"repository: somebody/{name} ")
        source = read_yaml(self.base_source)
        self.files = {path.name: path.read_bytes() for path in (ROOT / "assets/tiny/model").iterdir()}
        self.files[source["licence"]["agreement"]] = AGREEMENT.encode()
        hub.served[f"{source['id']}@{source['revision']}"] = self.files
        self._outputs()

    @staticmethod
    def edit(path: Path, old: str, new: str) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def _outputs(self) -> None:
        (self.folder / "train/01-grpo").mkdir(parents=True)
        (self.folder / "train/01-grpo/adapter_model.safetensors").write_bytes(b"adapter")
        shutil.copytree(ROOT / "assets/tiny/model", self.folder / "merged")
        write_json(self.folder / "train/01-grpo/adapter_config.json", {"base_model_name_or_path": "models/base"})
        ran = {"seed": 3407, "rows": 7473, "packages": {"trl": "1"}}
        write_json(self.folder / "train/01-grpo/configuration.json", ran)
        settings = {"dtype": "bfloat16", "attn_implementation": "sdpa", "threads": 1}
        description = {
            "kind": "adapter", "architecture": "causal", "path": "01-grpo", "base": "b", "model": settings,
            "quantization": None,
        }  # fmt: skip
        write_json(self.folder / "train/model.json", description)
        merge = {"dtype": "bfloat16", "base": "dequantized", "token_agreement": 1.0, "tokens": 9, "kept": 1.0}
        write_json(self.folder / "merge.json", merge)
        write_json(self.folder / "metrics.json", metrics(0.5, 0.7, n=1319))
        write_jsonl(self.folder / "prompts/eval-test.jsonl", [{"messages": [{"role": "user", "content": "1 + 1?"}]}])
        facts = {
            "kind": "hub", "id": "openai/gsm8k", "revision": "7" * 40, "licence": {"id": "mit", "name": None},
            "drop": {}, "note": None, "contains": None,
        }  # fmt: skip
        test = facts | {"rows": 1319, "benchmark": {"id": "openai/gsm8k", "task_id": "gsm8k"}}
        record = facts | {"name": "gsm8k-hub", "rows": {"train": 7473, "test": 1319}, "sets": {"test": test}}
        write_json(self.folder / "gsm8k-hub.source.json", record)

    def make_base(self) -> str:
        at = self.folder
        arguments = Namespace(
            source=self.base_source, output=at / "base", provenance=at / "base.json", scratch=at / "scratch",
            measured={},
        )  # fmt: skip
        return base.main(arguments)

    def publish(self) -> str:
        at = self.folder
        arguments = Namespace(
            recipe=self.recipe, prompts=at / "prompts", model=at / "train/model.json", merged=at / "merged",
            merge=at / "merge.json", metrics=at / "metrics.json", source=at / "gsm8k-hub.source.json",
            base_source=at / "base.json", name="run", output=at / "published", published=at / "published.json",
        )  # fmt: skip
        return publish.main(arguments)

    def refused(self, step: Callable[[], str]) -> str:
        """The sentence with which a step refuses; nothing is left half-written."""
        before = {path for path in self.folder.rglob("*") if "home" not in path.parts}
        with pytest.raises(InputError) as caught:
            step()
        assert {path for path in self.folder.rglob("*") if "home" not in path.parts} == before
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)
