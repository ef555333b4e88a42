"""Which sections of a recipe fit together. These rules need no library, and take milliseconds."""

import math

from grpo_cot.common.errors import InputError, naming
from grpo_cot.recipes.phases import GrpoPhase, LibrarySettings, PpoPhase
from grpo_cot.recipes.recipe import Recipe
from grpo_cot.rewards.registry import TRAINED

MOST_PROCESSES = 1024  # on one machine
MOST_ROWS = 2**20  # of a batch
MOST_WEIGHT = 10**6  # of a reward: in float32 the squares of sums of it are still numbers
# What schedules leave out.
UNREAD = {
    "constant": ("warmup_steps", "lr_scheduler_kwargs"),
    "constant_with_warmup": ("lr_scheduler_kwargs",),
    "reduce_lr_on_plateau": ("warmup_steps",),
    "greedy": ("warmup_steps",),
}


def check_training_sections(recipe: Recipe, where: object) -> None:
    """Check that the sections that training reads fit together.

    Raises:
        InputError: they do not; the first problem is named.
    """
    with naming(where):
        _check_sections(recipe)


def check_selection(recipe: Recipe, where: object) -> None:
    """Check that no figure is reported of the split on which a checkpoint is chosen.

    Raises:
        InputError: the recipe evaluates on it.
    """
    trained = {f"phases.{number}": phase.settings for number, phase in enumerate(recipe.phases, start=1)}
    trained |= {TRAINED: recipe.reward_model.settings} if recipe.reward_model else {}
    stopping = {
        f"phases.{number}"
        for number, phase in enumerate(recipe.phases, start=1)
        if isinstance(phase, GrpoPhase) and phase.validation and phase.validation.patience
    }
    reported = [name for name in recipe.evaluate.sets if recipe.prompt.questions_of(name) == "validation"]
    for name, settings in trained.items():
        if reported and (settings.get("load_best_model_at_end") or name in stopping):
            raise InputError(
                f"{where}: 'evaluate.sets' reports {reported[0]!r}, on which {name} chooses its checkpoint, or stops"
            )


def check_before(recipe: Recipe, where: object) -> None:
    """Check that the trained model is compared with what an earlier phase left.

    Raises:
        InputError: there is no such phase.
    """
    number, last = recipe.evaluate.before, len(recipe.phases)
    if number is not None and number >= last:
        expected = f"a phase before the last, 1 to {last - 1}, or null" if last > 1 else "null, for there is one phase"
        raise InputError(
            f"{where}: evaluate.before is {number}, but the trained model is what phase {last} leaves; expected "
            f"{expected}"
        )


def check_batches(recipe: Recipe, where: object) -> None:
    """Check that no batch of the steps that answer questions is beyond all machines.

    Raises:
        InputError: one is.
    """
    sizes = {"evaluate.batch_size": recipe.evaluate.batch_size}
    for number, phase in enumerate(recipe.phases, start=1):
        for name, section in phase.draws.items():
            sizes[f"phases.{number}.{name}.batch_size"] = section.batch_size
    for field, size in sizes.items():
        if size > MOST_ROWS:
            raise InputError(f"{where}: {field} is {size}, expected at most {MOST_ROWS}; lower it")


def check_merge(recipe: Recipe, where: object) -> None:
    """Check that what the step merge makes is what the step publish takes.

    Raises:
        InputError: the merged model would be on another base than the one that was trained on, and nobody accepts it.
    """
    if recipe.merge.base == "original" and not recipe.publish.accept_original_base:
        raise InputError(
            f"{where}: merge.base is 'original', another base than the one that is trained on, which is published only "
            "with publish.accept_original_base: true; set that, or merge.base to dequantized"
        )


