"""params.yaml: the runs that `dvc repro` builds. `make check`, `make plan` and the index page read it; no step does."""

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.fields import Name, Seed
from grpo_cot.common.files import read_yaml
from grpo_cot.recipes.phases import Section

Image = Literal["cpu", "cuda"]


class Run(Section):
    """One line of params.yaml's `runs`."""

    recipe: Name
    dataset: Name
    base: Name
    image: Image
    seed: Seed


class Comparison(Section):
    """One line of params.yaml's `comparisons`: two runs, paired on the ids of their evaluation rows."""

    a: Name
    b: Name


class Params(Section):
    """params.yaml: what `dvc repro` builds. Each base has the image that it is fetched, drawn or pretrained in."""

    runs: dict[Name, Run]
    datasets: list[Name]
    bases: dict[Name, Image]
    comparisons: dict[Name, Comparison]

    @field_validator("runs", "datasets", "bases", "comparisons")
    @classmethod
    def _distinct_folders(cls, names: Any) -> Any:
        """Names that differ in capitals alone are one folder on macOS."""
        seen: dict[str, str] = {}
        for name in names:
            if (other := seen.setdefault(name.lower(), name)) != name:
                raise ValueError(f"the names {other!r} and {name!r} differ in capitals alone, and may be one folder")
        return names

    @field_validator("datasets")
    @classmethod
    def _distinct(cls, datasets: list[str]) -> list[str]:
        if len(set(datasets)) < len(datasets):
            raise ValueError("names a data set twice")
        return datasets


def load_params(path: Path, root: Path) -> Params:
    """Read params.yaml, or another file of its form, and check that every name in it has its file under `root`.

    Raises:
        InputError: a run, data set, base model or comparison names something that does not exist.
    """
    params = validated(Params, read_yaml(path), path)
    for name, run in params.runs.items():
        for field, value, folder in (
            ("recipe", run.recipe, "experiments"),
            ("dataset", run.dataset, "sources/datasets"),
            ("base", run.base, "sources/bases"),
        ):
            file = root / folder / f"{value}.yaml"
            if not file.is_file():
                present = sorted(other.stem for other in (root / folder).glob("*.yaml"))
                raise InputError(
                    f"{path}: runs.{name}.{field} is {value!r}, but {folder}/{value}.yaml does not exist; "
                    f"expected one of: {', '.join(present)}"
                )
        for field, value, listed in (("dataset", run.dataset, params.datasets), ("base", run.base, params.bases)):
            if value not in listed:
                raise InputError(f"{path}: runs.{name}.{field} is {value!r}, which '{field}s' lacks; add it there")
    for field, names in (("datasets", params.datasets), ("bases", params.bases)):
        for value in names:
            if not (root / "sources" / field / f"{value}.yaml").is_file():
                raise InputError(f"{path}: '{field}' lists {value!r}, but sources/{field}/{value}.yaml does not exist")
    for name, comparison in params.comparisons.items():
        if comparison.a == comparison.b:
            raise InputError(f"{path}: comparisons.{name} compares the run {comparison.a!r} with itself; name two runs")
        for field, run_name in (("a", comparison.a), ("b", comparison.b)):
            if run_name not in params.runs:
                raise InputError(f"{path}: comparisons.{name}.{field} is {run_name!r}, which 'runs' lacks")
        if params.runs[comparison.a] == params.runs[comparison.b]:
            raise InputError(
                f"{path}: comparisons.{name}: the runs {comparison.a!r} and {comparison.b!r} are the same in all but "
                "name, so that nothing would differ; give one another recipe, base or seed"
            )
    return params
