"""`make check`: params.yaml, every recipe and every source file, alone and together, one sentence a problem.

Whatever a later step will refuse is refused here where the files of the checkout show it, before anything is downloaded
or trained.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from grpo_cot.bases.sources import Base
from grpo_cot.checks.bases import check_base
from grpo_cot.checks.recipe import check_recipe
from grpo_cot.checks.runs import check_comparison, check_run
from grpo_cot.common.errors import InputError, validated
from grpo_cot.common.files import read_yaml
from grpo_cot.data.rows import read_source
from grpo_cot.params import load_params
from grpo_cot.recipes.recipe import load_recipe


def problems(root: Path) -> tuple[int, list[str]]:
    """How many files were read, and one sentence for every problem."""
    found: dict[str, None] = {}  # in order; what several files share is said once
    checks = list(_checks(root))
    for check in checks:
        try:
            check()
        except InputError as error:
            found[str(error).replace(f"{root}/", "")] = None
    files = [root / "params.yaml", *(path for part in PLACES for path in root.glob(part))]
    return len(files), list(found)


PLACES = ("suites/*.yaml", "experiments/*.yaml", "sources/datasets/*.yaml", "sources/bases/*.yaml")


def _checks(root: Path) -> Iterator[Callable[[], object]]:
    """The files by themselves, and then, of the sound ones, what stands in several together."""
    suites, recipes, datasets, bases = (sorted(root.glob(part)) for part in PLACES)
    for path in recipes:
        yield lambda path=path: check_recipe(load_recipe(path), path)
    for path in datasets:
        yield lambda path=path: read_source(path)
    for path in bases:
        yield lambda path=path: check_base(root, path.stem)
    for path in (root / "params.yaml", *suites):
        yield lambda path=path: load_params(path, root)
        try:
            params = load_params(path, root)
        except InputError:
            continue
        for name, run in params.runs.items():
            if _sound(root, run.recipe, run.dataset, run.base):
                yield lambda name=name, run=run: check_run(root, name, run)
        for name, comparison in params.comparisons.items():
            pair = [params.runs[run] for run in (comparison.a, comparison.b)]
            if all(_sound(root, run.recipe, run.dataset, run.base) for run in pair):
                yield lambda path=path, name=name, pair=pair: check_comparison(root, path, name, *pair)


def _sound(root: Path, recipe: str, dataset: str, base: str) -> bool:
    """Whether a run's files can be read; what is wrong with one that cannot is said of the file itself."""
    source = root / f"sources/bases/{base}.yaml"
    try:
        load_recipe(root / f"experiments/{recipe}.yaml")
        read_source(root / f"sources/datasets/{dataset}.yaml")
        validated(Base, read_yaml(source), source)
    except InputError:
        return False
    return True
