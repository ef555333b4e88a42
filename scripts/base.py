"""Step base: put a base model under DVC, each file checked against its pinned hash."""

import shutil
from argparse import Namespace
from pathlib import Path

from step import run

from grpo_cot.files import InputError, file_hashes, new_directory, read_yaml, write_json
from grpo_cot.recipes import Base
from grpo_cot.validation import validated


def main(args: Namespace) -> str:
    """The files that the source pins, and base.json, which says what they are."""
    source = validated(Base, read_yaml(args.source), args.source)
    with new_directory(args.output) as output:
        if source.kind == "embedded":
            for name in source.sha256:
                path = Path(str(source.path)) / name
                if not path.is_file():
                    raise InputError(f"{path}: no such file, though {args.source} pins it")
                shutil.copyfile(path, output / name)
        else:
            from httpx import HTTPError
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import HfHubHTTPError

            try:
                snapshot_download(
                    str(source.id), revision=source.revision, local_dir=output, allow_patterns=list(source.sha256)
                )
            except (HfHubHTTPError, HTTPError, OSError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{args.source}: {source.id} cannot be downloaded: {reason}") from None
            shutil.rmtree(output / ".cache", ignore_errors=True)
        found = file_hashes(output)
        for name, expected in source.sha256.items():
            if found.get(name) != expected:
                raise InputError(
                    f"{args.source}: {name} has sha256 {found.get(name)}, expected {expected}: not the pinned file"
                )
        write_json(output / "base.json", {"name": args.source.stem, "id": source.id, "revision": source.revision})
    write_json(args.provenance, {"name": args.source.stem, **source.model_dump(exclude={"path"})})
    return f"{len(source.sha256)} files in {args.output}"


if __name__ == "__main__":
    run(main, __doc__, source=Path, output=Path, provenance=Path)
