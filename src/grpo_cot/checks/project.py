"""`make check`: params.yaml, every recipe and every source file, alone and together, one sentence a problem.

Whatever a later step will refuse is refused here where the files of the checkout show it, before anything is downloaded
or trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo_cot.checks.backends.dashboards import check_dashboards
from grpo_cot.checks.bases import check_base, check_image
from grpo_cot.checks.recipe import check_recipe
from grpo_cot.checks.runs import check_comparison, check_run
from grpo_cot.common.errors import InputError
from grpo_cot.data.kinds import read_any
from grpo_cot.params import Params, Run, load_params
from grpo_cot.publishing.publish import check_repository
from grpo_cot.recipes.recipe import load_recipe


def problems(root: Path, *, listed: bool = False) -> tuple[int, list[str]]:
    """How many files were read, and one sentence for every problem.

    `listed` leaves out what params.yaml does not name: other recipes, sources and suites are no part of what is built.
    """
    said: dict[str, None] = {}  # in order; what two runs share is said once
    sound: set[Path] = set()

    @contextmanager
    def heard(*files: Path) -> Iterator[None]:
        """Keep the problem of the block; a file is sound when there is none."""
        try:
            yield
            sound.update(files)
        except InputError as error:
            said[str(error).replace(f"{root}/", "")] = None

    params = _params(root)
    recipes, datasets, bases = _described(root, params, listed=listed)
    checked: set[tuple[str, ...]] = set()  # runs that differ in their seed alone are checked once
    tables = [root / "params.yaml", *(() if listed else sorted((root / "suites").glob("*.yaml")))]
    for path in recipes:
        with heard(path):
            recipe = load_recipe(path)
            check_recipe(recipe, path)
            check_repository(recipe, None, path)
    for path in datasets:
        with heard(path):
            kind, source = read_any(path)
            kind.examine(source, path, root, params is not None and path.stem in params.datasets)
    for path in bases:
        with heard(path):
            check_base(root, path.stem)
    for path in tables:
        with heard():
            table = load_params(path, root)
            if not (table.runs or table.datasets or table.bases):
                raise InputError(
                    f"{path}: 'runs', 'datasets' and 'bases' are empty: nothing would be built; name a run"
                )
            # What is wrong with a run's file is said of the file already.
            runs = {name: run for name, run in table.runs.items() if _files(root, run) <= sound}
            for name, run in runs.items():
                with heard():
                    if (same := (run.recipe, run.dataset, run.base, run.image)) not in checked:
                        checked.add(same)
                        check_run(root, name, run)
                    if path == tables[0]:  # and not what is in store for later
                        place = root / f"experiments/{run.recipe}.yaml"
                        check_dashboards(load_recipe(place), place)
            for name, image in table.bases.items():
                if root / f"sources/bases/{name}.yaml" in sound:
                    with heard():
                        check_image(root, name, image, f"{path}: bases.{name}")
            for name, comparison in table.comparisons.items():
                if {comparison.a, comparison.b} <= runs.keys():
                    with heard():
                        check_comparison(root, path, name, runs[comparison.a], runs[comparison.b])
    return len(recipes) + len(datasets) + len(bases) + len(tables), list(said)


def _described(root: Path, params: Params | None, *, listed: bool) -> list[list[Path]]:
    """The recipes, and the source files of data sets and bases; `listed`: those that params.yaml names."""
    folders = ("experiments", "sources/datasets", "sources/bases")
    files = [sorted((root / folder).glob("*.yaml")) for folder in folders]
    if not listed:
        return files
    if params is None:
        return [[], [], []]
    named = ({run.recipe for run in params.runs.values()}, set(params.datasets), set(params.bases))
    return [[path for path in paths if path.stem in names] for paths, names in zip(files, named, strict=True)]


def _params(root: Path) -> Params | None:
    """What `dvc repro` makes; what is wrong with params.yaml itself is said elsewhere."""
    try:
        return load_params(root / "params.yaml", root)
    except InputError:
        return None


def _files(root: Path, run: Run) -> set[Path]:
    places = {"experiments": run.recipe, "sources/datasets": run.dataset, "sources/bases": run.base}
    return {root / folder / f"{name}.yaml" for folder, name in places.items()}
