"""What fails because of the machine and not of the input: its disk, its memory, the locks of its file system."""

import errno
import fcntl
from typing import IO, Any

from grpo_cot.common.errors import InputError

ROOM = "make room"
RIGHTS = "give this user the right to read or write it"
DISK = {
    errno.ENOSPC: ("no space left on the device", ROOM),
    errno.EDQUOT: ("the disk quota is used up", ROOM),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EACCES: ("permission denied", RIGHTS),
    errno.EPERM: ("permission denied", RIGHTS),
    errno.EIO: ("the disk has an error", "look at its health"),
}
# Of torch's allocators: on a GPU they raise an error of their own (OutOfMemoryError), on a CPU a plain RuntimeError.
MEMORY = ("can't allocate memory", "Cannot allocate memory", "out of memory")


def machine_error(error: BaseException) -> str | None:
    """A sentence on an error that the machine causes; None where it is another one.

    >>> machine_error(OSError(errno.EROFS, "Read-only file system", "data/x"))
    'the file system is read-only (data/x); make it writable, and start again'
    """
    if isinstance(error, OSError) and error.errno in DISK:
        found, remedy = DISK[error.errno]
        return f"{found} ({error.filename or 'no file named'}); {remedy}, and start again"
    if out_of_memory(error):
        return (
            "there is not enough memory; end what else uses it, or lower the batch size of this step in the recipe "
            "(`make plan EXPERIMENT=RUN` says what training needs)"
        )
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, of the machine or of its GPU.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    says_so = type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY)
    )
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return says_so or refused or isinstance(error, MemoryError)


def hold(file: IO[Any]) -> bool:
    """Whether this process now holds the OS lock (flock) of an open file; another one may have it.

    The lock ends with its process, however that ends, so no stale lock is ever left behind.

    Raises:
        InputError: the file system keeps no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"{file.name}: its file system keeps no locks ({error.strerror}), without which two runs would spoil each "
            "other's work; put the checkout on a disk of this machine, or have the file system keep them (NFS: no "
            "`nolock` among its mount options)"
        ) from None
    return True
