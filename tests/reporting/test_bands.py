"""Several seeds' curves together, and the published ones."""

from pathlib import Path

import pytest

from grpo_cot.common.files import write_json
from grpo_cot.params import Run
from grpo_cot.reporting.bands import band, band_pictures, bands, published_curves, published_pictures
from grpo_cot.reporting.tables import Result


def log(*values: float, measure: str = "reward", every: int = 1) -> list[dict[str, float]]:
    return [{"step": every * step, measure: value} for step, value in enumerate(values, start=1)]


def test_a_band_is_the_mean_and_the_ends_of_all_seeds() -> None:
    points = band([log(1.0, 2.0), log(3.0, 2.0), log(5.0, 8.0)], "reward")
    assert points == [
        {"step": 1, "mean": 3.0, "low": 1.0, "high": 5.0}, {"step": 2, "mean": 4.0, "low": 2.0, "high": 8.0},
    ]  # fmt: skip


def test_long_curves_are_taken_in_windows() -> None:
    points = band([log(*range(1, 8)), log(*range(3, 10))], "reward", windows=3)
    assert [point["step"] for point in points] == [3, 6, 7]  # three steps a window, the last is cut
    assert [(point["low"], point["high"]) for point in points] == [(2.0, 4.0), (5.0, 7.0), (7.0, 9.0)]


def test_steps_that_a_seed_did_not_log_are_left_out() -> None:
    assert [point["step"] for point in band([log(1.0, 2.0, 3.0), log(1.0, 2.0)], "reward")] == [1, 2]
    assert band([log(1.0), []], "reward") == []
    assert band([log(1.0), log(1.0)], "eval_loss") == []


def results(root: Path, **runs: tuple[str, int]) -> list[Result]:
    found = []
    for name, (recipe, seed) in runs.items():
        train = root / f"runs/{name}/train"
        write_json(train / "01-sft/log.json", log(3.0, 2.0, measure="eval_loss", every=10))
        write_json(
            train / "02-grpo/log.json", [{**one, "completions/mean_length": 9.0} for one in log(0.1 * seed, 1.0)]
        )
        line = Run(recipe=recipe, dataset="generated", base="tiny", image="cpu", seed=seed)
        found.append(Result(name, line, None, None, {}))
    return found


def test_recipes_with_several_seeds_have_curves_by_phase_and_measure(tmp_path: Path) -> None:
    found = bands(tmp_path, results(tmp_path, a1=("a", 1), a2=("a", 2), b1=("b", 1), b2=("b", 2), alone=("c", 1)))
    assert [(part["phase"], part["label"]) for part in found] == [
        ("01-sft", "loss on the validation split"),
        ("02-grpo", "weighted reward"),
        ("02-grpo", "completion length (tokens)"),
    ]
    assert [(curve["name"], curve["seeds"]) for curve in found[1]["curves"]] == [("a", 2), ("b", 2)]
    assert found[1]["curves"][0]["points"][0] == pytest.approx({"step": 1, "mean": 0.15, "low": 0.1, "high": 0.2})
    (first, svg), (second, _) = band_pictures(found[1])
    assert (first, second) == ("a, 2 seeds", "b, 2 seeds")
    assert (
        'role="img" aria-label="weighted reward of a, phase 02-grpo, mean of 2 seeds and the band of all: 0.15 [0.1'
        in svg
    )


def test_the_published_curves_say_only_what_was_logged() -> None:
    curves = published_curves()
    assert {run: len(points) for run, points in curves.items()} == {
        "standard": 36, "cosine-penalised": 36, "cosine": 29, "cosine-g6": 45,
    }  # fmt: skip
    assert curves["standard"][0] == {"step": 50, "length": 175.1637, "right": 0.0925 / 2}
    assert curves["cosine"][-1] == {"step": 1418, "length": 113.6042, "right": 0.4618}
    assert all("right" not in point for point in curves["cosine-penalised"])
    (_, lengths), (_, right) = published_pictures()
    assert "cosine-penalised: 178 until step 50, 158 until 1800" in lengths and "cosine-penalised" not in right
