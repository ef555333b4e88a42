"""Data sets: every kind of source gives the same rows, and a malformed one is refused in one sentence."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import folder_from
from support import ROOT

from grpo_cot.common.errors import InputError, validated
from grpo_cot.data.kinds import KINDS, read_any
from grpo_cot.data.rows import load, plain_number, plain_solution
from grpo_cot.data.sources import SOURCE_FILE, Suite, evaluation_sets
from grpo_cot.numbers import numeric_value

GOOD = [{"question": "2 + 3?", "answer": "2 + 3 = 5\n#### 5"}, {"question": "10 * 100?", "answer": "#### 1,000"}]
DATASETS = ROOT / "sources/datasets"
DEFAULT_ROWS = "57874d4c44c00eedfe837f59aa16332f9dcb31ebc3f1855a8ad648e615bcb30c"  # sha256, see the test


def pinned(folder: Path, name: str, text: str) -> dict[str, Any]:
    (folder / name).write_text(text, encoding="utf-8")
    return {"path": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def files_source(folder: Path, lines: list[str], test: list[str] | None = None, **extra: object) -> Suite:
    """Training rows, and the test rows, which are the same where none are given."""
    splits = {
        name: pinned(folder, f"{name}.jsonl", "".join(line + "\n" for line in part))
        for name, part in (("train", lines), ("test", lines if test is None else test))
    }
    source = {"kind": "files", "folder": str(folder), "splits": splits, "licence": "MIT", **extra}
    return validated(SOURCE_FILE, source, "toy.yaml")


def rows(folder: Path, lines: list[str], **extra: object) -> list[dict[str, Any]]:
    return load(files_source(folder, lines, **extra), "toy")[0]["train"]


def with_set(folder: Path, pin: dict[str, Any], **extra: object) -> Suite:
    evaluation = {"kind": "files", "folder": str(folder), "splits": {"other": pin}, "licence": "CC0-1.0", **extra}
    return files_source(folder, list(map(json.dumps, GOOD)), evaluation=[evaluation])


def test_rows_carry_the_normalised_gold_and_the_plain_solution(tmp_path: Path) -> None:
    found = rows(tmp_path, list(map(json.dumps, GOOD)))
    assert [row["gold"] for row in found] == ["5", "1000"]
    assert [row["solution"] for row in found] == ["2 + 3 = 5", None]
    assert {row["locale"] for row in found} == {"en"}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([json.dumps(GOOD[0]), '{"question": "2?", '], r"train.jsonl: line 2 is not valid JSON"),
        ([json.dumps({"question": "2?", "answer": "five"})], r"row 1 .*'answer'.*expected one '####'.*found 0"),
        ([json.dumps({"question": "2?", "answer": "#### 5\n#### 6"})], r"expected one '####'.*found 2"),
        (
            [json.dumps({"question": "2?", "answer": "#### five"})],
            r"row 1 .*expected a number after '####', found 'five'",
        ),
        ([json.dumps({"question": "", "answer": "#### 5"})], r"row 1 .*'question' holds '', expected text"),
        ([json.dumps({"answer": "#### 5"})], r"'question' holds None, expected text"),
        (["[1, 2]"], r"line 1 is a JSON list, expected an object"),
        ([], r"train.jsonl: the file is empty"),
    ],
)
def test_malformed_input_is_one_sentence(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        rows(tmp_path, lines)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("set.tsv", "2 + 3?\t5\nsix?\n", r"set.tsv: row 2 has 1 columns, expected 2 \(question, gold\)"),
        (
            "set.tsv",
            "2 + 3?\tfive\n",
            r"set.tsv: row 1 \(id other-0\): field 'gold': holds 'five', expected one number",
        ),
        ("set.tsv", "2 + 3?\t3 or 4\n", r"row 1 .*field 'gold': holds '3 or 4', expected one number"),
        ("set.tsv", "\t5\n", r"set.tsv: row 1 .*field 'question' holds '', expected text"),
        ("set.tsv", "", r"set.tsv: the file is empty"),
        ("set.json", "{}", r"set.json: expected a JSON list of at least one object, found {}"),
        ("set.json", '[{"question": "2?", "gold": 2}, 5]', r"set.json: row 2 is a JSON int, expected an object"),
        ("set.json", '[{"question": "2?"}]', r"set.json: row 1 .*field 'gold': holds None, expected one number"),
        ("set.json", '[{"question": "2?", "gold": true}]', r"field 'gold': holds True, expected one number"),
        ("set.csv", "question,number\n2 + 3?,5\n", r"set.csv: row 1 .*field 'gold': holds None"),
        ("set.parquet", "PAR1", r"expected a name that ends in .jsonl, .json, .csv or .tsv, found .set.parquet"),
    ],
)
def test_malformed_evaluation_rows_name_file_row_and_field(tmp_path: Path, name: str, text: str, says: str) -> None:
    pin = pinned(tmp_path, name, text) | ({"fields": ["question", "gold"]} if name.endswith(".tsv") else {})
    with pytest.raises(InputError, match=says) as refusal:
        load(with_set(tmp_path, pin, columns={"gold": "gold"}), "toy")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.jsonl", '{"body": "A \\"hat\\", ", "ask": "how many?", "n": 1200.5, "key": 7}\n'),
        ("set.json", '[{"body": "A \\"hat\\", ", "ask": "how many?", "n": "1,200.5", "key": 7}]'),
        ("set.csv", 'key,body,ask,n\n7,"A ""hat"", ",how many?,"1,200.5"\n'),
        ("set.tsv", 'key\tbody\task\tn\n7\tA "hat",\thow many?\t1,200.5\n'),
    ],
)
def test_a_local_file_of_any_form_needs_only_a_column_map(tmp_path: Path, name: str, text: str) -> None:
    columns = {"question": ["body", "ask"], "gold": "n", "id": "key"}
    splits, _ = load(with_set(tmp_path, pinned(tmp_path, name, text), columns=columns), "toy")
    row = splits["other"][0]
    assert (row["id"], row["question"], row["gold"], row["solution"]) == ("7", 'A "hat", how many?', "1200.5", None)


@pytest.mark.parametrize(
    ("value", "locale", "written"),
    [
        ("70.000", "vi", "70000"), ("2,5", "vi", "2.5"), ("70,000", "en", "70000"), ("2.5", "en", "2.5"),
        (51.0, "vi", "51"), (-0.125, "vi", "-0.125"), (7, "en", "7"), ("-1.234,5", "vi", "-1234.5"),
        ("70 nghìn", "vi", "70000"), ("1,5 triệu đồng", "vi", "1500000"), ("18 thousand", "en", "18000"),
        ("18k", "en", "18000"),
        ("3 dozen", "en", "36"), ("2 giờ rưỡi", "vi", "2.5"), ("1 000 000", "en", "1000000"), ("1/2", "en", "0.5"),
    ],
)  # fmt: skip
def test_a_gold_is_plain_english_whatever_its_source_writes(value: object, locale: Any, written: str) -> None:
    assert plain_number(value, locale) == written
    assert numeric_value(written) == numeric_value(str(value), locale if isinstance(value, str) else "en")


@pytest.mark.parametrize(
    "value", ["18 or nineteen", "18 minus one", "18x", "70 nghìn hoặc 80", "2 giờ 30 phút", "36/2"]
)
def test_a_gold_of_several_values_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="expected one number"):
        plain_number(value, "vi")


def test_a_vietnamese_worked_answer_is_read_by_its_locale(tmp_path: Path) -> None:
    line = json.dumps({"question": "Bao nhiêu?", "answer": "35.000 x 2 = 70.000\n#### 70.000"})
    found = rows(tmp_path, [line], locale="vi")[0]
    assert (found["gold"], found["locale"], found["solution"]) == ("70000", "vi", "35.000 x 2 = 70.000")


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    lines = [json.dumps({**row, "key": "a"}) for row in GOOD]
    with pytest.raises(InputError, match=r"row 2 \(id a\): the id occurs twice"):
        rows(tmp_path, lines, columns={"id": "key"})


def test_a_malformed_row_can_be_dropped_by_name_with_its_reason(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD[0]), json.dumps({"question": "2?", "answer": "five"})]
    source = files_source(tmp_path, lines, drop={"train-1": "no gold", "test-1": "no gold"})
    splits, record = load(source, "toy")
    assert [row["id"] for row in splits["train"]] == ["train-0"]
    assert record["drop"]["train-1"] == "no gold"
    assert record["sets"]["test"]["dropped"] == 1


def test_rows_that_a_column_marks_are_left_out_and_counted(tmp_path: Path) -> None:
    text = '{"question": "1?", "gold": "1"}\n{"question": "which?", "gold": "None"}\n'
    pin = pinned(tmp_path, "set.jsonl", text)
    splits, record = load(with_set(tmp_path, pin, columns={"gold": "gold"}, drop_where={"gold": "None"}), "toy")
    assert [row["id"] for row in splits["other"]] == ["other-0"]
    assert record["sets"]["other"]["dropped"] == 1
    with pytest.raises(InputError, match="there is no column 'kind', which 'drop_where' names"):
        load(with_set(tmp_path, pin, columns={"gold": "gold"}, drop_where={"kind": "x"}), "toy")


def test_dropping_an_id_that_does_not_occur_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'drop' names ids that do not occur: train-9"):
        rows(tmp_path, [json.dumps(GOOD[0])], drop={"train-9": "typing error"})


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    source = files_source(tmp_path, [json.dumps(GOOD[0])])
    (tmp_path / "train.jsonl").write_text(json.dumps(GOOD[1]) + "\n")
    with pytest.raises(InputError, match="not the pinned file"):
        load(source, "toy")


def test_the_hub_route_and_the_local_route_give_identical_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub loader reads a folder by the same call as a Hub id; the revision is what it ignores for a folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "toy"
    data.mkdir()
    local = load(files_source(data, list(map(json.dumps, GOOD))), "toy")[0]
    (data / "test.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    hub = {
        "kind": "hub", "id": "somebody/toy", "revision": "0" * 40, "splits": {"train": "train", "test": "test"},
        "licence": "MIT",
    }  # fmt: skip
    suite = SOURCE_FILE.validate_python(hub).model_copy(update={"id": str(data)})  # the library reads folders as well
    assert load(suite, "toy")[0] == local


@pytest.mark.parametrize("revision", [{}, {"revision": None}, {"revision": "main"}])
def test_a_hub_set_without_its_commit_says_where_to_find_one(tmp_path: Path, revision: dict[str, object]) -> None:
    symbolic = {"kind": "hub", "id": "apple/GSM-Symbolic", "splits": {"gsm-symbolic": "test"}, "licence": "MIT"}
    with pytest.raises(InputError, match=r"evaluation.0.revision: expected the commit .* Files and versions, His"):
        files_source(tmp_path, [json.dumps(GOOD[0])], evaluation=[symbolic | revision])


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"columns": {"answer": "a", "gold": "b"}}, "names both 'answer' .* and 'gold'"),
        ({"columns": {"solution": "a"}}, "names a 'solution' without 'gold'"),
        ({"validation": {"rows": 2, "seed": 1}}, "holds out 2 rows of 2 different training questions"),
        ({"validations": {}}, "unknown key 'validations'; did you mean 'validation'"),
        ({"locale": "de"}, "locale"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(tmp_path: Path, extra: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rows(tmp_path, list(map(json.dumps, GOOD)), **extra)


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    pin = pinned(tmp_path, "set.jsonl", json.dumps(GOOD[0]))
    evaluation = {"kind": "files", "splits": {"test": pin}, "licence": "MIT"}
    with pytest.raises(InputError, match="two splits are named 'test'"):
        files_source(tmp_path, [json.dumps(GOOD[0])], evaluation=[evaluation])


def test_validation_rows_are_drawn_from_the_training_rows_disjoint_repeatable_and_recorded(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"What is {n // 2} + 1?", "answer": f"#### {n // 2 + 1}"}) for n in range(8)]
    lines += [json.dumps({"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"}) for n in range(10, 30)]
    plain, _ = load(files_source(tmp_path, lines, lines[8:]), "toy")
    (first, record), (again, _), (other, _) = (
        load(files_source(tmp_path, lines, lines[8:], validation={"rows": 10, "seed": seed}), "toy")
        for seed in (1, 1, 2)
    )
    assert first == again and first["validation"] != other["validation"]
    assert len(first["validation"]) == 10 and record["rows"]["train"] == 18
    assert record["sets"]["validation"]["held_out"] == {"rows": 10, "seed": 1}
    both = first["train"] + first["validation"]
    assert sorted(both, key=lambda row: int(row["id"][6:])) == plain["train"]
    # A question that occurs twice is never split between the two.
    assert not {row["question"] for row in first["train"]} & {row["question"] for row in first["validation"]}


def test_the_generators_validation_problems_are_additional(tmp_path: Path) -> None:
    def generated(**splits: int) -> dict[str, list[dict[str, Any]]]:
        source = {"kind": "generator", "seed": 7, "licence": "Apache-2.0", "splits": splits}
        return load(SOURCE_FILE.validate_python(source), "generated")[0]

    plain, more = generated(train=200, test=50), generated(train=200, validation=40, test=50)
    assert more["train"] == plain["train"] and more["test"] == plain["test"]
    assert len({row["question"] for row in more["train"] + more["validation"]}) == 240


def test_the_default_data_set_keeps_its_training_and_test_rows() -> None:
    """Questions, answers and golds as they were when the documented figures were measured."""
    splits, _ = load(read_any(DATASETS / "generated.yaml")[1], "generated")
    kept = [[row[key] for key in ("id", "question", "answer", "gold")] for row in splits["train"] + splits["test"]]
    assert len(kept) == 2500
    assert hashlib.sha256(json.dumps(kept).encode()).hexdigest() == DEFAULT_ROWS


def test_the_harder_generator_is_chosen_by_name_and_shares_no_question_between_splits() -> None:
    suite = read_any(DATASETS / "generated-harder.yaml")[1]
    splits, record = load(suite, "generated-harder")
    assert record["rows"] == {"train": 4000, "validation": 200, "test": 1000}
    questions = [row["question"] for rows in splits.values() for row in rows]
    assert len(set(questions)) == 5200
    assert any("%" in question for question in questions)
    assert all(1 <= int(row["gold"]) <= 9999 and row["solution"] for row in splits["test"])
    with pytest.raises(InputError, match="problems: input should be 'basic', 'harder' or 'mixed', found 'hardest'"):
        validated(SOURCE_FILE, suite.model_dump() | {"problems": "hardest"}, "x.yaml")


def test_gsm8k_is_read_in_full(gsm8k_folder: Path) -> None:
    splits, record = load(read_any(DATASETS / "gsm8k.yaml")[1], "gsm8k")
    assert record["rows"] == {"train": 7473, "test": 1319}
    assert sum("," in row["answer"].split("####")[1] for row in splits["train"]) == 79
    assert sum(row["gold"].startswith("-") for row in splits["train"]) == 3
    assert not any("," in row["gold"] for row in splits["train"])
    for row in splits["train"] + splits["test"]:
        assert row["solution"] and "<<" not in row["solution"] and "####" not in row["solution"]


@pytest.fixture
def evaluation_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """SVAMP, MGSM, PolyMath and a slice of vi_gsm8k, where the source files look for them."""
    folder = folder_from("SHARED_DATA_DIR")
    monkeypatch.setenv("EVALUATION_DIR", str(folder))
    return folder


def test_the_suite_reads_real_svamp_mgsm_and_polymath_with_their_licences(
    gsm8k_folder: Path, evaluation_folder: Path
) -> None:
    splits, record = load(read_any(DATASETS / "gsm8k-suite.yaml")[1], "gsm8k-suite")
    assert record["rows"] == {
        "train": 6973, "validation": 500, "test": 1319, "svamp": 1000, "mgsm-en": 250, "polymath-en": 125,
    }  # fmt: skip
    assert {name: facts["licence"]["id"] for name, facts in record["sets"].items()} == {
        "validation": "mit", "test": "mit", "svamp": "mit", "mgsm-en": "cc-by-4.0", "polymath-en": "mit",
    }  # fmt: skip
    assert splits["svamp"][0]["question"].startswith("Each pack of dvds costs 76 dollars. If there is a discount")
    assert splits["svamp"][0]["question"].endswith("How much do you have to pay to buy each pack?")
    assert all(row["gold"].isdigit() for row in splits["svamp"])
    golds = dict(zip((row["question"] for row in splits["test"]), (row["gold"] for row in splits["test"]), strict=True))
    assert {row["gold"] for row in splits["mgsm-en"]} >= {"2125", "114200", "276000", "5600"}
    for name in ("mgsm-en", "polymath-en"):
        agree = [row["gold"] == golds[row["question"]] for row in splits[name] if row["question"] in golds]
        assert all(agree) and len(agree) > 100


def test_a_set_that_claims_to_repeat_another_is_checked_row_by_row(gsm8k_folder: Path, evaluation_folder: Path) -> None:
    """All 250 of MGSM-en are GSM8K test rows (or loading the suite would fail); SVAMP's are not."""
    suite = read_any(DATASETS / "gsm8k-suite.yaml")[1]
    claims = {name: source.contains for source in suite.evaluation for name in source.splits}
    assert claims == {"svamp": None, "mgsm-en": "test", "polymath-en": "test"}
    suite.evaluation[0].contains = "test"
    with pytest.raises(InputError, match=r"'svamp' contains rows of 'test' only, but 1000 are not there \(chal-1 fir"):
        load(suite, "gsm8k-suite")


