"""Whether DVC can work in this checkout, which `make check` asks first."""

import sys
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import SCMError

from grpo_cot.common.errors import InputError


def check_checkout(root: Path) -> None:
    """Refuse what is no whole checkout, where DVC would stop at every command.

    Raises:
        InputError: DVC's settings are missing, or there is no git repository and DVC was not told so.
    """
    try:
        with Repo(str(root)) as repo:
            assert repo.scm is not None
    except NotDvcRepoError:
        raise InputError(
            f"{root}: the folder .dvc is missing, which holds DVC's settings; clone or unpack the repository again, "
            "with the names that begin with a dot"
        ) from None
    except SCMError:
        raise InputError(
            f"{root}: this is no git repository, which DVC looks for; run `git init` here, or, to go without git, "
            "`.venv/bin/dvc config --local core.no_scm true`"
        ) from None


if __name__ == "__main__":
    try:
        check_checkout(Path(__file__).parent.parent)
    except InputError as error:
        sys.exit(f"check: {error}")
