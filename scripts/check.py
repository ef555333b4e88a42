"""Step check: ask the base and the trained model, as saved on disk, the same questions in the same way."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from grpo_cot.evaluation.pairs import both
from grpo_cot.files import write_json
from grpo_cot.generation import generate
from grpo_cot.library.settings import check_section
from grpo_cot.models.loading import load
from grpo_cot.prompts import conversation, system_messages
from grpo_cot.recipes.recipe import load_recipe
from grpo_cot.step import run


def main(args: Namespace) -> str:
    """check.json: the transcripts, greedy and sampled, and whether any greedy answer changed."""
    recipe = load_recipe(args.recipe)
    section = recipe.check
    check_section("sampling", section.sampling, f"{args.recipe}: check.sampling")
    model, tokenizer, description = load(args.model)
    system = system_messages(tokenizer, recipe.prompt)
    conversations = [conversation(system, recipe.prompt.example, question) for question in section.questions]
    greedy = {"do_sample": False, "max_new_tokens": section.sampling["max_new_tokens"]}
    transcripts: list[dict[str, Any]] = [
        {"question": question, "greedy": {}, "sampled": {}} for question in section.questions
    ]
    for name, asked in both(model, description):
        for kind, sampling in (("greedy", greedy), ("sampled", section.sampling)):
            answers = generate(
                asked, tokenizer, conversations, sampling, batch_size=len(conversations),
                chat_template_kwargs=recipe.prompt.chat_template_kwargs, seed=args.seed, progress=f"{name} {kind}",
            )  # fmt: skip
            for transcript, answer in zip(transcripts, answers, strict=True):
                transcript[kind][name] = answer.text
    changed = sum(transcript["greedy"]["base"] != transcript["greedy"]["trained"] for transcript in transcripts)
    write_json(
        args.output,
        {
            "sampling": section.sampling,
            "seed": args.seed,
            "greedy_answers_changed": changed,
            "transcripts": transcripts,
        },
    )
    if not changed:
        return (
            f"WARNING: every greedy answer to {len(conversations)} questions is unchanged: the training moved nothing"
        )
    return f"{changed} of {len(conversations)} greedy answers changed"


if __name__ == "__main__":
    run(main, __doc__, recipe=Path, model=Path, seed=int, output=Path)
