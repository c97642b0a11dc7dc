"""TRL's side: its trainers as they are, and `generate` alone."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import Any

import datasets
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    TrainerCallback,
)
from transformers.trainer_pt_utils import BatchRebalanceSampler

from benchmarks.cases import Entrant, Run
from benchmarks.ours import read_prompts
from benchmarks.sides import (
    REWARDS,
    Answers,
    Batch,
    OnStep,
    Place,
    Step,
    learning_rate,
)
from benchmarks.world import even_words
from strop.cli.show import keep_freed_memory
from strop.data.order import DataMixture, Part
from strop.rewards.find import BUILT_IN

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class TrlTrainer:
    """A trainer of TRL; its own loop does the steps, a callback tells of each."""

    def __init__(self, run: Run, entrant: Entrant, place: Place) -> None:
        self.spec, self.entrant, self.place = run, entrant, place
        self.answers: Answers = {}

    def load(self) -> None:
        import trl

        if self.entrant.allocator:
            keep_freed_memory()
        kind = self.spec.case.kind
        config, trainer, options = {
            "dpo": (trl.DPOConfig, trl.DPOTrainer, self._dpo),
            "sft": (trl.SFTConfig, _in_order(trl.SFTTrainer), self._sft),
            "kto": (trl.KTOConfig, trl.KTOTrainer, self._kto),
            "grpo": (trl.GRPOConfig, _watching(trl.GRPOTrainer), self._grpo),
        }[kind]
        rows = self.rows()
        args = config(**self._common(len(rows)), **options())
        more = self._rewards() if kind == "grpo" else {}
        if self.spec.lora:
            from peft import LoraConfig

            more["peft_config"] = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        self.trainer = trainer(
            model=AutoModelForCausalLM.from_pretrained(self.place.model, dtype=torch.float32),
            args=args,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(self.place.model),
            **more,
        )

    def rows(self) -> list[dict[str, Any]]:
        """The records in the order in which strop's steps draw them."""
        rows = [json.loads(line) for line in self.place.data.open()]
        batch = self.spec.case.batch
        mix = DataMixture([Part(replay=False, first=0, size=len(rows), share=1.0)], batch, 0)
        return [rows[i] for step in range(self.spec.steps) for i in mix.draw(step).own]

    def run(self, on_step: OnStep) -> None:
        self.trainer.add_callback(Telling(self.trainer, on_step))
        self.trainer.train()

    def _common(self, rows: int) -> dict[str, Any]:
        """The same precision, optimizer and length for both; nothing saved, shown or recomputed."""
        online = self.spec.case.kind == "grpo"
        forwards = self.entrant.accumulation
        sequences = self.spec.case.batch * (self.spec.case.group if online else 1)
        return {
            "output_dir": str(self.place.scratch),
            "per_device_train_batch_size": sequences // forwards,
            "gradient_accumulation_steps": forwards,
            "max_steps": self.spec.steps,
            "learning_rate": learning_rate(self.spec.case),
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "bf16": self.spec.bfloat16,
            "gradient_checkpointing": False,
            "use_cpu": not torch.cuda.is_available(),
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": torch.cuda.is_available(),
        }

    def _dpo(self) -> dict[str, Any]:
        return {
            "beta": 0.1,
            "max_length": None,
            "precompute_ref_log_probs": self.entrant.cached_reference,
            "train_sampling_strategy": "sequential",
        }

    def _kto(self) -> dict[str, Any]:
        return self._dpo()

    def _sft(self) -> dict[str, Any]:
        strategy = "batch_rebalance" if self.entrant.rebalanced else "sequential"
        return {
            "max_length": None,
            "packing": False,
            "completion_only_loss": True,
            "train_sampling_strategy": strategy,
        }

    def _grpo(self) -> dict[str, Any]:
        case = self.spec.case
        weights = [float(r.get("weight", 1.0)) for r in REWARDS[case.data]]
        return {
            "num_generations": case.group,
            "max_completion_length": case.answer[1],
            "loss_type": "grpo",
            "beta": 0.0,
            "shuffle_dataset": False,
            "reward_weights": weights,
            "use_transformers_continuous_batching": self.entrant.continuous,
        }

    def _rewards(self) -> dict[str, Any]:
        functions = {"even_words": even_words, **BUILT_IN}
        return {"reward_funcs": [functions[r["function"]] for r in REWARDS[self.spec.case.data]]}