def _check_sections(recipe: Recipe) -> None:
    if any(phase.method in ("grpo", "ppo") for phase in recipe.phases) and not any(recipe.rewards.values()):
        raise InputError("'rewards' pays nothing: give at least one reward a weight other than 0")
    for name, weight in recipe.rewards.items():
        if abs(weight) > MOST_WEIGHT:
            raise InputError(
                f"rewards.{name} is {weight:g}, expected at most {MOST_WEIGHT} either way: sums of more overflow; "
                "lower it"
            )
    processes = 1 if recipe.accelerate is None else recipe.accelerate.get("num_processes")
    if type(processes) is not int or (recipe.accelerate is not None and not 2 <= processes <= MOST_PROCESSES):
        raise InputError(
            f"accelerate.num_processes is {processes!r}, expected a whole number above 1, at most {MOST_PROCESSES} (or "
            "null for the section)"
        )
    if unknown := set(recipe.audit.allow) - recipe.rewards.keys():
        raise InputError(f"'audit.allow' names {sorted(unknown)[0]!r}, which 'rewards' does not list")
    _check_reward_model(recipe)
    if recipe.model.attn_implementation == "flash_attention_2" and recipe.model.dtype == "float32":
        raise InputError(
            "model.attn_implementation is 'flash_attention_2', which computes in 16 bits only, but model.dtype is "
            "'float32'; set it to bfloat16, or use 'sdpa'"
        )
    for number, phase in enumerate(recipe.phases, start=1):
        where = f"phases.{number}"
        _check_log(phase.settings, f"{where}.{phase.section}")
        _check_schedule(phase.settings, f"{where}.{phase.section}")
        if phase.lora is None and number == 1 and recipe.quantization:
            raise InputError(f"{where}.lora is null: a quantized base can only be trained through an adapter")
        if phase.lora is not None and number > 1:
            raise InputError(f"{where}.lora must be null: a later phase continues what the first one trains")
        if isinstance(phase, GrpoPhase):
            _check_batch(phase.grpo, processes, f"{where}.grpo")
            _check_unread(phase.grpo, f"{where}.grpo")
            _check_rollouts(recipe, phase, f"{where}.rollouts")
            _check_validation(recipe, phase, where)
            _check_pass_rates(phase, where)
            _check_dynamic_sampling(recipe, phase, where)
            _check_shown(phase, where)
        if isinstance(phase, PpoPhase):
            _check_ppo(recipe, phase, where)
        if phase.own_samples and recipe.accelerate is not None:
            raise InputError(f"{where} draws samples from one copy of the model: 'accelerate' must be null")
    if len({phase.architecture for phase in recipe.phases}) > 1:
        raise InputError("'phases' mixes seq2seq with other methods, which train another kind of model")


def _check_reward_model(recipe: Recipe) -> None:
    """Refuse a reward model that is not named or not there, and what its trainer would leave out."""
    section, named = recipe.reward_model, TRAINED in recipe.rewards
    if section is None and named:
        raise InputError(f"'rewards' names {TRAINED}, but the section {TRAINED} is null; give it, or take the name out")
    if section is not None and not named:
        raise InputError(
            f"the section {TRAINED} is given, but 'rewards' does not name {TRAINED}; name it there, with the weight 0 "
            "where it is to be measured only, or set the section to null"
        )
    if section is None:
        return
    _check_log(section.training, f"{TRAINED}.training")
    _check_schedule(section.training, f"{TRAINED}.training")
    if recipe.accelerate is not None:
        raise InputError(f"{TRAINED} is trained, and judges, in one process: 'accelerate' must be null")
    if recipe.backend == "unsloth":
        raise InputError(
            f"{TRAINED} is trained by Transformers' own trainer, which Unsloth replaces: set 'backend' to transformers"
        )


def _check_log(settings: LibrarySettings, where: str) -> None:
    """Refuse a training of which no loss would be logged, so that nothing could be said of it, and checkpoints between
    two entries of the log: a trainer forgets at a kill what it has summed up since the last entry."""
    steps, last = settings.get("logging_steps"), settings.get("max_steps")
    if settings.get("logging_strategy") == "no":
        raise InputError(f"{where}.logging_strategy is 'no': no curve would be left; expected 'steps' or 'epoch'")
    if not isinstance(steps, int) or not isinstance(last, int) or settings.get("logging_strategy", "steps") != "steps":
        return
    if 0 < last < steps:
        raise InputError(
            f"{where}.logging_steps is {steps}, more than the {last} of max_steps: no loss would be logged"
        )
    saves = settings.get("save_steps")
    if settings.get("save_strategy", "steps") == "steps" and isinstance(saves, int) and steps > 0 and saves % steps:
        raise InputError(
            f"{where}.save_steps is {saves}, no multiple of the {steps} logging_steps: a resumed run would not repeat "
            "an uninterrupted one"
        )


def _check_schedule(settings: LibrarySettings, where: str) -> None:
    """Refuse settings that the schedule leaves out, and a warm-up that does not end."""
    schedule = str(settings.get("lr_scheduler_type", "linear"))
    for name in UNREAD.get(schedule, ()):
        if value := settings.get(name):
            raise InputError(
                f"{where}.{name} is {value!r}, which the schedule {schedule!r} (lr_scheduler_type) does not read; take "
                "it out, or take a schedule that reads it"
            )
    warmup, last = settings.get("warmup_steps"), settings.get("max_steps")
    if isinstance(warmup, int | float) and isinstance(last, int) and 0 < last < warmup:
        raise InputError(
            f"{where}.warmup_steps is {warmup}, more than the {last} of max_steps: the learning rate would never be "
            "reached; lower it (below 1 it is a share of all steps)"
        )


