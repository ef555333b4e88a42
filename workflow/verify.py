"""`make verify`: read every object of the cache or of a remote, name the corrupt ones, put intact copies over them.

DVC names an object by its content and then believes the name: a read-only cache file is used and pushed unread, and a
pull reads what came only where the remote has `verify = true`. So something must read everything: this does.
The names of DVC used here are no documented interface. DVC is pinned exactly, and
tests/pipeline/engines/test_remotes.py fails when one of them goes.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkout import check_checkout
from dvc.config import NoRemoteError
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _get_cache_hash
from dvc.utils.serialize import parse_yaml
from dvc_data.hashfile.build import build
from dvc_data.hashfile.hash import file_md5
from dvc_objects.fs import generic
from dvc_objects.fs.local import localfs
from tqdm import tqdm

from grpo_cot.common.errors import InputError

# Any other name in these folders is a temporary file of an interrupted transfer, which nothing reads.
OBJECT = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?")
RUN = re.compile(r"runs/[0-9a-f]{2}/([0-9a-f]{64})/([0-9a-f]{64})")
READERS = 4  # at a time; a reader of S3 holds up to 50 MB


@dataclass(frozen=True)
class Store:
    """The cache or a remote: files and folders' manifests (`.dir`) under files/md5, run-cache entries under runs."""

    said: str
    objects: Any
    root: str

    @property
    def files(self) -> Any:
        """The filesystem, whose calls are the same for a disk, SSH and S3."""
        return self.objects.fs

    def path(self, name: str) -> str:
        """Where an object lies, by its name under the root."""
        return str(self.files.join(self.root, *name.split("/")))

    def names(self) -> list[str]:
        """Every object and every entry of the run cache."""
        depth = len(self.files.parts(self.root))
        found = (
            "/".join(self.files.parts(path)[depth:])
            for folder in ("files/md5", "runs")
            if self.files.exists(self.path(folder))
            for path in self.files.find(self.path(folder))
        )
        return sorted(name for name in found if OBJECT.fullmatch(name) or RUN.fullmatch(name))

    def members(self, manifest: str) -> dict[str, str]:
        """The paths that an intact manifest lists, each with its object; none where there is no such manifest."""
        path = self.path(manifest)
        if not holds(self.files, path, manifest):
            return {}
        with self.files.open(path, "r") as file:
            return {row["relpath"]: object_name(row["md5"]) for row in json.load(file)}


@dataclass(frozen=True)
class Use:
    """A path of the workspace whose content an object is, and the pipeline's output that it is or lies in."""

    path: str
    output: Any

    def __str__(self) -> str:
        """The path as one would type it."""
        return str(localfs.relpath(self.path))


def object_name(md5: str) -> str:
    """The name of the object with a hash."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def holds(files: Any, path: str, name: str) -> bool:
    """Whether a file is there and its content is what the object's name says."""
    try:
        if not (run := RUN.fullmatch(name)):
            return name.removesuffix(".dir") == object_name(file_md5(path, files))
        with files.open(path, "rb") as file:
            entry = parse_yaml(file.read(), path)
        value = _get_cache_hash(entry)  # first, for the other call changes the entry
        return (_get_cache_hash(entry, key=True), value) == run.groups()
    except (FileNotFoundError, IsADirectoryError):
        return False
    except (DvcException, UnicodeError, LookupError, TypeError, AttributeError):  # no YAML, or not an entry's
        return False


def corrupt_objects(store: Store, names: list[str]) -> list[str]:
    """The objects whose content is not what their name says."""

    def is_corrupt(name: str) -> bool:  # one that was removed meanwhile is not
        return not holds(store.files, store.path(name), name) and bool(store.files.exists(store.path(name)))

    with ThreadPoolExecutor(READERS) as readers:
        read = tqdm(readers.map(is_corrupt, names), f"Reading {store.said}", len(names), unit=" objects", leave=False)
        return [name for name, found in zip(names, read, strict=True) if found]


def missing_members(store: Store, names: list[str]) -> list[str]:
    """What manifests list and is not there: DVC removes some corrupt objects by itself, and never pushes them again."""
    manifests = [name for name in names if name.endswith(".dir")]
    return sorted({member for name in manifests for member in store.members(name).values()}.difference(names))


def find_uses(repo: Any, stores: list[Store]) -> dict[str, list[Use]]:
    """What dvc.lock uses each object for; the first store with an intact manifest says what a folder holds."""
    found = defaultdict(list)
    for output in repo.index.outs:
        if output.hash_info and output.hash_info.name == "md5":
            name = object_name(output.hash_info.value)
            found[name].append(Use(output.fs_path, output))
            listed = (store.members(name) for store in stores) if output.hash_info.isdir else iter(())
            for path, member in next(filter(None, listed), {}).items():
                found[member].append(Use(localfs.join(output.fs_path, *path.split("/")), output))
    return found


def copies(name: str, uses: list[Use], other: Store | None, cache: Store) -> Iterator[tuple[str, Any, str]]:
    """Where an object's content may be found: how to call the place, its filesystem, the path there."""
    for use in uses:
        if not name.endswith(".dir"):
            yield "the workspace", localfs, use.path
        elif localfs.isdir(use.path):  # its manifest can be made anew
            _, _, tree = build(cache.objects, use.path, localfs, "md5", ignore=use.output.dvcignore)
            yield "the workspace", tree.fs, tree.path
    if other:
        yield other.said, other.files, other.path(name)


