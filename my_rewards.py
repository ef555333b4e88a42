"""Rewards of one's own: a recipe names them `my_rewards.NAME`. See docs/quickstart.md.

A reward is a function with its promise beside it. The audit refuses one without a promise, and one that breaks it.
"""

from grpo_cot.rewards import completion_text, promises


@promises(pays=["12 + 6 = 18\n<answer>18</answer>"], never=["<answer>12 + 6 = 18</answer>", "18"])
def shows_a_step(prompts, completions, **columns):
    """1 when there is an equation before the answer."""
    return [float("=" in completion_text(completion).partition("<answer>")[0]) for completion in completions]
