"""PPO (Schulman et al., 2017) on completions, as a trainer of Transformers'.

A rollout is one completion to each of `batch_size` prompts, scored by rewards and by its distance to the reference. It
is learnt from `ppo_epochs` times, in batches of the optimiser's steps. Checkpoints, schedules, the clipping of
gradients and logging are Transformers' own.

Differences from TRL 0.11's: the value head begins at 0; dropout is off, so that the ratio to the old policy is 1 until
the policy moves; the loss of a step is the mean over all of its tokens, into however many batches they are cut; nothing
outside a completion is whitened.
"""

import copy
import inspect
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase, Trainer
from trl.trainer.utils import disable_dropout_in_model, selective_log_softmax_and_entropy, use_adapter

from grpo_cot.common.files import Row
from grpo_cot.models.generation import completion, generation_configuration
from grpo_cot.models.sampling_layers import in_few_operations
from grpo_cot.models.turns import end_tokens
from grpo_cot.recipes.ppo import PpoConfig
from grpo_cot.training.ppo import mathematics
from grpo_cot.training.ppo.mathematics import masked_mean
from grpo_cot.training.ppo.rollouts import Completions, Rollout, RolloutSampler, Tensors, completion_mask

VALUE_HEAD = "value_head"  # of the model, while it is trained
REFERENCE = "ref"  # the adapter's copy, as TRL's trainers name theirs
CRITIC = "critic.safetensors"  # the value head and the KL's coefficient
# The scores of rows, given their completions as texts and as token ids; and figures of them to log.
Judge = Callable[[Sequence[Row], Sequence[str], Sequence[Sequence[int]]], tuple[Sequence[float], dict[str, float]]]


