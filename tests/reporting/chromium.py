"""Pages in a real browser: headless Chromium, driven over a pipe by the Chrome DevTools Protocol."""

import base64
import fcntl
import json
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def program() -> str | None:
    """Where Chromium is, or nothing."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """A browser with one tab at a time; what it reports on that tab is in `events`."""

    def __init__(self, profile: Path) -> None:
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (*os.pipe(), *os.pipe())]
        commands, self.commands, self.answers, answers = ends
        # It reads commands from descriptor 3 and answers on 4.
        command = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", str(program()), *OPTIONS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"], pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (commands, answers):
            os.close(end)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.answers, selectors.EVENT_READ)
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)

    def open(self, page: Path, width: int, scheme: str, *, scripts: bool = True) -> None:
        """A page from disk, in a fresh tab of that width, for a reader who prefers `light` or `dark`."""
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844 if mobile else 900, deviceScaleFactor=1,
            mobile=mobile,
        )  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events = []
        self.call("Page.navigate", url=page.as_uri())
        limit = time.monotonic() + 60
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next(limit))

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page, or what its promise is kept with."""
        said = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def problems(self, page: Path) -> list[str]:
        """Errors and warnings on the console, exceptions, and every request but the one for the page itself."""
        self.ask("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        found = []
        for event in self.events:
            kind, facts = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown":
                found.append(str(facts["exceptionDetails"]))
            elif kind == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
                found.append(str(facts["args"]))
            elif kind == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
                found.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")
            elif kind == "Network.requestWillBeSent" and facts["request"]["url"] != page.as_uri():
                found.append(f"request of {facts['request']['url'][:200]}")
            elif kind == "Page.javascriptDialogOpening":
                found.append(f"dialog {facts['message']}")
        return found

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A screenshot of the window, or of the `whole` page."""
        said = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(said["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        limit = time.monotonic() + 60
        while True:
            answer = self._next(limit)
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            if "method" in answer:
                self.events.append(answer)

    def _next(self, limit: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            if not self.selector.select(max(0.0, limit - time.monotonic())):
                raise TimeoutError("Chromium did not answer")
            part = os.read(self.answers, 2**20)
            if not part:
                raise ConnectionError("Chromium ended")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return dict(json.loads(message))
