"""A network that ends in the middle of a pull, and comes back: a real client, S3's protocol, and a line that is cut."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.conftest import Project, commit
from pipeline.engines.test_remotes import BUCKET, MANY, Remote, clone, s3_endpoint, small, small_once, verify

__all__ = ["s3_endpoint", "small", "small_once"]  # pytest finds these fixtures here

pytestmark = [pytest.mark.slow, pytest.mark.prove]
FILES, SIZE = 200, 1 << 18  # of MANY


class Line:
    """A network between a client and a server: it carries `left` bytes of answers, then nothing gets through."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server, self.left, self.carried = server, 0, 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Line":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        async def listen() -> None:
            listener = await asyncio.start_server(self._connection, "127.0.0.1", 0)
            self.port = listener.sockets[0].getsockname()[1]
            self._ready.set()

        self._loop.run_until_complete(listen())
        self._loop.run_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.left <= 0:
            writer.transport.abort()
            return
        back, forth = await asyncio.open_connection(*self.server)
        upwards = asyncio.create_task(self._carry(reader, forth, answers=False))
        with contextlib.suppress(ConnectionError):
            await self._carry(back, writer, answers=True)
        upwards.cancel()
        forth.close()
        writer.transport.abort() if self.left <= 0 else writer.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while self.left > 0 and (chunk := await source.read(1 << 14)):
            sink.write(chunk)
            await sink.drain()
            if answers:
                self.left -= len(chunk)
                self.carried += len(chunk)


@pytest.fixture
def line(s3_endpoint: str) -> Iterator[Line]:
    host, port = s3_endpoint.removeprefix("http://").split(":")
    with Line((host, int(port))) as found:
        yield found


def test_a_pull_that_loses_its_network_goes_on_when_it_is_back(
    small: Project, tmp_path: Path, s3_endpoint: str, line: Line
) -> None:
    small.run("python", "-c", MANY)
    small.run("dvc", "add", "--quiet", "many")
    commit(small)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    keys["AWS_MAX_ATTEMPTS"] = "1"  # by default the client asks a dead network for minutes
    remote = Remote(f"s3://{BUCKET}/{tmp_path.name}", None, {"endpointurl": s3_endpoint}, keys)
    remote.use(small)
    small.run("dvc", "push", "--quiet")
    other = clone(small, tmp_path / "other", remote)
    other.run("dvc", "remote", "modify", "--local", "shared", "endpointurl", f"http://127.0.0.1:{line.port}")
    whole = {str(number): random.Random(number).randbytes(SIZE) for number in range(FILES)}
    for _ in range(2):  # each time a third of it comes
        line.left, line.carried = FILES * SIZE // 3, 0
        said = other.run("dvc", "pull", fails=True)
        assert line.left <= 0 and "Traceback" not in said
        come = {path.name: path.read_bytes() for path in (other.folder / "many").glob("*")}
        assert come.items() <= whole.items()  # nothing half stands under a final name
        assert " 0 corrupt" in verify(other)
    line.left, line.carried = FILES * SIZE * 2, 0
    other.run("dvc", "pull")
    assert {path.name: path.read_bytes() for path in (other.folder / "many").iterdir()} == whole
    assert line.carried < 0.6 * FILES * SIZE  # of what had come, nothing comes again