class Telling(TrainerCallback):  # type: ignore[misc]
    """Reports every optimizer step after it is logged: with its loss and gradient norm."""

    def __init__(self, trainer: Any, on_step: OnStep) -> None:
        self.trainer, self.on_step = trainer, on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if "loss" not in logs:
            return
        batch = vars(self.trainer).get("first_batch")
        step = Step(
            loss=logs["loss"],
            grad_norm=logs["grad_norm"],
            tokens=int(logs.get("num_tokens", 0)),
            batch=batch if state.global_step == 1 else None,
            sampling=vars(self.trainer).pop("sampling", 0.0),
        )
        self.on_step(lambda: step)


def _in_order(trainer: Any) -> Any:
    """The same trainer; where it balances forwards by length, it does so within strop's batches
    (its own sampler would draw others)."""

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            sampler = super()._get_train_sampler(train_dataset)
            if isinstance(sampler, BatchRebalanceSampler):
                sampler.shuffle = False
            return sampler

    return InOrder


def _watching(trainer: Any) -> Any:
    """The same trainer, which remembers its first batch of samples and their rewards."""

    class Watching(trainer):  # type: ignore[misc]
        first_batch: Batch | None = None
        totals: list[float]
        sampling: float

        def _generate(self, *args: Any, **more: Any) -> Any:
            started = time.perf_counter()
            made = super()._generate(*args, **more)
            self._spent(started)
            return made

        def _spent(self, started: float) -> None:
            """Sampled answers are numbers in lists by now: the device has come to its end."""
            self.sampling = vars(self).get("sampling", 0.0) + time.perf_counter() - started

        def _calculate_rewards(self, *args: Any, **more: Any) -> Any:
            started = time.perf_counter()
            rewards = super()._calculate_rewards(*args, **more)
            self._spent(started)
            self.totals = (rewards * self.reward_weights.to(rewards.device)).sum(1).tolist()
            return rewards

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            made = super()._generate_and_score_completions(inputs)
            if self.first_batch is None:
                self.first_batch = Batch(
                    _rows(made["prompt_ids"], made["prompt_mask"]),
                    _rows(made["completion_ids"], made["completion_mask"]),
                    self.totals, [],
                )  # fmt: skip
            return made

    return Watching


def _rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(ids_BT, mask_BT, strict=True)]


class Generate:
    """transformers' `generate` (or its continuous batching) as TRL's trainers call it."""

    def __init__(self, run: Run, entrant: Entrant, place: Place) -> None:
        self.spec, self.entrant, self.place = run, entrant, place

    def load(self) -> None:
        if self.entrant.allocator:
            keep_freed_memory()
        dtype = torch.bfloat16 if self.spec.bfloat16 else torch.float32
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(self.place.model, dtype=dtype)
        self.model = model.to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.place.model)
        self.prompts = read_prompts(self.spec, self.place, tokenizer)
        self.end = tokenizer.eos_token_id
        self.config = GenerationConfig(
            max_new_tokens=self.spec.case.answer[1],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=self.end,
        )
        self.answers: Answers = {"check": self._check}

    @torch.no_grad()
    def _check(self, batch: Batch) -> Step:
        """The mean distance between the log-probs strop's sampler gave its tokens and the model's
        own, as the loss."""
        apart: list[float] = []
        shown = zip(batch.prompts, batch.completions, batch.logprobs, strict=True)
        for prompt, completion, logprobs in list(shown)[:32]:
            ids = torch.tensor([prompt + completion], device=self.model.device)
            logits = self.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            read = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])[:, 0]
            apart += (read.cpu() - torch.tensor(logprobs)).abs().tolist()
        return Step(loss=sum(apart) / len(apart))

    def run(self, on_step: OnStep) -> None:
        torch.manual_seed(0)
        case = self.spec.case
        for step in range(self.spec.steps):
            prompts = self.prompts[step * case.batch : (step + 1) * case.batch]
            rows = [list(prompt) for prompt in prompts for _ in range(case.group)]
            made = self._continuous(rows) if self.entrant.continuous else self._padded(rows)
            on_step(partial(Step, tokens=made))

    @torch.no_grad()
    def _continuous(self, rows: list[list[int]]) -> int:
        done = self.model.generate_batch(rows, generation_config=self.config, progress_bar=False)
        return sum(len(output.generated_tokens) for output in done.values())

    @torch.no_grad()
    def _padded(self, rows: list[list[int]]) -> int:
        longest = max(map(len, rows))
        pad = self.config.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(r)) + r for r in rows], device=self.model.device)
        mask = torch.tensor(
            [[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=self.model.device
        )
        out = self.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=self.config
        )[:, longest:]
        ended = (out == self.end).int().cumsum(1)
        return int(((ended == 0) | ((out == self.end) & (ended == 1))).sum())
