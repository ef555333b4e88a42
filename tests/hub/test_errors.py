"""Errors of the Hub's client, as a user reads them."""

import errno
import json
from pathlib import Path
from typing import Any

import datasets
import httpx
import pytest
from stand_in_hub import Answer, Hub, page, refusal

from grpo_cot.common.errors import InputError
from grpo_cot.data.rows import load
from grpo_cot.data.sources import SOURCE_FILE
from grpo_cot.hub.errors import hub_errors, reason


@pytest.mark.usefixtures("the_client_asks_it")
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal(403, "Restricted", X_Error_Code="GatedRepo"), "it is gated: accept its terms"),
        (refusal(404, "Not found", X_Error_Code="RepoNotFound"), "the Hub has no such repository, or a private one"),
        (refusal(404, "Not found", X_Error_Code="RevisionNotFound"), "but not this commit"),
        (page(200), "is not the Hub"),
        (page(403), "is not the Hub (a page with status 403)"),
    ],
)
def test_a_data_set_that_cannot_be_downloaded_is_one_sentence(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, says: str
) -> None:
    """Its library says of each of these that it found no file."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    hub.faults.append(("/", answer))
    source = {
        "kind": "hub", "id": "somebody/problems", "revision": "7" * 40, "splits": {"train": "train", "test": "test"},
        "licence": "mit",
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        load(SOURCE_FILE.validate_python(source), "toy")
    said = str(caught.value)
    assert said.startswith(f"the data set somebody/problems at {'7' * 40} cannot be read: ") and says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (httpx.ReadTimeout("timed out"), "did not answer in time"),
        (httpx.ProxyError("407 Proxy Authentication Required"), "the proxy does not let the request through (407"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "cannot be reached ([SSL: CERT"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "no space left on the device"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "is not the Hub"),
        (KeyError("url"), "does not understand the answer (KeyError: 'url')"),
        (ValueError("the file\nis broken"), "the file is broken"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_every_error_is_one_sentence(error: Exception, says: str) -> None:
    assert says in reason(error) and len(reason(error).splitlines()) == 1


def test_the_cause_that_a_library_wraps_is_told() -> None:
    def wrapped(cause: Exception) -> Any:
        try:
            try:
                raise cause
            except Exception as inner:
                raise ValueError("An error occurred") from inner
        except ValueError as outer:
            return reason(outer)

    assert wrapped(TypeError("row 7 is no object")) == "An error occurred (row 7 is no object)"
    assert "cannot be reached" in wrapped(httpx.ConnectError("refused"))


def test_a_full_disk_and_our_own_sentences_pass() -> None:
    with pytest.raises(OSError, match="full"), hub_errors("x"):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(InputError, match=r"^ours$"), hub_errors("x"):
        raise InputError("ours")