class PpoTrainer(Trainer):  # type: ignore[misc]  # Transformers is not followed by mypy here
    """Trains a causal model, all of its weights or an adapter, and a value head on its last hidden state.

    The model has the value head (`VALUE_HEAD`) until its training ends.
    """

    def __init__(
        self, model: Any, args: PpoConfig, train_dataset: Any, processing_class: PreTrainedTokenizerBase, judge: Judge,
        *, fresh: bool,
    ) -> None:  # fmt: skip
        """Give the model a value head, and keep a copy of what is trained as the reference where that is needed.

        `train_dataset` has a column `prompt_ids` of token ids; `judge` gets its rows. `fresh`: the model's adapter is
        new, so that the reference is the model without it.
        """
        reference = None
        if args.init_kl_coef and not isinstance(model, PeftModel):
            reference = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        elif args.init_kl_coef and not fresh:
            _copy_adapter(model)
        disable_dropout_in_model(model)
        if args.gradient_checkpointing and isinstance(model, PeftModel):
            model.enable_input_require_grads()
        head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1, device=model.device)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        model.add_module(VALUE_HEAD, head)
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, processing_class=processing_class, data_collator=list
        )
        self._reference = reference and self.accelerator.prepare_model(reference, evaluation_mode=True)
        self._judge = judge
        self._coefficient = args.init_kl_coef
        self._waiting: Iterator[Tensors] = iter(())
        self._metrics: dict[str, list[float]] = defaultdict(list)
        sampling = {"do_sample": True, "max_new_tokens": args.max_completion_length, "temperature": args.temperature}
        sampling |= args.generation_kwargs or {}
        self.generation_config = generation_configuration(model, processing_class, sampling)
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self._accepted = inspect.signature(type(base).forward).parameters.keys()

    def train(self, *arguments: Any, **settings: Any) -> Any:
        """Train; afterwards the model is without the value head, which `save_critic` still saves."""
        outcome = super().train(*arguments, **settings)
        self._critic = self._critic_state()
        delattr(self.model, VALUE_HEAD)
        return outcome

    def save_critic(self, folder: Path) -> None:
        """Write the value head and the KL's coefficient as training left them."""
        save_file(self._critic, folder / CRITIC)

    def get_train_dataloader(self) -> Any:
        """Batches of the rows of one rollout, each as often as batches are made of it."""
        return self._get_dataloader(
            self.train_dataset, "Training", self.args.batch_size, self._get_train_sampler, is_training=True
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> RolloutSampler:
        times = self.args.rollout_steps * self.args.gradient_accumulation_steps
        return RolloutSampler(len(self.train_dataset), self.args.batch_size, times, self.args.seed)

    def training_step(self, model: Any, inputs: list[Row], num_items_in_batch: Any = None) -> torch.Tensor:
        """The gradients of a rollout's next batch, and its loss; where none is left, there is a rollout first."""
        batch = next(self._waiting, None)
        if batch is None:
            self._waiting = self._rollout(inputs).batches(
                self.args.step_size, self.args.per_device_train_batch_size, self.args.ppo_epochs
            )
            batch = next(self._waiting)
        loss: torch.Tensor = super().training_step(model, batch, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: Tensors, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The clipped losses of policy and values on one batch (see `Rollout.batches`), as a part of its step's."""
        args, mask = self.args, inputs["completion_mask"]
        logits, values = self._logits_and_values(model, inputs)
        new, entropy = self._log_probabilities(logits, inputs)
        policy, clipped = mathematics.policy_losses(
            new, inputs["old_log_probabilities"], inputs["advantages"], args.cliprange
        )
        value, value_clipped = mathematics.value_losses(
            values, inputs["old_values"], inputs["returns"], args.cliprange_value
        )
        ratio = masked_mean((new.detach() - inputs["old_log_probabilities"]).exp(), mask)
        far = (ratio > args.ratio_threshold).item()
        for name, figure in {
            "policy_loss": policy, "value_loss": value, "clip_fraction": clipped,
            "value_clip_fraction": value_clipped, "entropy": entropy,
        }.items():  # fmt: skip
            self._metrics[name].append(masked_mean(figure.detach(), mask).item())
        self._metrics["ratio"].append(ratio.item())
        self._metrics["skipped"].append(float(far))
        loss: torch.Tensor = ((policy + args.vf_coef * value) * mask).sum() / inputs["tokens"]
        if far:  # the ratio may be infinite, and its loss times 0 no number
            loss = 0 * (new.sum() + values.sum())
        # What Transformers divides by: `tokens` are those of all batches of the step already.
        loss = loss * self.current_gradient_accumulation_steps
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the means of what was measured since the last time."""
        measured = {name: statistics.fmean(values) for name, values in self._metrics.items()}
        self._metrics.clear()
        super().log({**logs, **measured}, start_time)

    @torch.no_grad()
    def _rollout(self, rows: Sequence[Row]) -> Rollout:
        """Completions to the prompts of these rows, scored and compared with the reference."""
        args = self.args
        self.model.eval()
        written = self._written(rows)
        mask = written.mask
        scores = self._scores(rows, written)
        parts = torch.split(torch.arange(len(rows)), args.per_device_train_batch_size)
        old, values, kl = (torch.zeros(mask.shape, device=mask.device) for _ in range(3))
        for part in parts:
            batch = written.part(part)
            length = batch["completion_ids"].shape[1]
            old[part, :length], values[part, :length], kl[part, :length] = self._scored(batch)
        rewards = mathematics.token_rewards(scores, kl, mask, self._coefficient)
        if args.whiten_rewards:
            rewards = mathematics.whitened(rewards, mask, keep_mean=True)
        values = values * mask
        advantages, returns = mathematics.advantages_and_returns(rewards, values, mask, gamma=args.gamma, lam=args.lam)
        self._metrics["advantage_std"].append(mathematics.masked_variance(advantages, mask).sqrt().item())
        explained = mathematics.explained_variance(values, returns, mask)
        if explained.isfinite():
            self._metrics["explained_variance"].append(explained.item())
        self._control_kl((kl * mask).sum(dim=1).mean().item(), len(rows))
        return Rollout(written, old, values, mathematics.whitened(advantages, mask), returns)

    def _written(self, rows: Sequence[Row]) -> Completions:
        """What the policy writes to the prompts of these rows."""
        prompts = self.processing_class.pad(
            {"input_ids": [row["prompt_ids"] for row in rows]}, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        with in_few_operations(self.model):
            whole = self.model.generate(**prompts, generation_config=self.generation_config)
        completions = whole[:, prompts["input_ids"].shape[1] :]
        mask = completion_mask(completions, end_tokens(self.generation_config.eos_token_id))
        return Completions(prompts["input_ids"], prompts["attention_mask"], completions, mask)

    def _scores(self, rows: Sequence[Row], written: Completions) -> torch.Tensor:
        """The score of each completion, (rows,), and figures of both into the log."""
        lengths = written.mask.sum(dim=1).tolist()
        ends = end_tokens(self.generation_config.eos_token_id)
        tokens = [ids[:length] for ids, length in zip(written.completions.tolist(), lengths, strict=True)]
        texts = [completion(ids, self.processing_class, ends, [], len(ids)).text for ids in tokens]
        scores, figures = self._judge(rows, texts, tokens)
        paid = torch.tensor(scores, dtype=torch.float32, device=written.mask.device)
        figures |= {
            "reward": statistics.fmean(scores), "reward_std": paid.std(correction=0).item(),
            "completions/mean_length": statistics.fmean(lengths),
            "completions/clipped_ratio": statistics.fmean(ids[-1] not in ends for ids in tokens),
        }  # fmt: skip
        for name, figure in figures.items():
            self._metrics[name].append(figure)
        limit = self.args.score_clip
        return paid if limit is None else paid.clamp(-limit, limit)

    def _scored(self, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The log-probabilities of a batch's tokens, their values, and how far they are from the reference's."""
        logits, values = self._logits_and_values(self.model, batch)
        old = self._log_probabilities(logits, batch)[0]
        if not self.args.init_kl_coef:
            return old, values, torch.zeros_like(old)
        del logits
        with self._as_reference() as reference:
            expected = self._log_probabilities(self._logits(reference, batch), batch)[0]
        return old, values, mathematics.kl_estimate(old, expected, self.args.kl_penalty)

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The model that the KL is measured to: a copy, the adapter's copy, or the model without its adapter."""
        if self._reference is not None:
            yield self._reference
            return
        with use_adapter(self.model, REFERENCE if REFERENCE in self.model.peft_config else None):
            yield self.model

    def _logits(self, model: Any, batch: Tensors) -> torch.Tensor:
        """The logits of a batch's tokens, (rows, tokens, vocabulary)."""
        tokens = batch["completion_ids"].shape[1]
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        optional = {
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),  # padding stands before the prompts
            "logits_to_keep": tokens + 1,
        }
        outputs = model(
            input_ids=torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1), attention_mask=mask,
            use_cache=False, **{name: value for name, value in optional.items() if name in self._accepted},
        )  # fmt: skip
        logits: torch.Tensor = outputs.logits[:, -tokens - 1 : -1]
        return logits

    def _logits_and_values(self, model: Any, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of a batch's tokens, and their values (rows, tokens): both of the state before the token."""
        seen: list[torch.Tensor] = []
        # What the output layer reads is the last hidden state, of no more tokens than were asked for.
        hook = self.model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            logits = self._logits(model, batch)
        finally:
            hook.remove()
        head = getattr(self.model, VALUE_HEAD)
        hidden = seen[0][:, -logits.shape[1] - 1 : -1]
        return logits, head(hidden.to(head.weight.dtype)).squeeze(-1)

    def _log_probabilities(self, logits: torch.Tensor, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probabilities of a batch's tokens at the sampling temperature, and the entropies; in float32."""
        chosen, entropy = selective_log_softmax_and_entropy(
            logits.float(), batch["completion_ids"], entropy_requires_grad=False, temperature=self.args.temperature,
            row_mask=batch["completion_mask"],
        )  # fmt: skip
        return chosen, entropy

    def _control_kl(self, kl: float, completions: int) -> None:
        """Log the KL of a rollout's completions, and set its coefficient for the next."""
        args = self.args
        if not args.init_kl_coef:
            return
        self._metrics["kl"].append(kl)
        self._metrics["kl_coefficient"].append(self._coefficient)
        if args.adap_kl_ctrl:
            self._coefficient = mathematics.next_coefficient(
                self._coefficient, kl, completions, target=args.target, horizon=args.horizon
            )

    def _critic_state(self) -> Tensors:
        coefficient = torch.tensor(self._coefficient, dtype=torch.float64)
        return {**getattr(self.model, VALUE_HEAD).state_dict(), "kl_coefficient": coefficient}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        save_file(self._critic_state(), Path(output_dir or self.args.output_dir) / CRITIC)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = load_file(Path(resume_from_checkpoint) / CRITIC)
        self._coefficient = state.pop("kl_coefficient").item()
        getattr(self.model, VALUE_HEAD).load_state_dict(state)


def _copy_adapter(model: PeftModel) -> None:
    """Keep an adapter as it is now under a second name."""
    model.add_adapter(REFERENCE, model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if ".default." in name:
            model.get_parameter(name.replace(".default.", f".{REFERENCE}.")).data.copy_(parameter.data)
