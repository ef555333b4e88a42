"""`make check`: validate params.yaml, every recipe and every source file, one sentence a problem."""

import sys
from collections.abc import Callable
from pathlib import Path

from grpo_cot.data import SOURCE_FILE
from grpo_cot.files import InputError, read_yaml
from grpo_cot.library_settings import check_recipe
from grpo_cot.recipes import Base, load_params, load_recipe
from grpo_cot.validation import validated

root = Path(__file__).parent.parent
checks: list[tuple[Path, Callable[[Path], object]]] = [
    (root / "params.yaml", load_params),
    *((path, lambda path: check_recipe(load_recipe(path), path)) for path in sorted(root.glob("experiments/*.yaml"))),
    *(
        (path, lambda path: validated(SOURCE_FILE, read_yaml(path), path))
        for path in sorted(root.glob("sources/datasets/*.yaml"))
    ),
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
