"""`make check`: validate params.yaml, every recipe and every source file, one sentence a problem."""

import sys
from collections.abc import Callable
from pathlib import Path

from grpo_cot.bases.sources import Base
from grpo_cot.checks.dashboards import check_dashboards
from grpo_cot.checks.recipe import check_recipe
from grpo_cot.common.errors import InputError, nearest, validated
from grpo_cot.common.files import read_yaml
from grpo_cot.data.rows import read_source
from grpo_cot.data.sources import evaluation_sets
from grpo_cot.params import load_params
from grpo_cot.publishing.publish import check_repository
from grpo_cot.recipes.recipe import load_recipe

root = Path(__file__).parent.parent


def check_params(path: Path) -> None:
    """params.yaml itself, and that every run's data set has the evaluation sets that its recipe names.

    Of the runs to build now also that they can report where their recipe says.
    """
    for name, run in load_params(path, root).runs.items():
        recipe = root / "experiments" / f"{run.recipe}.yaml"
        source = root / "sources/datasets" / f"{run.dataset}.yaml"
        splits = set(evaluation_sets(read_source(source)))
        content = load_recipe(recipe)
        judged = any(phase.settings.get("eval_strategy", "no") != "no" for phase in content.phases)
        if judged and "validation" not in splits:
            raise InputError(
                f"{recipe}: a phase is judged on the split 'validation' while it trains, which the data set "
                f"{run.dataset!r} of the run {name!r} lacks; hold rows out in its source file"
            )
        base = root / "sources/bases" / f"{run.base}.yaml"
        licence = validated(Base, read_yaml(base), base).licence
        check_repository(content, licence.name_prefix, f"{path}: runs.{name} ({run.recipe} from {run.base})")
        if path == root / "params.yaml":  # and not what is in store for later
            check_dashboards(content, recipe)
        for chosen in content.evaluate.sets:
            if chosen not in splits:
                raise InputError(
                    f"{recipe}: evaluate.sets names {chosen!r}, which the data set {run.dataset!r} of the run {name!r} "
                    f"lacks; {nearest(chosen, splits)}"
                )


def check_experiment(path: Path) -> None:
    """A recipe by itself: the installed libraries take it, and the Hub the name that it publishes under."""
    recipe = load_recipe(path)
    check_recipe(recipe, path)
    check_repository(recipe, None, path)


checks: list[tuple[Path, Callable[[Path], object]]] = [
    *((path, check_params) for path in (root / "params.yaml", *sorted(root.glob("suites/*.yaml")))),
    *((path, check_experiment) for path in sorted(root.glob("experiments/*.yaml"))),
    *((path, read_source) for path in sorted(root.glob("sources/datasets/*.yaml"))),
    *(
        (path, lambda path: validated(Base, read_yaml(path), path))
        for path in sorted(root.glob("sources/bases/*.yaml"))
    ),
]
problems = 0
for path, check in checks:
    try:
        check(path)
    except InputError as error:
        problems += 1
        print(f"check: {str(error).replace(f'{root}/', '')}", file=sys.stderr)
if problems:
    sys.exit(1)
print(f"check: params.yaml, recipes and sources are valid ({len(checks)} files)")
