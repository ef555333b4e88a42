"""Provenance that others' tools accept: the RO-Crate of a run, the images' bills of materials, a model's signature."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from pipeline.conftest import Project

pytestmark = pytest.mark.slow
TOOLS = ROOT / ".venv/provenance"
# The validator asks the network for the context; it gets the copy that the package rocrate brings.
VALIDATE = """
import json, sys
from pathlib import Path

import rocrate
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester


class Answer:
    status_code, from_cache, ok, headers = 200, True, True, {"Content-Type": "application/ld+json"}
    text = (Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text()
    content = text.encode()

    def json(self):
        return json.loads(self.text)

    def raise_for_status(self):
        pass


def get(self, address, *others, **settings):
    assert "/ro/crate/1.1/context" in address, address
    return Answer()


HttpRequester.get = HttpRequester.fetch_fresh = get
settings = models.ValidationSettings(
    rocrate_uri=sys.argv[1], profile_identifier="process-run-crate", offline=True,
    requirement_severity=models.Severity.RECOMMENDED,
)
for issue in services.validate(settings).get_issues():
    print(issue.severity.name, issue.check.identifier)
"""
# What a crate should say beyond what it must, and ours does not know: who ran it, and addresses of its programs.
UNKNOWN = {
    "RECOMMENDED process-run-crate-0.5_3.2", "RECOMMENDED process-run-crate-0.5_5.1",
    "RECOMMENDED process-run-crate-0.5_8.6", "RECOMMENDED ro-crate-1.1_22.2", "RECOMMENDED ro-crate-1.1_22.3",
}  # fmt: skip


@pytest.fixture
def tools() -> dict[str, str]:
    """The environment in which the tools are found."""
    if not (TOOLS / ".ready").is_file():
        pytest.skip("the tools of provenance are not installed; `make .venv/provenance/.ready` does that")
    return {**os.environ, "PYTHONPATH": f"src{os.pathsep}{TOOLS}"}


def run(tools: dict[str, str], folder: Path, *command: object, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=tools, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_runs_crate_is_accepted_and_names_what_each_step_read_and_wrote(copy: Project, tools: dict[str, str]) -> None:
    assert "files and their provenance" in run(tools, copy.folder, "workflow/crate.py", "short-a")
    crate = copy.folder / "reports/crates/short-a"
    assert set(run(tools, copy.folder, "-c", VALIDATE, crate).splitlines()) <= UNKNOWN
    entities = {
        entity["@id"]: entity for entity in json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    }
    train = entities["#train@short-a"]
    assert train["instrument"] == {"@id": "scripts/train.py"} and train["startTime"] < train["endTime"]
    assert {"@id": "#runs/short-a/prompts"} in train["object"] and {"@id": "#runs/short-a/train"} in train["result"]
    assert entities["#runs/short-a/train"]["identifier"].endswith(".dir")
    figure = entities["#trained-strict_accuracy"]
    assert figure["minValue"] <= figure["value"] <= figure["maxValue"] and "n = 20" in figure["description"]
    assert (crate / "runs/short-a/report.html").is_file() and (crate / "dvc.lock").is_file()


def test_a_run_that_is_not_there_or_not_finished_is_one_sentence(copy: Project, tools: dict[str, str]) -> None:
    said = run(tools, copy.folder, "workflow/crate.py", "nobody", fails=True)
    assert "crate: params.yaml has no run 'nobody', expected one of: short-a, short-b" in said
    copy.edit("dvc.lock", "  train@short-a:", "  train@elsewhere:")
    said = run(tools, copy.folder, "workflow/crate.py", "short-a", fails=True)
    assert "the run 'short-a' is not finished, 'train@short-a' is missing; run `make repro` first" in said
    assert not (copy.folder / "reports/crates/short-a").exists()


def test_a_file_that_was_changed_since_the_run_is_named(copy: Project, tools: dict[str, str]) -> None:
    figures = copy.folder / "runs/short-a/grade/metrics.json"
    figures.chmod(0o644)
    figures.write_text(figures.read_text().replace("0.", "1.", 1))
    script = copy.folder / "scripts/grade.py"
    script.write_text(script.read_text() + "# edited\n")
    said = run(tools, copy.folder, "workflow/crate.py", "short-a", fails=True)
    assert "scripts/grade.py has the md5" in said and "it was changed since the run" in said


def test_each_image_has_a_bill_of_its_packages_with_their_hashes(copy: Project, tools: dict[str, str]) -> None:
    run(tools, copy.folder, "workflow/sbom.py")
    for image, package in (("cpu", "bitsandbytes"), ("cuda", "unsloth")):
        bill = json.loads((copy.folder / f"reports/sbom/{image}.cdx.json").read_text())
        parts = {part["name"].lower(): part for part in bill["components"]}
        assert bill["bomFormat"] == "CycloneDX" and len(parts) > 90
        hashes = [one["hashes"] for one in parts[package]["externalReferences"] if "hashes" in one]
        assert hashes or parts[package].get("hashes")
        assert len(parts) == len(bill["components"])  # one version of each


def test_a_signed_model_is_verified_and_a_changed_one_is_not(copy: Project, tools: dict[str, str]) -> None:
    key, public = copy.folder / "key.pem", copy.folder / "key.pub"
    copy.run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(key))
    copy.run("openssl", "ec", "-in", str(key), "-pubout", "-out", str(public))
    ready = [f"--assume-old={ROOT}/.venv/{folder}.ready" for folder in ("", "provenance/")]
    copy.run("make", *(word.replace(f"{ROOT}/", "") for word in ready), "sign", "RUN=short-a", f"KEY={key}")
    assert copy.run("dvc", "status", "publish@short-a").endswith("up to date.\n")
    model, signature = copy.folder / "published/short-a/merged", copy.folder / "reports/signatures/short-a.sig"
    (model / ".cache").mkdir()
    (model / ".cache/note").write_text("as the Hub's client leaves one")
    verify = ("-m", "model_signing", "verify", "key", "--public_key", public, "--signature", signature)
    verify += ("--ignore-paths", model / ".cache", model)
    run(tools, copy.folder, *verify)
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    assert "erification failed" in run(tools, copy.folder, *verify, fails=True)