def _check_unread(grpo: LibrarySettings, where: str) -> None:
    """Refuse settings of an engine or of a loss that the phase does not use."""
    loss = grpo.get("loss_type")
    for name in sorted(grpo):
        if name.startswith("vllm_") and not grpo.get("use_vllm"):
            raise InputError(f"{where}.{name} is given, but use_vllm is not true; take it out, or set use_vllm")
        prefix = name.partition("_")[0]
        if prefix in ("sapo", "vespo") and loss != prefix:
            raise InputError(f"{where}.{name} is of the loss {prefix!r}, but loss_type is {loss!r}; take it out")


def _check_batch(grpo: LibrarySettings, processes: int, where: str) -> None:
    """Refuse a batch that the groups do not divide, and checkpoints in the middle of a generation's reuse."""
    accumulation = grpo.get("gradient_accumulation_steps", 1)
    values = {
        "per_device_train_batch_size": grpo.get("per_device_train_batch_size"),
        "num_generations": grpo.get("num_generations"),
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": grpo.get("steps_per_generation", accumulation),
        "num_iterations": grpo.get("num_iterations", 1),
        "save_steps": grpo.get("save_steps", 500),
    }
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{where}.{name} is {value!r}, expected a whole number above 0")
    completions = values["per_device_train_batch_size"] * processes * values["steps_per_generation"]
    if completions % values["num_generations"]:
        factor = "accelerate.num_processes x " if processes > 1 else ""
        raise InputError(
            f"{where}.num_generations is {values['num_generations']}, which does not divide the {completions} "
            f"completions of a step (per_device_train_batch_size x {factor}gradient_accumulation_steps)"
        )
    batches = values["num_iterations"] * values["steps_per_generation"]
    if batches < accumulation:
        raise InputError(f"{where}.steps_per_generation is below gradient_accumulation_steps: no step would be whole")
    reuse = math.lcm(batches, accumulation) // accumulation
    if grpo.get("save_strategy") != "no" and values["save_steps"] % reuse:
        raise InputError(
            f"{where}.save_steps is {values['save_steps']}, no multiple of the {reuse} steps that share one "
            "generation: a resumed run would not repeat an uninterrupted one"
        )


def _check_validation(recipe: Recipe, phase: GrpoPhase, where: str) -> None:
    """Refuse evaluations of nothing, at no step, of sharded weights, a choice among steps without a checkpoint, and
    schedules that read a loss which is not measured."""
    settings, section = phase.grpo, phase.validation
    if (schedule := settings.get("lr_scheduler_type")) in ("reduce_lr_on_plateau", "greedy"):
        raise InputError(
            f"{where}.grpo.lr_scheduler_type is {schedule!r}, which follows a loss on the validation split, and GRPO "
            "has an accuracy there; take another schedule"
        )
    evaluates = settings.get("eval_strategy", "no") != "no"
    if evaluates != (section is not None):
        state, remedy = ("null", "give problems and patience") if evaluates else ("given", "set it to null")
        given = settings.get("eval_strategy", "no")
        raise InputError(f"{where}.validation is {state}, but grpo.eval_strategy is {given!r}; {remedy}")
    for name in ("load_best_model_at_end", "eval_on_start"):
        if settings.get(name) and not evaluates:
            raise InputError(f"{where}.grpo.{name} is true, but no step is evaluated; set eval_strategy")
    if not evaluates:
        return
    sharded = [name for name in ("fsdp_config", "deepspeed_config") if (recipe.accelerate or {}).get(name)]
    if sharded:
        raise InputError(
            f"{where}.validation is given, but 'accelerate' has {sharded[0]}: under FSDP and DeepSpeed no questions "
            "are answered while training; set it to null"
        )
    for name in ("eval_steps", "per_device_eval_batch_size"):
        if name not in settings:
            raise InputError(f"{where}.grpo: {name!r} is missing, which 'validation' needs")
    if not settings.get("load_best_model_at_end"):
        return
    if settings.get("metric_for_best_model") is None:
        raise InputError(
            f"{where}.grpo: 'metric_for_best_model' is missing, by which load_best_model_at_end chooses; expected "
            "'eval_strict_accuracy'"
        )
    saved, evaluated = settings.get("save_steps"), settings["eval_steps"]
    if settings.get("save_strategy", "steps") != "steps" or saved != evaluated:
        raise InputError(
            f"{where}.grpo.load_best_model_at_end is true: every evaluation needs its checkpoint; set save_strategy to "
            f"'steps' and save_steps to the {evaluated} of eval_steps"
        )