def test_the_languages_of_mgsm_and_polymath_agree_on_the_golds(gsm8k_folder: Path, evaluation_folder: Path) -> None:
    splits, _ = load(read_any(DATASETS / "gsm8k-languages.yaml")[1], "gsm8k-languages")
    first = [row["gold"] for row in splits["test"][:125]]
    for name in ("polymath-vi", "polymath-zh"):
        assert [row["gold"] for row in splits[name]] == first
    assert {row["locale"] for row in splits["polymath-vi"]} == {"vi"}
    mgsm = {tuple(row["gold"] for row in rows) for name, rows in splits.items() if name.startswith("mgsm")}
    assert len(mgsm) == 1


def test_vi_gsm8k_is_read_with_its_explanations(
    evaluation_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source file's own columns, on a slice of the real rows in place of the Hub's repository."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    suite = read_any(DATASETS / "vi_gsm8k.yaml")[1]
    lines = (evaluation_folder / "vi_gsm8k_slice/joined_train_0_199.jsonl").read_text(encoding="utf-8").splitlines()
    repository = tmp_path / "vi_gsm8k"
    repository.mkdir()
    for split, part in (("train", lines[:150]), ("test", lines[150:])):
        (repository / f"{split}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
    local = suite.model_copy(update={"id": str(repository), "validation": None})
    splits, record = load(local, "vi_gsm8k")
    assert record["rows"] == {"train": 150, "test": 50, "polymath-vi": 125}
    row = splits["train"][0]
    assert row["solution"].startswith("Natalia đã bán 24 kẹp") and row["gold"] == "72" and row["locale"] == "vi"
    assert all(row["solution"] for row in splits["train"])
    assert record["licence"]["id"] == record["sets"]["polymath-vi"]["licence"]["id"] == "mit"
    assert "GSM8K's test problems 0 to 124" in record["sets"]["polymath-vi"]["note"]


def test_every_source_file_is_valid_and_lists_its_evaluation_sets() -> None:
    sources = {path.stem: read_any(path) for path in DATASETS.glob("*.yaml")}
    sets = {name: evaluation_sets(source) for name, (kind, source) in sources.items() if kind == KINDS[None]}
    assert sets["generated"] == ["validation", "test"]
    assert sets["gsm8k-hub-suite"] == ["test", "validation", "gsm-plus", "asdiv"]
    assert sets["vi_gsm8k"] == ["test", "validation", "polymath-vi"]


@pytest.mark.parametrize(("variable", "suite"), [("GSM8K_DIR", "gsm8k"), ("EVALUATION_DIR", "gsm8k-suite")])
def test_an_unset_folder_variable_is_named(
    variable: str, suite: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if variable != "GSM8K_DIR":
        request.getfixturevalue("gsm8k_folder")
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match=f"set the environment variable {variable}"):
        load(read_any(DATASETS / f"{suite}.yaml")[1], suite)


def test_annotations_and_the_gold_line_are_no_part_of_a_solution() -> None:
    assert plain_solution("48/2 = <<48/2=24>>24\n48+24 = <<48+24=72>>72\n#### 72") == "48/2 = 24\n48+24 = 72"
    assert plain_solution("#### 72") is None
