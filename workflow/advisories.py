"""`make audit-deps`: known vulnerabilities of the locked packages, by a database in hand.

The database is a folder of OSV records (https://ossf.github.io/osv-schema), such as a clone of pypa/advisory-database,
which the environment variable ADVISORIES names. Nothing is asked over a network.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^ ;\\]+)")


def locked(folder: Path) -> dict[str, dict[Version, set[str]]]:
    """The packages of all locks: by name, their versions, and the locks that have each."""
    found: dict[str, dict[Version, set[str]]] = {}
    for lock in sorted(folder.glob("*.txt")):
        for line in lock.read_text(encoding="utf-8").splitlines():
            if pin := PIN.match(line):
                versions = found.setdefault(canonicalize_name(pin[1]), {})
                versions.setdefault(Version(pin[2]), set()).add(lock.stem)
    return found


def affects(part: Mapping[str, Any], version: Version) -> bool:
    """Whether an `affected` entry of a record covers a version: it is listed, or lies in a range.

    >>> part = {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]}
    >>> affects(part, Version("1.9")), affects(part, Version("2.0"))
    (True, False)
    """
    version = Version(version.public)  # a build's own name, such as +cpu, is in no record
    if any(_version(listed) == version for listed in part.get("versions", ())):
        return True
    for span in part.get("ranges", ()):
        inside = False
        for event in span["events"] if span["type"] == "ECOSYSTEM" else ():
            [(kind, text)] = event.items()
            bound = _version(text)
            if bound is None:
                continue
            if kind == "introduced":
                inside |= bound <= version
            elif kind == "fixed":
                inside &= version < bound
            elif kind == "last_affected":
                inside &= version <= bound
        if inside:
            return True
    return False


def _version(text: object) -> Version | None:
    """A version that Python's packages can have; None of long ago."""
    try:
        return Version(str(text))
    except InvalidVersion:
        return None


def records(database: Path) -> Iterator[Mapping[str, Any]]:
    """Every record of the database that nobody has withdrawn."""
    for path in sorted(database.rglob("*")):
        if path.suffix in (".yaml", ".json") and path.is_file():
            text = path.read_text(encoding="utf-8")
            record = json.loads(text) if path.suffix == ".json" else YAML(typ="safe").load(text)
            if isinstance(record, dict) and "affected" in record and not record.get("withdrawn"):
                yield record


def main() -> None:
    """One line for each vulnerability of a locked version; the exit status says whether there is one."""
    place = os.environ.get("ADVISORIES", "")
    if not Path(place).is_dir() or not place:
        sys.exit(
            "audit-deps: no database in hand; set ADVISORIES to a folder of OSV records, for instance a clone of "
            "https://github.com/pypa/advisory-database"
        )
    packages, count, found = locked(ROOT / "locks"), 0, set()
    for record in records(Path(place)):
        count += 1
        for part in record["affected"]:
            package = part.get("package", {})
            if package.get("ecosystem") != "PyPI":
                continue
            name = canonicalize_name(str(package["name"]))
            for version, locks in packages.get(name, {}).items():
                if affects(part, version):
                    aliases = ", ".join(record.get("aliases", ())[:2])
                    found.add(f"{name} {version} ({', '.join(sorted(locks))}): {record['id']} {aliases}".rstrip())
    if not count:
        sys.exit(f"audit-deps: {place} holds no OSV record")
    print(
        "\n".join(sorted(found)) or "no known vulnerability", f"({count} records, {len(packages)} packages)", sep="\n"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
