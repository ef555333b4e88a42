"""Known vulnerabilities of the locked packages: found in a database in hand, and said to be unknown without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from grpo_cot.common.files import write_text

TORCH = "2.13.0"


def audit(database: Path | None) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "ADVISORIES": str(database or "")}
    command = [sys.executable, str(ROOT / "workflow/advisories.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def record(**affected: Any) -> str:
    part = {"package": {"name": "Torch", "ecosystem": "PyPI"}, **affected}
    return json.dumps({"id": "PYSEC-0", "aliases": ["CVE-0"], "affected": [part]})


@pytest.mark.parametrize(
    ("affected", "hit"),
    [
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": TORCH}]}]}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1.0"}, {"last_affected": TORCH}]}]}, True),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}], "versions": ["1.0", "not a version"]}, False),
        ({"versions": [TORCH]}, True),
        ({"versions": [TORCH], "package": {"name": "torch", "ecosystem": "npm"}}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "of old"}, {"fixed": "99"}]}]}, False),
    ],
    ids=str,
)
def test_a_locked_version_is_compared_with_each_record(tmp_path: Path, affected: dict[str, Any], hit: bool) -> None:
    write_text(tmp_path / "torch/PYSEC-0.yaml", record(**affected))
    write_text(
        tmp_path / "torch/PYSEC-1.json", json.dumps({**json.loads(record(versions=[TORCH])), "withdrawn": "2026"})
    )
    status, said = audit(tmp_path)
    assert status == hit and ("torch 2.13.0 (" in said and "torch 2.13.0+cpu (" in said) is hit, said
    assert ("PYSEC-0 CVE-0" in said) is hit
    assert ("no known vulnerability" in said) is not hit and "(1 records," in said


def test_without_a_database_it_says_that_there_is_none(tmp_path: Path) -> None:
    status, said = audit(None)
    assert status == 1 and "no database in hand; set ADVISORIES" in said
    assert "holds no OSV record" in audit(tmp_path)[1]
