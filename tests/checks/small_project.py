"""A checkout in miniature: one file of every kind that `make check` reads, all of them right."""

import copy
import hashlib
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from support import ROOT

from grpo_cot.common.files import file_hash, read_yaml

COMMIT = "a" * 40
HASH = "b" * 64
PARAMS = {
    "runs": {
        "one": {"recipe": "short", "dataset": "few", "base": "tiny", "image": "cpu", "seed": 1},
        "two": {"recipe": "short", "dataset": "few", "base": "tiny", "image": "cpu", "seed": 2},
        "written": {"recipe": "plain", "dataset": "files", "base": "drawn", "image": "cuda", "seed": 3},
    },
    "datasets": ["few", "files", "pairs", "feedback"],
    "bases": {"tiny": "cpu", "drawn": "cpu"},
    "comparisons": {"both": {"a": "one", "b": "two"}},
}
LOCAL = {  # rows of the data set `local`, and what its columns are called
    "train.jsonl": "".join(f'{{"question": "What is {n} + 1?", "answer": "#### {n + 1}"}}\n' for n in range(9)),
    "test.jsonl": '{"question": "What is 20 + 1?", "answer": "#### 21"}\n',
    "more.tsv": "7\tWhat is 30 + 1?\t31\n8\tWhat is 40 + 1?\t41\n",
    "pairs.jsonl": "".join(
        f'{{"id": {n}, "prompt": "{n} + 1?", "chosen": "{n + 1}", "rejected": "{n}", "good": 2, "bad": 1}}\n'
        for n in range(8)
    ),
    "texts.tsv": "".join(f"{n}\tThe room is number {n}.\t{n % 2}\n" for n in range(12)),
    "texts.jsonl": '{"key": 20, "sentence": "Too loud.", "mark": 0}\n',
    "pairs.csv": "id,prompt,chosen,rejected,good,bad\n20,20 + 1?,21,20,2,1.5\n",
}
HASHES = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in LOCAL.items()}
DATASETS: dict[str, Any] = {
    "local": {
        "kind": "files", "folder": "rows", "licence": "MIT", "drop": {"train-3": "too easy"},
        "splits": {name: {"path": f"{name}.jsonl", "sha256": HASHES[f"{name}.jsonl"]} for name in ("train", "test")},
        "evaluation": [
            {
                "kind": "files", "folder": "rows", "licence": "MIT", "drop_where": {"gold": "41"},
                "splits": {
                    "more": {"path": "more.tsv", "sha256": HASHES["more.tsv"], "fields": ["key", "ask", "gold"]}
                },
                "columns": {"id": "key", "question": "ask", "gold": "gold"},
            }
        ],
    },
    "few": {"kind": "generator", "problems": "basic", "seed": 7, "splits": {"train": 40, "test": 24}, "licence": "MIT"},
    "files": {
        "kind": "files",
        "folder_variable": "HERE",
        "splits": {
            "train": {"path": "train.jsonl", "sha256": HASH},
            "test": {"path": "test.tsv", "sha256": HASH, "fields": ["question", "answer"]},
        },
        "columns": {"question": ["question"], "answer": "answer", "id": None},
        "drop": {"train-3": "no answer"},
        "licence": "MIT",
        "locale": "en",
        "validation": {"rows": 5, "seed": 7},
        "evaluation": [
            {
                "kind": "hub", "id": "owner/rows", "configuration": "main", "revision": COMMIT,
                "splits": {"other": "test"}, "columns": {"gold": "answer"}, "drop_where": {"answer": "None"},
                "licence": "MIT", "contains": "test", "note": "Some of them.",
            }
        ],
    },
    "hub": {
        "kind": "hub", "id": "owner/rows", "revision": COMMIT, "splits": {"train": "train", "test": "test"},
        "licence": "MIT",
    },
    "pairs": {
        "rows": "preference", "kind": "files", "folder": "rows", "licence": "MIT",
        "splits": {
            name: {"path": f"pairs.{ending}", "sha256": HASHES[f"pairs.{ending}"]}
            for name, ending in (("train", "jsonl"), ("test", "csv"))
        },
        "columns": {
            "id": "id", "question": "prompt", "chosen": "chosen", "rejected": "rejected", "chosen_score": "good",
            "rejected_score": "bad",
        },
    },
    "far-pairs": {
        "rows": "preference", "kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "MIT",
        "splits": {"train": "train", "test": "test"}, "validation": {"rows": 5, "seed": 7}, "repeats": "drop",
        "columns": {"gold": "number"},
    },
    "slips": {
        "rows": "preference", "kind": "generator", "problems": "harder", "seed": 7, "splits": {"train": 40, "test": 24},
        "licence": "MIT",
    },
    "texts": {
        "rows": "text", "kind": "files", "folder": "rows", "licence": "MIT", "wanted": "bad", "words": [1, 3],
        "splits": {
            "train": {"path": "texts.tsv", "sha256": HASHES["texts.tsv"], "fields": ["key", "sentence", "mark"]},
            "test": {"path": "texts.jsonl", "sha256": HASHES["texts.jsonl"]},
        },
        "columns": {"id": "key", "text": "sentence", "label": "mark"}, "classes": {"0": "bad", "1": "good"},
        "judge": {"rows": 5, "seed": 7},
    },
    "far-texts": {
        "rows": "text", "kind": "hub", "id": "owner/rows", "revision": COMMIT, "licence": "MIT", "wanted": "bad",
        "splits": {"train": "train[:60%]", "judge": "train[60%:]", "test": "test"}, "repeats": "drop", "locale": "vi",
        "words": [2, 7], "columns": {"text": "sentence"}, "classes": {"0": "bad", "1": "good"},
    },
    "feedback": {
        "rows": "text", "kind": "generator", "texts": "feedback", "seed": 7, "licence": "MIT", "wanted": "negative",
        "words": [2, 4], "splits": {"train": 40, "judge": 30, "test": 24},
    },
}  # fmt: skip
CONFIG = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 2048}
SHAPE = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 1024, "vocab_size": 300}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def bases() -> dict[str, Any]:
    """The sources of a base of each kind; those with files here read the embedded base's."""
    pinned = {name: file_hash(ROOT / "assets/tiny/model" / name) for name in TOKENIZER}
    made = {"tokenizer": {"path": "assets/tiny/model"}, "config": CONFIG, "seed": 7, "licence": "MIT", "sha256": pinned}
    styles = {"schema_steps": 0.4, "schema_guess": 0.2, "steps": 0.2, "bare": 0.2}
    return {
        "tiny": read_yaml(ROOT / "sources/bases/tiny.yaml"),
        "drawn": {"kind": "scratch", **made},
        "trained": {
            "kind": "pretrained", **made,
            "pretraining": {
                "problems": "basic", "steps": 20, "batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 2,
                "adam_beta2": 0.98, "weight_decay": 0.01, "max_grad_norm": 1.0, "save_steps": 10, "system_prompt": 0.8,
                "earlier_exchange": 0.1, "styles": dict.fromkeys((1, 2, 3), styles),
                "styles_without_system_prompt": styles,
            },
        },
        "far": {
            "kind": "hub", "id": "owner/model", "revision": COMMIT, "licence": "MIT", "shape": SHAPE,
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "packed": {
            "kind": "gguf", "wheel": {"package": "a-model", "version": "1.0", "sha256": HASH}, "licence": "MIT",
            "file": {"path": "a_model/model.gguf", "sha256": HASH}, "tokens": {"eos": "</s>", "pad": "<pad>"},
            "shape": SHAPE,
        },
        "elsewhere": {
            "kind": "folder", "folder_variable": "HERE", "licence": "MIT", "shape": SHAPE,
            "sha256": {"config.json": HASH, "model.safetensors": HASH, "tokenizer.json": HASH},
        },
    }  # fmt: skip


def recipes() -> dict[str, Any]:
    """A recipe of two phases on a quantized base, and one of two phases that draw samples and train all weights."""
    short = read_yaml(ROOT / "tests/pipeline/short.yaml")
    plain = copy.deepcopy(short) | {"quantization": None}
    trained = {
        "max_steps": 12, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_length": 256,
        "learning_rate": 1e-4, "loss_type": "nll", "bf16": False, "logging_steps": 1, "save_steps": 4,
        "report_to": "none",
        "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "weight_decay": 0.0, "max_grad_norm": 1.0,
        "optim": "adamw_torch",
    }  # fmt: skip
    samples = {
        "problems": 8, "count": 4, "batch_size": 8,
        "sampling": {"do_sample": True, "temperature": 1.0, "max_new_tokens": 24},
    }  # fmt: skip
    plain["prompt"]["examples"] = [{"question": "1 + 1?", "completion": "2"}]
    plain["prompt"]["also_with"] = [0]
    plain["evaluate"]["sets"] = ["test", "test-with-0"]
    plain["phases"] = [
        {"method": "sft", "lora": None, "sft": trained},
        {"method": "dpo", "lora": None, "samples": samples, "dpo": trained | {"loss_type": ["sigmoid"], "beta": 0.1}},
    ]
    return {"short": short, "plain": plain}


def contents() -> dict[str, Any]:
    """Every file's content by its path."""
    return {
        "params.yaml": copy.deepcopy(PARAMS),
        **{f"experiments/{name}.yaml": content for name, content in recipes().items()},
        **{f"sources/datasets/{name}.yaml": copy.deepcopy(content) for name, content in DATASETS.items()},
        **{f"sources/bases/{name}.yaml": content for name, content in bases().items()},
    }


def write_project(root: Path) -> None:
    """Write all files, and the embedded base's beside them."""
    shutil.copytree(ROOT / "assets/tiny/model", root / "assets/tiny/model")
    (root / "rows").mkdir()
    for name, text in LOCAL.items():
        (root / "rows" / name).write_bytes(text.encode())
    for path, content in contents().items():
        write(root / path, content)


def write(path: Path, content: Any) -> None:
    """Write one YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    yaml = YAML(typ="safe", pure=True)
    yaml.representer.ignore_aliases = lambda data: True
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a content, whole sections included."""
    found = [place] if place else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*place, key))
    return found


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of a content with another value in a place, which need not have been there."""
    result = copy.deepcopy(content)
    inner = result
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return result
