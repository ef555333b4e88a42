"""Whatever goes wrong between here and the Hub, as one sentence that says what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TYPE_CHECKING

from grpo_cot.common.errors import InputError
from grpo_cot.common.machine import machine_error

if TYPE_CHECKING:
    import httpx

_LONGEST = 300
_SILENCE = 300.0  # seconds without a byte; the Hub takes minutes for a large commit
_NO_SPACE = ("No space left on device", "os error 28")  # in the words of the Hub's own download library


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """Turn every error of the block, which calls the Hub's client and nothing else, into a sentence after `doing`.

    The client raises whatever its own libraries do: for a page instead of data a decoding error, for a proxy that it
    has no code for an import error. A list of them is never complete.

    Raises:
        InputError: the block failed.
        OSError: the disk failed, which is for the step to say.
    """
    try:
        import httpx
        from huggingface_hub.utils import get_session

        get_session().timeout = httpx.Timeout(_SILENCE, connect=_SILENCE / 10)  # its own is to wait for ever
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and machine_error(error):
            raise
        raise InputError(f"{doing}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What an error of the Hub's client means, and what to do about it."""
    import httpx
    from huggingface_hub.errors import FileMetadataError

    chain = _chain(error)
    for link in chain:
        if isinstance(response := getattr(link, "response", None), httpx.Response):
            return _of_response(link, response)
    for link in chain:
        if known := _of_connection(link) or _of_machine(link):
            return known
    if isinstance(error, JSONDecodeError | FileMetadataError):
        return _not_the_hub(_short(error))
    if isinstance(error, KeyError | TypeError | AttributeError):
        return f"the Hub's client does not understand the answer ({type(error).__name__}: {_short(error)})"
    deepest = f" ({_short(chain[-1])})" if len(chain) > 1 and _short(chain[-1]) not in _short(error) else ""
    return f"{_short(error) or type(error).__name__}{deepest}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, the outermost first."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return found


def _short(error: object) -> str:
    return " ".join(str(error).split())[:_LONGEST]


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _not_the_hub(found: str) -> str:
    return (
        f"what answers at {_endpoint()} is not the Hub ({found}): a proxy's or a login's page, perhaps; look at the "
        "variables HTTPS_PROXY and HF_ENDPOINT, and open the address on this machine"
    )


def _of_connection(error: BaseException) -> str | None:
    """Of an error on the way to the Hub."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return f"{_endpoint()} did not answer in time; try again, and look at HTTPS_PROXY if it lasts"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy does not let the request through ({_short(error)}); look at the variable HTTPS_PROXY"
    wrong_proxy = isinstance(error, ValueError) and "proxy URL" in str(error)
    if wrong_proxy or isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return f"the variable HF_ENDPOINT or HTTPS_PROXY holds no address ({_short(error)}); expected https://HOST"
    if isinstance(error, httpx.LocalProtocolError) and "header" in str(error):
        return "the token in HF_TOKEN has characters that no token has; copy it again"
    if isinstance(error, httpx.TransportError):
        return f"{_endpoint()} cannot be reached ({_short(error)}); look at the network and the variable HTTPS_PROXY"
    return None


def _of_machine(error: BaseException) -> str | None:
    """Of an error of this machine's setting."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    text = str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "the variable HF_HUB_OFFLINE keeps this machine from asking the Hub; unset it"
    if isinstance(error, ImportError) and "socks" in text.lower():
        names = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
        named = [name for name in names if os.environ.get(name, os.environ.get(name.lower(), "")).startswith("socks")]
        return (
            f"{' and '.join(named) or 'the proxy setting'} names a SOCKS proxy, which needs the package socksio; "
            "`pip install socksio`, or name an HTTP proxy"
        )
    if isinstance(error, UnicodeEncodeError):
        return "the token in HF_TOKEN has characters that no token has; copy it again"
    if any(words in text for words in _NO_SPACE):
        return "no space left on the device; make room and start again"
    return None


def _of_response(error: BaseException, response: "httpx.Response") -> str:
    """Of an answer that the client takes for an error."""
    from huggingface_hub import errors

    status, said = response.status_code, _short(getattr(error, "server_message", None) or "")
    words = f" ({said})" if said else ""
    if isinstance(error, errors.GatedRepoError):
        return "it is gated: accept its terms on its page on the Hub, and give the token of that account in HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the Hub has the repository, but not this commit; copy it from its page: Files and versions, History"
    if "html" in response.headers.get("Content-Type", "") and status < 500:
        return _not_the_hub(f"a page with status {status}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the Hub has no such repository, or a private one, which the token in HF_TOKEN may not see"
    if status == 429:
        return f"too many requests for the Hub's limit; {_waiting(response)}"
    if status >= 500:
        return f"the Hub has a fault of its own, or a proxy before it (status {status}){words}; try again later"
    explained = {
        400: f"the Hub refuses it{words or ' (status 400)'}",
        401: f"the Hub does not accept the token in HF_TOKEN{words}; make a new one in the account's settings",
        402: f"the Hub asks for payment first{words}",
        403: f"the Hub forbids it{words or ': the token in HF_TOKEN has no right to it'}",
        409: f"the Hub finds that something else was written there meanwhile{words}; start again",
        412: f"somebody else committed there meanwhile{words}; look at it, and start again",
        407: "the proxy asks for a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT",
    }
    return explained.get(status, f"the Hub answers with status {status}{words}")


def _waiting(response: "httpx.Response") -> str:
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(response.headers)
    seconds = str(limit.reset_in_seconds) if limit else response.headers.get("Retry-After", "")
    return f"try again in {seconds} seconds" if seconds.isdigit() else "try again in some minutes"
