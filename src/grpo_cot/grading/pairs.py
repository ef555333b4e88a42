"""How well models tell the chosen answer of a pair from the rejected one, by the answers' log-likelihoods.

A model ranks a pair right where it finds the chosen answer more likely, all tokens summed: of two answers the shorter
one has an advantage, which the base and the trained model share. The change that training made,
log p(answer) - log p_base(answer), is DPO's implicit reward without its factor beta where DPO from the base is all of
the training (Rafailov et al., 2023, equation 5).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grpo_cot.common.files import Row
from grpo_cot.statistics import bootstrap_interval, detectable_difference, mcnemar, wilson_interval

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
        prediction
        for prediction in predictions
        if all(ranked_right(prediction[model]) is not None for model in ("base", "trained"))
    ]
    if not rows:
        return None
    margins = {model: _margins([row[model] for row in rows]) for model in ("base", "trained")}
    right = {model: (values > 0).tolist() for model, values in margins.items()}
    discordant = float(np.mean((margins["base"] > 0) != (margins["trained"] > 0)))
    test = mcnemar(right["base"], right["trained"])._asdict()
    return {
        **{
            model: {"pair_accuracy": _share(values), "pair_margin": _mean(values)} for model, values in margins.items()
        },
        "paired": test | {"detectable": detectable_difference(len(rows), discordant)},
        "implicit_reward": {
            "accuracy": _share(margins["trained"] - margins["base"]),
            "margin": _mean(margins["trained"] - margins["base"]), "n": len(rows),
        },
    }  # fmt: skip


def ranked_right(prediction: Mapping[str, Any]) -> bool | None:
    """Whether a model finds the chosen answer more likely; None where one of the two was not measured."""
    chosen, rejected = (prediction.get(side) for side in SIDES)
    return None if chosen is None or rejected is None else bool(chosen > rejected)


def _margins(rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    chosen, rejected = (np.array([row[side] for row in rows], dtype=float) for side in SIDES)
    margins: NDArray[np.float64] = chosen - rejected
    return margins


def _share(margins: NDArray[np.float64]) -> dict[str, float]:
    return wilson_interval(int((margins > 0).sum()), len(margins))._asdict()


def _mean(margins: NDArray[np.float64]) -> dict[str, Any]:
    return bootstrap_interval(np.mean, margins)._asdict()