def repair(store: Store, name: str, candidates: Iterator[tuple[str, Any, str]]) -> str | None:
    """Put an intact copy over a corrupt object, in one move; returns where it came from, None if there is none."""
    for said, files, path in candidates:
        if holds(files, path, name):
            store.files.makedirs(store.files.parent(store.path(name)), exist_ok=True)
            generic.copy(files, path, store.files, store.path(name))
            if holds(store.files, store.path(name), name):
                if OBJECT.fullmatch(name):
                    store.objects.protect(store.path(name))
                return said
    return None


def remove(store: Store, name: str, names: list[str]) -> None:
    """Remove an object that has no intact copy."""
    if store.said != "the cache":
        # DVC takes a manifest in a remote as proof of its members, and would never push this one again.
        for manifest in (other for other in names if other.endswith(".dir")):
            if name in store.members(manifest).values():
                store.files.remove(store.path(manifest))
    if store.files.exists(store.path(name)):
        store.files.remove(store.path(name))


def mend_workspace(repo: Any, cache: Store, name: str, uses: list[Use]) -> Iterator[Use]:
    """Replace what was checked out of a corrupt object: DVC would not read it again, for size and time are the same."""
    for use in uses:
        _, believed = repo.state.get(use.path, localfs)
        if believed and object_name(believed.value) == name and not holds(localfs, use.path, name):
            localfs.remove(use.path)
            if cache.files.exists(cache.path(name)):
                generic.copy(cache.files, cache.path(name), localfs, use.path)
            yield use


def way_back(name: str, uses: list[Use], remote: str | None) -> str:
    """How to get the content of a removed object again."""
    if RUN.fullmatch(name):
        return "nothing is lost, the run cache is a shortcut"
    if remote:
        return "`dvc push` from a checkout that has it brings it back"
    stages = sorted({use.output.stage.addressing for use in uses})
    return f"`dvc repro {' '.join(stages)}` makes it again" if stages else "no stage of this checkout makes it"


def open_remote(repo: Any, name: str | None) -> Store:
    """A remote, the default one without a name.

    Raises:
        InputError: it cannot be reached.
    """
    remote = repo.cloud.get_remote(name, "verify")
    store = Store(f"remote '{remote.name}'", remote.odb, remote.path)
    try:
        store.files.exists(store.root)
    except Exception as error:  # each kind of remote has its own
        raise InputError(f"{store.said} cannot be reached: {error or type(error).__name__}") from None
    return store


def verify(repo: Any, remote: str | None) -> bool:
    """Read and repair the cache, or a remote; returns whether all that was corrupt is repaired.

    Raises:
        InputError: the remote cannot be reached, or holds nothing.
    """
    cache = Store("the cache", repo.cache.local, repo.cache.local_cache_dir)
    store, other = (open_remote(repo, remote), cache) if remote else (cache, None)
    names = store.names()
    if remote and not names:
        raise InputError(f"{store.said} holds no objects at {store.files.unstrip_protocol(store.root)}")
    corrupt = corrupt_objects(store, names)
    missing = missing_members(store, names) if remote else []
    if corrupt and not remote:
        try:
            other = open_remote(repo, None)
        except (InputError, NoRemoteError) as error:
            print(f"Repairing from the workspace only: {error}", file=sys.stderr)
    lost = 0
    for is_manifest in (True, False):  # manifests first: repaired, they say what the others belong to
        group = [name for name in corrupt + missing if name.endswith(".dir") == is_manifest]
        known = find_uses(repo, list(filter(None, (cache, other, store)))) if group else {}
        for name in group:
            uses = known.get(name, [])
            origin = repair(store, name, copies(name, uses, other, cache))
            if not origin:
                remove(store, name, names)
                lost += not RUN.fullmatch(name)
            belongs = ", ".join(map(str, uses)) or ("run cache" if RUN.fullmatch(name) else "not of this dvc.lock")
            done = f"restored from {origin}" if origin else f"no intact copy, removed; {way_back(name, uses, remote)}"
            print(f"{store.said}: {name} ({belongs}) is {'missing' if name in missing else 'corrupt'}: {done}")
            for use in mend_workspace(repo, cache, name, uses) if not remote else ():
                print(f"{use} was checked out of it: {'replaced' if origin else 'removed'}")
    repo.drop_data_index()  # what DVC remembers of manifests, perhaps of a corrupt one that a pull met
    found = f"{len(corrupt)} corrupt" + (f", {len(missing)} missing" if remote else "")
    print(f"{store.said}: {len(names)} objects read, {found}, {lost} not repaired")
    return not lost


def main() -> None:
    """Verify the cache or a remote."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("remote", nargs="?", help="a remote's name; without it the cache is read")
    try:
        check_checkout(Path())
        with Repo() as repo:
            sys.exit(0 if verify(repo, parser.parse_args().remote) else 1)
    except (InputError, DvcException, OSError) as error:
        sys.exit(f"verify: {error}")


if __name__ == "__main__":
    main()
