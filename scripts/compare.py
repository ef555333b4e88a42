"""Step compare: two runs' trained models, paired on the same problems."""

from argparse import Namespace
from pathlib import Path

from grpo_cot.common.files import read_jsonl, write_json
from grpo_cot.common.step import run
from grpo_cot.grading.comparison import compare
from grpo_cot.statistics import in_points


def main(args: Namespace) -> str:
    """C.json: difference (b minus a), interval and p of the accuracies that both have, by evaluation set."""
    result = compare(read_jsonl(args.a), read_jsonl(args.b))
    names = {"a": args.a_name, "b": args.b_name}
    write_json(args.output, {**names, **result})
    measure = next(name for name, figure in result.items() if isinstance(figure, dict) and "difference" in figure)
    return (
        f"{measure.replace('_', ' ')} of {names['b']} minus {names['a']}: {in_points(result[measure])} "
        f"(set {result['set']}, n = {result[measure].get('n', result['n'])})"
        + "".join(f"; WARNING: {warning}" for warning in result["warnings"])
    )


if __name__ == "__main__":
    run(main, __doc__, a_name=str, b_name=str, a=Path, b=Path, output=Path)