def _check_pass_rates(phase: GrpoPhase, where: str) -> None:
    """Refuse an empty band, and an order that the trainer would shuffle away."""
    section = phase.pass_rates
    if section is None:
        return
    if section.low > section.high:
        raise InputError(f"{where}.pass_rates: low is {section.low:g}, above the {section.high:g} of high; swap them")
    if section.order is not None and phase.grpo.get("shuffle_dataset", True):
        raise InputError(
            f"{where}.pass_rates.order is {section.order!r}, but the trainer shuffles; set grpo.shuffle_dataset to "
            "false, or order to null"
        )


def _check_dynamic_sampling(recipe: Recipe, phase: GrpoPhase, where: str) -> None:
    """Refuse dynamic sampling in several processes, by Unsloth, and where an advantage is not of its group alone."""
    if phase.dynamic_sampling is None:
        return
    settings, where = phase.grpo, f"{where}.dynamic_sampling"
    if recipe.accelerate is not None:
        raise InputError(f"{where} replaces groups in one process: 'accelerate' must be null; or set it to null")
    if recipe.backend == "unsloth":
        raise InputError(f"{where} is given, but the backend unsloth keeps its batches in another form; set it to null")
    if phase.pass_rates is not None and phase.pass_rates.order is not None:
        raise InputError(f"{where} asks prompts at random, which undoes pass_rates.order; set one of them to null")
    compared = {"scale_rewards": "batch", "multi_objective_aggregation": "normalize_then_sum"}
    for name, value in compared.items():
        if settings.get(name) == value:
            raise InputError(
                f"{where} is given, but grpo.{name} is {value!r}, by which an advantage depends on the other groups of "
                "its draw; change that, or set it to null"
            )


def _check_shown(phase: GrpoPhase, where: str) -> None:
    """Refuse tables of completions for no dashboard, and at steps that are not logged."""
    every, logged = phase.show_completions, phase.grpo.get("logging_steps")
    if every is None:
        return
    if phase.grpo.get("report_to", "none") in ("none", []):
        raise InputError(
            f"{where}.show_completions is {every}, but grpo.report_to names no dashboard; name one, or take it out"
        )
    if phase.grpo.get("logging_strategy", "steps") == "steps" and isinstance(logged, int) and every % logged:
        raise InputError(
            f"{where}.show_completions is {every}, no multiple of the {logged} of grpo.logging_steps, at which tables "
            "are sent"
        )


def _check_ppo(recipe: Recipe, phase: PpoPhase, where: str) -> None:
    """Refuse what PPO would leave out: several processes, and an adapter's dropout."""
    if recipe.accelerate is not None:
        raise InputError(f"{where} trains in one process: 'accelerate' must be null")
    if dropout := (phase.lora or {}).get("lora_dropout"):
        raise InputError(
            f"{where}.lora.lora_dropout is {dropout}, but PPO trains without dropout, so that a completion's chances "
            "change with the weights alone; set it to 0"
        )


def _check_rollouts(recipe: Recipe, phase: GrpoPhase, where: str) -> None:
    """Refuse a sync that would not give vLLM the trained model."""
    vllm = bool(phase.grpo.get("use_vllm"))
    if vllm != (phase.rollouts is not None):
        state, remedy = ("null", "give sync and log_probability_gap") if vllm else ("given", "set it to null")
        raise InputError(f"{where} is {state}, but grpo.use_vllm is {str(vllm).lower()}; {remedy}")
    if phase.rollouts is None:
        return
    sync, mode = phase.rollouts.sync, phase.grpo.get("vllm_mode")
    if sync == "merge" and recipe.quantization:
        raise InputError(
            f"{where}.sync is 'merge' on a quantized base: merging into 4 bits and back loses most of the adapter's "
            "effect, and moves the base; use 'adapter' (or 'shared' with the backend unsloth), or set quantization to "
            "null"
        )
    if (sync == "shared") != (recipe.backend == "unsloth"):
        other = "'shared'" if recipe.backend == "unsloth" else "'adapter' or 'merge'"
        raise InputError(f"{where}.sync is {sync!r}, but the backend is {recipe.backend}; expected {other}")
    if sync != "merge" and mode != "colocate":
        raise InputError(
            f"{where}.sync is {sync!r}, which needs vLLM in the trainer's own process: set grpo.vllm_mode to colocate, "
            "or sync to 'merge' on a base that is not quantized"
        )
    if sync != "merge" and recipe.phases[0].lora is None:
        raise InputError(f"{where}.sync is {sync!r}, but phases.1.lora is null: there is no adapter; expected 'merge'")
