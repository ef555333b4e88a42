"""Step base: put a base model under DVC, each file checked against its pinned hash, or make one; and examine it."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.bases.examination import examine
from grpo_cot.bases.fetching import agreement_of
from grpo_cot.bases.making import make_base
from grpo_cot.bases.sources import Base
from grpo_cot.common.errors import naming, validated
from grpo_cot.common.files import new_directory, read_yaml, write_json
from grpo_cot.common.step import run

PLACES = {"path", "folder", "shape"}  # which say nothing to whoever is elsewhere
UNSAID = ("folder_variable", "wheel", "file", "tokens", "pretraining")  # where a source file does not give them


def main(args: Namespace) -> str:
    """The files that the source pins, and base.json, which identifies them."""
    source = validated(Base, read_yaml(args.source), args.source)
    with new_directory(args.output) as output:
        agreement = agreement_of(source, args.source)
        changed = make_base(source, output, args.source, args.scratch)
        with naming(args.source):
            remarks = examine(output, answer=source.kind != "scratch")
        identity = {"name": args.source.stem, "id": source.id, "revision": source.revision}
        scorer = {"scorer": source.scorer.model_dump(include={"id", "revision"})} if source.scorer else {}
        write_json(output / "base.json", identity | scorer)
    unsaid = {name for name in UNSAID if getattr(source, name) is None}
    facts = source.model_dump(exclude={*PLACES, "chat_template", "scorer", *unsaid})
    if source.scorer:
        facts["scorer"] = source.scorer.model_dump(exclude=PLACES, exclude_none=True)
    mended = {"changed": changed} if changed else {}
    write_json(args.provenance, {"name": args.source.stem, **facts, "agreement": agreement, **mended})
    args.measured["remarks"] = remarks
    said = "".join(f"; changed {sentence}" for sentence in changed) + "".join(f"; NOTE: {said}" for said in remarks)
    files = sum(path.is_file() for path in args.output.rglob("*"))
    return f"{files} files in {args.output}{said}"


if __name__ == "__main__":
    run(main, __doc__, source=Path, output=Path, provenance=Path, scratch=Path)
