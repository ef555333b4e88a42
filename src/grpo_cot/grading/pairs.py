"""How well models tell the chosen answer of a pair from the rejected one, by the answers' log-likelihoods.

A model ranks a pair right where it finds the chosen answer more likely, all tokens summed: of two answers the shorter
one has an advantage, which the base and the trained model share. The change that training made,
log p(answer) - log p_base(answer), is DPO's implicit reward without its factor beta where DPO from the base is all of
the training (Rafailov et al., 2023, equation 5).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_cot.common.files import Row
from grpo_cot.grading.estimates import MODELS, mean, paired, share

SIDES = ("gold_log_likelihood", "rejected_log_likelihood")


def pair_figures(predictions: Sequence[Row]) -> dict[str, Any] | None:
    """The figures of a set's pairs; None where its rows are none. A pair whose answers are equally likely counts as
    ranked wrong, and one that is longer than the model's positions as none.

    Returns:
        For `base` and `trained`: `pair_accuracy`, a share with Wilson's 95 % interval, and `pair_margin`, the mean
        difference of the log-likelihoods (nats) with a bootstrap interval over pairs. `paired`: the accuracy's change
        with McNemar's p. `implicit_reward`: its `accuracy`, its `margin` (nats), and `n` pairs.
    """
    rows = [
        prediction for prediction in predictions if all(ranked_right(prediction[model]) is not None for model in MODELS)
    ]
    if not rows:
        return None
    margins = {model: [_margin(row[model]) for row in rows] for model in MODELS}
    right = {model: [margin > 0 for margin in values] for model, values in margins.items()}
    changes = [after - before for before, after in zip(margins["base"], margins["trained"], strict=True)]
    return {
        **{model: {"pair_accuracy": share(right[model]), "pair_margin": mean(margins[model])} for model in MODELS},
        "paired": paired(right["base"], right["trained"]),
        "implicit_reward": {
            "accuracy": share([change > 0 for change in changes]), "margin": mean(changes), "n": len(rows)
        },
    }  # fmt: skip


def ranked_right(prediction: Mapping[str, Any]) -> bool | None:
    """Whether a model finds the chosen answer more likely; None where one of the two was not measured."""
    chosen, rejected = (prediction.get(side) for side in SIDES)
    return None if chosen is None or rejected is None else bool(chosen > rejected)


def _margin(row: Mapping[str, float]) -> float:
    chosen, rejected = (row[side] for side in SIDES)
    return chosen - rejected
