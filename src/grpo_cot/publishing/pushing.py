"""The push to the Hub, and the proof that it holds: every file by its hash, and the same answers from a download."""

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, RepoFile, snapshot_download
from huggingface_hub.utils import get_session, hf_raise_for_status
from safetensors import SafetensorError

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import file_hash, file_hashes
from grpo_cot.hub.errors import hub_errors
from grpo_cot.recipes.recipe import PublishSection

FIRST_COMMIT = "initial commit"  # the Hub's own title of the one with which a repository begins
PART = r"( \(part \d+\))?"  # which the client adds where it commits a large folder in several steps
Answers = Callable[[Path], Sequence[str]]


def push(
    folder: Path, run: str, section: PublishSection, token: str | None, answers: Answers, scratch: Path
) -> dict[str, dict[str, Any]]:
    """Push every part to `REPOSITORY-PART` on the Hub; returns each part's repository, commit and number of `files`,
    and of the merged model how many `answers` were compared.

    What the Hub can say beforehand, it is asked before the first repository is made: whether the token may write there,
    what is there already, and whether it takes the cards. Afterwards every file is compared by its hash with what the
    Hub has at the commit, the commit is downloaded, and the downloaded merged model is asked: `answers` gives what the
    model in a folder says. A push that was cut off is made again by the same command: weights that are there are not
    sent again, and a download into `scratch` goes on.

    Raises:
        InputError: there is no token, the Hub cannot be reached or refuses, a repository holds commits of others and
            `section.overwrite` is false, or the Hub does not have what was sent.
    """
    repository = section.repository
    assert repository is not None
    if not token:
        raise InputError(f"publish.repository is {repository!r}, but HF_TOKEN is not set: give a token that may write")
    api, title = HfApi(token=token), f"Publish {run} from grpo-cot"
    parts = sorted(path.name for path in folder.iterdir())
    _check_token(api, repository)
    for part in parts:
        _check_there(api, f"{repository}-{part}", section, title)
        _check_card(api, (folder / part / "README.md").read_text(encoding="utf-8"), f"{repository}-{part}")
    pushed: dict[str, dict[str, Any]] = {}
    for part in parts:
        name = f"{repository}-{part}"
        there = "".join(f"; {known['repository']} is there already" for known in pushed.values())
        with hub_errors(f"the Hub did not take {name}{there}"):
            api.create_repo(name, private=section.private, exist_ok=True)
            head = api.model_info(name).sha
        with hub_errors(f"the files did not reach {name}, which may be left empty or incomplete{there}"):
            commit = api.upload_folder(
                repo_id=name, folder_path=folder / part, commit_message=title,
                delete_patterns="*",  # an earlier model's files that this one does not have, weights perhaps
                parent_commit=head,  # so that what another pushes meanwhile is refused and not mixed in
            )  # fmt: skip
        pushed[part] = {"repository": name, "commit": commit.oid}
        pushed[part]["files"] = _check_files(api, name, commit.oid, folder / part)
        came_back = _download(name, commit.oid, token, folder / part, scratch / part)
        if part == "merged":
            pushed[part]["answers"] = _check_answers(name, commit.oid, answers, folder / part, came_back)
        shutil.rmtree(came_back.parent)
    return pushed


def _check_files(api: HfApi, name: str, commit: str, folder: Path) -> int:
    """Compare every file with what the Hub has at a commit; how many there are.

    Raises:
        InputError: one is not there, or is another.
    """
    with hub_errors(f"{name} was pushed, but what the Hub has at its commit {commit} cannot be read"):
        entries = list(api.list_repo_tree(name, recursive=True, revision=commit))
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in paths:
        file = path.relative_to(folder).as_posix()
        if file not in there:
            raise InputError(f"{name}: the Hub said that it took {file}, but its commit {commit} lacks it; start again")
        entry = there[file]
        found, expected = (
            (entry.lfs.sha256, file_hash(path)) if entry.lfs else (entry.blob_id, _git_hash(path.read_bytes()))
        )
        if found != expected:
            raise InputError(
                f"{name}: {file} at the commit {commit} has the hash {found}, expected {expected} as it was sent; "
                "start again"
            )
    return len(paths)


