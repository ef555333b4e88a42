"""Step base: put a base model under DVC, each file checked against its pinned hash, or make one."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.bases.making import agreement_of, make_base
from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import validated
from grpo_cot.common.files import new_directory, read_yaml, write_json
from grpo_cot.common.step import run


def main(args: Namespace) -> str:
    """The files that the source pins, and base.json, which identifies them."""
    source = validated(Base, read_yaml(args.source), args.source)
    with new_directory(args.output) as output:
        agreement = agreement_of(source, args.source)
        make_base(source, output, args.source, args.scratch)
        write_json(output / "base.json", {"name": args.source.stem, "id": source.id, "revision": source.revision})
    unsaid = () if source.pretraining else ("pretraining",)
    facts = source.model_dump(exclude={"path", "chat_template", "shape", *unsaid})
    write_json(args.provenance, {"name": args.source.stem, **facts, "agreement": agreement})
    return f"{len(list(args.output.iterdir()))} files in {args.output}"


if __name__ == "__main__":
    run(main, __doc__, source=Path, output=Path, provenance=Path, scratch=Path)
