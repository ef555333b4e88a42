"""Whether the recipe, the data set, the base and the image of a run fit together, as far as the checkout shows it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from grpo_cot.bases.sources import Base, Scorer, files_here
from grpo_cot.checks.amounts import check_experts, check_rows, check_tokens
from grpo_cot.common.errors import InputError, naming, nearest, validated
from grpo_cot.common.files import read_json, read_yaml
from grpo_cot.data.kinds import KINDS, Kind, read_any
from grpo_cot.library.lora import check_names
from grpo_cot.library.settings import check_greedy
from grpo_cot.library.values import MOST_TOKENS
from grpo_cot.params import Run
from grpo_cot.publishing.publish import check_repository
from grpo_cot.recipes.phases import DpoPhase, GrpoPhase, PpoPhase
from grpo_cot.recipes.recipe import Recipe, RewardModelSection, load_recipe
from grpo_cot.rewards.registry import reads_gold, reads_reasoning, reward_functions

OF_TEXTS = ("sft", "grpo", "ppo")  # the methods that learn from texts
# These keep the rows of a packed sequence apart without Flash Attention, too: by positions that begin anew. A test
# compares.
KEPT_APART = {
    "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3",
}  # fmt: skip


def check_run(root: Path, name: str, run: Run) -> None:
    """Check one line of params.yaml.

    Raises:
        InputError: what it names does not fit together; the first problem is named.
    """
    path = root / f"experiments/{run.recipe}.yaml"
    recipe = load_recipe(path)
    _check_sets(root, path, recipe, name, run)
    _check_image(recipe, name, run)
    _check_base(root, path, recipe, name, run)
    if recipe.reward_model is not None:
        with naming(f"{path} (the run {name!r})"):
            check_reading(root, run.base, recipe.reward_model)
    base = root / f"sources/bases/{run.base}.yaml"
    prefix = validated(Base, read_yaml(base), base).licence.name_prefix
    check_repository(recipe, prefix, f"{path} (the run {name!r}, from {run.base})")


def scorer_of(root: Path, base: str) -> Scorer:
    """The model of a base that a reward model starts from.

    Raises:
        InputError: its source file names none.
    """
    path = root / f"sources/bases/{base}.yaml"
    scorer = validated(Base, read_yaml(path), path).scorer
    if scorer is None:
        raise InputError(
            f"the section reward_model is given, but the base {base!r} brings no model for it to start from: add "
            f"`scorer:` to {path}"
        )
    return scorer


def check_reading(root: Path, base: str, section: RewardModelSection) -> None:
    """Check that a base's scorer has positions for the texts that the reward model reads, where its sizes are known.

    Raises:
        InputError: it has fewer, or there is no scorer.
    """
    from grpo_cot.memory.architecture import architecture
    from grpo_cot.memory.scorer import ScorerBlueprint
    from grpo_cot.models.classifier import positions

    scorer = scorer_of(root, base)
    made = (root / f"models/{base}/scorer/config.json").is_file()
    if not (scorer.config or scorer.shape or made or files_here(scorer, root)):
        return
    most = positions(ScorerBlueprint(architecture(root, base, scorer)[0]).model)
    if most is not None and section.max_length > most:
        raise InputError(
            f"reward_model.max_length is {section.max_length}, but the scorer of the base {base!r} has positions for "
            f"{most} tokens; lower it"
        )


def check_comparison(root: Path, where: Path, name: str, a: Run, b: Run) -> None:
    """Check that the two runs of a comparison answer the same problems.

    Raises:
        InputError: they do not.
    """
    first, second = (_asked(load_recipe(root / f"experiments/{run.recipe}.yaml")) for run in (a, b))
    if a.dataset != b.dataset:
        raise InputError(
            f"{where}: comparisons.{name}: its runs have the data sets {a.dataset!r} and {b.dataset!r}, but a "
            "comparison pairs answers to the same problems; give both the same"
        )
    for field in first:
        if first[field] != second[field]:
            raise InputError(
                f"{where}: comparisons.{name}: evaluate.{field} is {first[field]!r} in {a.recipe} and "
                f"{second[field]!r} in {b.recipe}, but a comparison pairs answers to the same problems; make them equal"
            )


def _asked(recipe: Recipe) -> dict[str, Any]:
    """The settings that say which problems are asked. A set with fewer worked examples may be in one run alone."""
    section = recipe.evaluate
    whole = [name for name in section.sets if recipe.prompt.questions_of(name) == name]
    return {"sets": whole, "sample": section.sample, "seed": None if section.sample is None else section.seed}


def _check_sets(root: Path, path: Path, recipe: Recipe, name: str, run: Run) -> None:
    kind, source = read_any(root / f"sources/datasets/{run.dataset}.yaml")
    splits = kind.evaluation_sets(source)
    check_rows_kind(path, recipe, run.dataset, kind, source)
    if source.kind == "generator":
        with naming(path):
            check_rows(recipe, source.splits["train"], run.dataset)
    trained = [*recipe.phases, *([recipe.reward_model] if recipe.reward_model else [])]
    judged = any(part.settings.get("eval_strategy", "no") != "no" for part in trained)
    if judged and "validation" not in splits:
        raise InputError(
            f"{path}: a phase or the reward model is judged on the split 'validation' while it trains, which the data "
            f"set {run.dataset!r} of the run {name!r} lacks; hold rows out in its source file"
        )
    check_sets(path, recipe, f"{run.dataset!r} of the run {name!r}", splits)


def check_sets(path: Path, recipe: Recipe, dataset: str, splits: Collection[str]) -> None:
    """Check that the evaluation sets that a recipe names are the data set's, or such sets with fewer worked examples.

    `dataset` names it in the sentence, `splits` are all its own sets.

    Raises:
        InputError: one is neither, or a set with fewer examples has the name of one of the data set's own.
    """
    from grpo_cot.prompts import variant_sets

    with naming(path):
        known = {*splits, *variant_sets(recipe.prompt, splits)}
    for chosen in recipe.evaluate.sets:
        if chosen in known:
            continue
        whole, marked, count = chosen.rpartition("-with-")
        if marked and whole in splits and (count.isdecimal() or count == "nothing"):
            raise InputError(
                f"{path}: evaluate.sets names {chosen!r}, but prompt.also_with is {recipe.prompt.also_with}; add "
                f"{count} to it, or take the set out"
            )
        raise InputError(
            f"{path}: evaluate.sets names {chosen!r}, which the data set {dataset} lacks; {nearest(chosen, known)}"
        )


def check_rows_kind(path: Path, recipe: Recipe, dataset: str, kind: Kind, source: Any) -> None:
    """Check that the rows of a data set have what the phases and the rewards of a recipe learn from.

    Raises:
        InputError: they have not; `path` is the recipe's file.
    """
    numbered = list(enumerate(recipe.phases, start=1))
    if kind == KINDS["text"]:
        with naming(path):
            _check_texts(recipe, dataset)
        return
    check_greedy(recipe.evaluate, path)
    if recipe.reward_model is not None:
        raise InputError(
            f"{path}: reward_model is a classifier of texts, but the rows of the data set {dataset!r} are no texts "
            "(rows: text); set reward_model to null, or name another data set"
        )
    elif kind == KINDS["preference"]:
        needing = [number for number, phase in numbered if phase.group_size or phase.own_samples]
        if needing and source.kind != "generator" and source.columns.gold is None:
            raise InputError(
                f"{path}: phases.{needing[0]} compares completions with final answers, which the data set {dataset!r} "
                "lacks; name their column as columns.gold in its source file, or take a phase that learns from its "
                "pairs"
            )
    elif learning := [number for number, phase in numbered if isinstance(phase, DpoPhase) and phase.samples is None]:
        raise InputError(
            f"{path}: phases.{learning[0]}.samples is null, so that the phase learns from the data set's pairs, but "
            f"the rows of the data set {dataset!r} are no pairs (rows: preference); draw samples, or name another data "
            "set"
        )


def _check_texts(recipe: Recipe, dataset: str) -> None:
    """Refuse what compares with final answers or answers with each other, and evaluation on what the judge learns."""
    for number, phase in enumerate(recipe.phases, start=1):
        compares = [name for name in ("validation", "pass_rates") if getattr(phase, name, None)]
        if compares:
            raise InputError(
                f"phases.{number}.{compares[0]} compares with final answers, but the rows of the data set {dataset!r} "
                "are texts (rows: text) without any; set it to null"
            )
        if phase.method not in OF_TEXTS:
            raise InputError(
                f"phases.{number}.method is {phase.method!r}, but the rows of the data set {dataset!r} are texts "
                f"(rows: text), from which only {', '.join(OF_TEXTS)} learn; take one of these, or another data set"
            )
    functions, _ = reward_functions(recipe.rewards)
    compared = [name for name, function in zip(recipe.rewards, functions, strict=True) if reads_gold(function)]
    if compared:
        raise InputError(
            f"rewards.{compared[0]} compares with final answers, but the rows of the data set {dataset!r} are texts "
            "(rows: text) without any; name a reward that reads none, such as reward_model, or another data set"
        )
    measuring = [name for name, function in zip(recipe.rewards, functions, strict=True) if reads_reasoning(function)]
    if measuring:
        raise InputError(
            f"rewards.{measuring[0]} reads reasoning_tokens, the length of what stands before an answer, but the rows "
            f"of the data set {dataset!r} are texts (rows: text) without any; let it read completion_ids"
        )
    judging = [chosen for chosen in recipe.evaluate.sets if recipe.prompt.questions_of(chosen) == "judge"]
    if judging:
        raise InputError(
            f"evaluate.sets names {judging[0]!r}, the texts of the data set {dataset!r} from which the independent "
            "judge learns what it judges by; take it out"
        )


def _check_image(recipe: Recipe, name: str, run: Run) -> None:
    """Refuse what needs a GPU in the image that never has one."""
    wanted = [("backend unsloth", recipe.backend == "unsloth")]
    wanted.append(
        ("model.attn_implementation flash_attention_2", recipe.model.attn_implementation == "flash_attention_2")
    )
    wanted.append(("evaluate.engine vllm", recipe.evaluate.engine == "vllm"))
    kind = (recipe.accelerate or {}).get("distributed_type", "MULTI_CPU")
    wanted.append((f"accelerate.distributed_type {kind}", kind != "MULTI_CPU"))
    for number, phase in enumerate(recipe.phases, start=1):
        keys = ("tf32", "fp16", "use_vllm")
        wanted += [(f"phases.{number}.{phase.section}.{key}", bool(phase.settings.get(key))) for key in keys]
    judge = recipe.reward_model.training if recipe.reward_model else {}
    wanted += [(f"reward_model.training.{key}", bool(judge.get(key))) for key in ("tf32", "fp16")]
    for setting, needed in wanted:
        if needed and run.image == "cpu":
            raise InputError(
                f"runs.{name}.image is 'cpu', but its recipe {run.recipe} needs a GPU ({setting}); set it to cuda, or "
                "choose another recipe"
            )


def _check_base(root: Path, path: Path, recipe: Recipe, name: str, run: Run) -> None:
    """Compare the recipe with the base's architecture and tokenizer, where the checkout has or describes them."""
    from grpo_cot.checks.backends.adapters import check_layers
    from grpo_cot.memory.architecture import architecture, check_kind
    from grpo_cot.memory.estimate import Blueprint

    where = root / f"sources/bases/{run.base}.yaml"
    source = validated(Base, read_yaml(where), where)
    here = files_here(source, root)
    tokenizer = root / source.tokenizer.path if source.tokenizer and source.tokenizer.path else here
    folders, prompt_length = [root / f"models/{run.base}", *([tokenizer] if tokenizer else [])], 0
    with naming(path):
        for folder in folders:
            if (folder / "tokenizer_config.json").is_file():
                prompt_length = _check_prompts(recipe, folder, source, run.base)
                break
        if not (source.config or source.shape or (root / f"models/{run.base}/config.json").is_file() or here):
            return
        configuration, untied = architecture(root, run.base)
        check_kind(configuration, recipe, run.base)
        try:
            model = Blueprint(configuration, untied, recipe.model, recipe.quantization, recipe.phases[0].lora)
        except InputError:
            raise
        except Exception as error:  # the libraries raise what they like
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"the libraries make no model of it on the base {run.base!r}: {reason}") from None
        check_names(
            recipe.phases[0].lora or {}, model.modules, model.vocabulary, f"phases.1.lora (the base {run.base!r})",
            model.model.targeted_module_names if model.lora else None,
        )  # fmt: skip
        if model.lora and not configuration.is_encoder_decoder:
            check_layers(recipe, model.model.get_base_model(), run.base)
        _check_skipped(recipe, model.modules, run.base)
        check_tokens(recipe, model.vocabulary, run.base)
        check_experts(recipe, configuration, run.base)
        _check_packing(recipe, configuration.get_text_config().model_type, run.base)
        stated = {**(source.config or {}), **(source.shape or {})}
        for folder in (root / f"models/{run.base}", *([here] if here else [])):
            if (folder / "config.json").is_file():
                stated = read_json(folder / "config.json")
                break
        if configuration.is_encoder_decoder:  # prompt and answer have places of their own, or relative ones
            return
        places = [stated.get(key) for key in ("max_position_embeddings", "n_positions")]
        if source.config:  # of which the class's own default is made
            places.append(getattr(configuration, "max_position_embeddings", None))
        positions = max((place for place in places if isinstance(place, int)), default=None)
        _check_positions(recipe, positions, run.base)
        limit = recipe.check.sampling["max_new_tokens"]
        if positions is not None and prompt_length + limit > positions:
            raise InputError(
                f"check.questions makes a prompt of {prompt_length} tokens, which with check.sampling.max_new_tokens "
                f"({limit}) is more than the {positions} positions of the base {run.base!r}; shorten it"
            )


