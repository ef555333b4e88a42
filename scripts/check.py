"""Step check: ask the base and the trained model, as saved on disk, the same questions in the same way."""

from argparse import Namespace
from pathlib import Path

from step import run

from grpo_cot.evaluation import ask_both
from grpo_cot.files import write_json
from grpo_cot.library_settings import check_section
from grpo_cot.models import load
from grpo_cot.prompts import conversation, system_messages
from grpo_cot.recipes import load_recipe


def main(args: Namespace) -> str:
    """check.json: the transcripts, greedy and sampled, and whether any greedy answer changed."""
    recipe = load_recipe(args.recipe)
    section = recipe.check
    check_section("sampling", section.sampling, f"{args.recipe}: check.sampling")
    model, tokenizer, description = load(args.model)
    system = system_messages(tokenizer, recipe.prompt)
    conversations = [conversation(system, recipe.prompt.example, question) for question in section.questions]
    greedy = {"do_sample": False, "max_new_tokens": section.sampling["max_new_tokens"]}
    transcripts: list[dict[str, object]] = [{"question": question} for question in section.questions]
    changed = 0
    for name, sampling in (("greedy", greedy), ("sampled", section.sampling)):
        answers = ask_both(
            model, tokenizer, description, conversations, sampling, batch_size=len(conversations),
            chat_template_kwargs=recipe.prompt.chat_template_kwargs, seed=args.seed,
        )  # fmt: skip
        for transcript, base, trained in zip(transcripts, answers["base"], answers["trained"], strict=True):
            transcript[name] = {"base": base.text, "trained": trained.text}
            changed += name == "greedy" and base.text != trained.text
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
