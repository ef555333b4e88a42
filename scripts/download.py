"""Step download: put a data set's rows under DVC."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.files import new_directory, write_json, write_jsonl
from grpo_cot.common.step import run
from grpo_cot.data.kinds import read_any


def main(args: Namespace) -> str:
    """One file of rows a split, and the record of where they came from."""
    kind, source = read_any(args.source)
    splits, record = kind.load(source, args.source.stem)
    with new_directory(args.output) as output:
        for split, rows in splits.items():
            write_jsonl(output / f"{split}.jsonl", rows)
    write_json(args.provenance, record)
    counts = ", ".join(f"{count} {split}" for split, count in record["rows"].items())
    return f"{counts} rows in {args.output}"


if __name__ == "__main__":
    run(main, __doc__, source=Path, output=Path, provenance=Path)