def _check_skipped(recipe: Recipe, modules: Sequence[str], base: str) -> None:
    """Refuse names of modules to leave in 16 bits of which the base has none: its others would be quantized as well."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    for name in (recipe.quantization or {}).get("llm_int8_skip_modules") or []:
        if all(should_convert_module(module, [name]) for module in modules):
            raise InputError(
                f"quantization.llm_int8_skip_modules names {name!r}, and the base {base!r} has no such module; "
                f"{nearest(name, {module.rpartition('.')[2] for module in modules if not module[-1:].isdigit()})}"
            )


def _check_packing(recipe: Recipe, kind: str, base: str) -> None:
    """Refuse rows that share a sequence where one would read the other."""
    attention = recipe.model.attn_implementation
    if kind in KEPT_APART or attention == "flash_attention_2" or recipe.backend == "unsloth":  # which packs in its way
        return
    for number, phase in enumerate(recipe.phases, start=1):
        for name in ("packing", "eval_packing"):
            # Rows that are `wrapped` see each other by intention.
            if phase.settings.get(name) and phase.settings.get("packing_strategy") != "wrapped":
                raise InputError(
                    f"phases.{number}.{phase.section}.{name} is true, but it is not known that the base {base!r} "
                    f"({kind}) keeps the rows of one sequence apart where model.attn_implementation is {attention!r}: "
                    f"one may read the other; set {name} to false, or model.attn_implementation to flash_attention_2"
                )


def _check_prompts(recipe: Recipe, folder: Path, source: Base, base: str) -> int:
    """Map a question to a prompt, as the step prepare will; the tokens of the longest prompt of the step check."""
    from grpo_cot.models.tokenizers import load_tokenizer
    from grpo_cot.models.turns import use_turn_end
    from grpo_cot.prompts import map_rows

    tokenizer = load_tokenizer(folder)
    tokenizer.name_or_path = base  # whose source file is named where its template does not fit
    if source.chat_template is not None:
        tokenizer.chat_template = source.chat_template
        use_turn_end(tokenizer)
    row = {"id": "", "question": "How many?", "gold": "1", "locale": "en", "solution": None}
    prompts, _ = map_rows([row], tokenizer, recipe.prompt)
    if not prompts:
        raise InputError(
            f"prompt.max_prompt_length is {recipe.prompt.max_prompt_length}, and a prompt with two words in it is "
            "longer; raise it"
        )
    for number, phase in enumerate(recipe.phases, start=1):
        if (longest := phase.settings.get("max_length")) is not None and prompts[0]["tokens"] >= longest:
            raise InputError(
                f"phases.{number}.{phase.section}.max_length is {longest}, and a prompt with two words in it has "
                f"{prompts[0]['tokens']} tokens, so that no answer would be left; raise it"
            )
    boundless = recipe.prompt.model_copy(update={"max_prompt_length": MOST_TOKENS})
    prompts, _ = map_rows([{**row, "question": text} for text in recipe.check.questions], tokenizer, boundless)
    return max(prompt["tokens"] for prompt in prompts) if len(prompts) == len(recipe.check.questions) else MOST_TOKENS


def _check_positions(recipe: Recipe, positions: int | None, base: str) -> None:
    """Refuse sequences that are longer than the model has positions."""
    if positions is None:
        return
    prompt = recipe.prompt.max_prompt_length
    lengths = {
        "check.sampling.max_new_tokens": recipe.check.sampling["max_new_tokens"],
        "evaluate.sampling.max_new_tokens": recipe.evaluate.sampling["max_new_tokens"],
        "merge.new_tokens": recipe.merge.new_tokens,
    }
    if recipe.evaluate.samples:
        lengths["evaluate.samples.sampling.max_new_tokens"] = recipe.evaluate.samples.sampling["max_new_tokens"]
    for number, phase in enumerate(recipe.phases, start=1):
        if isinstance(phase, GrpoPhase | PpoPhase):
            lengths[f"phases.{number}.{phase.section}.max_completion_length"] = phase.settings["max_completion_length"]
        for name, section in phase.draws.items():
            lengths[f"phases.{number}.{name}.sampling.max_new_tokens"] = section.sampling["max_new_tokens"]
        if phase.settings.get("max_length", 0) > positions:
            raise InputError(
                f"phases.{number}.{phase.section}.max_length is {phase.settings['max_length']}, but the base {base!r} "
                f"has {positions} positions; lower it"
            )
    for field, tokens in lengths.items():
        if prompt + tokens > positions:
            raise InputError(
                f"{field} is {tokens}, which with prompt.max_prompt_length ({prompt}) makes {prompt + tokens} tokens, "
                f"but the base {base!r} has {positions} positions; lower one of them"
            )