def _git_hash(data: bytes) -> str:
    """The name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _download(name: str, commit: str, token: str, sent: Path, scratch: Path) -> Path:
    """A folder in `scratch` with the files of a commit, which are those that were sent.

    Raises:
        InputError: the commit cannot be downloaded, or a file came back otherwise.
    """
    folder = scratch / commit
    for other in scratch.glob("*"):  # of a push that failed
        if other != folder:
            shutil.rmtree(other)
    with hub_errors(f"{name} was pushed, but its commit {commit} cannot be downloaded"):
        snapshot_download(name, revision=commit, token=token, local_dir=folder)
    expected, found = file_hashes(sent), file_hashes(folder)
    if wrong := sorted(file for file in expected if found.get(file) != expected[file]):
        shutil.rmtree(folder)
        raise InputError(
            f"{name}: {wrong[0]} came back from the commit {commit} otherwise than it was sent ({len(wrong)} of "
            f"{len(expected)} files did); look at the network and the proxy, and start again"
        )
    return folder


def _check_answers(name: str, commit: str, answers: Answers, pushed: Path, downloaded: Path) -> int:
    """Compare what the pushed and the downloaded model say; to how many problems.

    Raises:
        InputError: an answer differs, or a model cannot be asked here.
    """
    try:
        expected, found = answers(pushed), answers(downloaded)
    except (ImportError, MemoryError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise InputError(
            f"{name}: its commit {commit} has every file as it was sent, but the model cannot be asked on this machine "
            f"({' '.join(str(error).split())[:200]}); give the step publish more memory, and start again"
        ) from error
    for number, (before, after) in enumerate(zip(expected, found, strict=True), start=1):
        if before != after:
            raise InputError(
                f"{name}: the model downloaded at the commit {commit} answers problem {number} with {after!r}, "
                f"expected {before!r} as before the push; start again"
            )
    return len(found)


def _check_token(api: HfApi, repository: str) -> None:
    """Refuse a token that may not write under the repository's owner, as far as the Hub tells."""
    owner = repository.split("/")[0]
    with hub_errors(f"nothing was made at {repository}"):
        account = api.whoami()
        name, role = account["name"], account.get("auth", {}).get("accessToken", {}).get("role")
        owners = {name: role} | {org["name"]: org.get("roleInOrg", role) for org in account.get("orgs", [])}
        by_small_letters = {known.lower(): known for known in owners}
    if role == "read":
        raise InputError(f"HF_TOKEN may only read: to push to {repository}, give one of {name} that may write")
    if owner.lower() not in by_small_letters or owners[by_small_letters[owner.lower()]] == "read":
        may = ", ".join(sorted(known for known, right in owners.items() if right != "read"))
        raise InputError(f"publish.repository is {repository!r}, but HF_TOKEN may not write there; it may for: {may}")


def _check_there(api: HfApi, name: str, section: PublishSection, title: str) -> None:
    """Refuse a repository that holds what another run or somebody else pushed, and to push what is to be private into a
    public one: the Hub leaves one that is there as it is."""
    with hub_errors(f"nothing was made at {name}"):
        if not api.repo_exists(name):
            return
        public = not api.model_info(name).private
        commits = [] if section.overwrite else list(api.list_repo_commits(name))
    if section.private and public:
        raise InputError(
            f"publish.private is true, but {name} is on the Hub already, and public; make it private in its settings, "
            "or set publish.private: false"
        )
    ours = re.compile(f"{re.escape(title)}{PART}|{FIRST_COMMIT}")
    others = [commit for commit in commits if not ours.fullmatch(commit.title)]
    if others:
        raise InputError(
            f"{name} is on the Hub already and holds {others[0].title!r} (commit {others[0].commit_id}), which is not "
            "this run's; name another repository, or set publish.overwrite: true to push on top of it"
        )


def _check_card(api: HfApi, text: str, name: str) -> None:
    """Have the Hub look at a card's metadata, as it will look at it when the card is pushed."""
    licence = ModelCard(text).data.get("license")
    with hub_errors(f"the Hub will not take the card of {name} (licence {licence}), so nothing was made there"):
        question = {"content": text, "repoType": "model"}
        address, headers = f"{api.endpoint}/api/validate-yaml", {"Authorization": f"Bearer {api.token}"}
        answer = get_session().post(address, json=question, headers=headers)
        hf_raise_for_status(answer)
        answer.json()  # a page is no answer
