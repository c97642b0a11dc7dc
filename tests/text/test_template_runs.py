"""Templates through whole runs: what is saved stops, rewards see what the prompt opened, evals of
one model on two days agree."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from strop.demo.model import raw_model
from strop.engines.engine import prompted_tasks
from strop.engines.local.engine import LocalEngine
from strop.errors import MissingEvidenceError, UsageError
from strop.evals.ask import answered, ask
from strop.evals.gate.verdict import run_gate
from strop.evals.run import run_suite
from strop.model.load import load_for_inference, load_tokenizer, load_transformer
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.rollout import SamplingRecipe
from strop.rewards.compose import Reward
from strop.tracking.runlog import read_rows
from strop.train.run import train
from strop.types import Completion, Message, Origin, Task
from tests.support.runs import WriteRows
from tests.support.templates import CLOSED_AT_THE_END, DATED, NO_END, OPENS_THOUGHT, PLAIN, speaking

USER: Message = {"role": "user", "content": "Solve 2x = 6"}
HERE = Origin("tasks.jsonl", 1)

SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tokenizer: Any, tmp_path: Path) -> SaveModel:
    """Write a tiny model whose tokenizer has this template (and maybe a generation config)."""

    def save(template: str | None, stops: list[str] | None = None, tied: bool = True) -> Path:
        speaker = speaking(tokenizer, template or PLAIN)
        if template is None:
            speaker = copy.deepcopy(tokenizer)
            speaker.chat_template = None
        model = raw_model(speaker, seed=0, width=32)
        if not tied:
            model.config.tie_word_embeddings = False
            head = torch.nn.Linear(32, len(speaker), bias=False)
            head.weight.data = model.get_input_embeddings().weight.data.clone()
            model.lm_head = head
        if stops:
            ids = speaker.convert_tokens_to_ids(stops)
            model.generation_config.eos_token_id = [speaker.eos_token_id, *ids]
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        speaker.save_pretrained(folder)
        return folder

    return save


def recipe_of(
    tmp_path: Path,
    model: Path,
    method: str = "sft",
    lora: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    recipe: dict[str, Any] = {
        "method": method,
        "output": "run",
        "model": {"path": str(model), "lora": lora},
        "data": "data.jsonl",
        "optim": {"learning_rate": 1e-2, "schedule": "constant"},
        "run": {"steps": 30, "batch_size": 1},
        **changes,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return load_recipe(path)


def generated(final: Path, **options: Any) -> tuple[str, int]:
    """What transformers' `generate` says to the prompt, and how many tokens it took."""
    model = AutoModelForCausalLM.from_pretrained(final)
    tokenizer = AutoTokenizer.from_pretrained(final)
    prompt = tokenizer.apply_chat_template(
        [USER], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False, **options)
    said = ids[0, prompt["input_ids"].shape[1] :]
    return str(tokenizer.decode(said)), len(said)


class TestWhatIsSavedStops:
    @pytest.mark.parametrize(
        ("template", "stops", "text"),
        [
            (PLAIN, ["<|im_end|>"], {}),
            (PLAIN, None, {"end_of_turn": "<|im_end|>"}),
            (CLOSED_AT_THE_END, ["<|im_end|>"], {}),
            (OPENS_THOUGHT, ["<|im_end|>"], {}),
            (NO_END, None, {"end_of_turn": "<|im_end|>"}),
        ],
        ids=["generation_config", "recipe", "closed", "thought", "appended"],
    )
    def test_full(
        self,
        tmp_path: Path,
        save_model: SaveModel,
        write_rows: WriteRows,
        template: str,
        stops: list[str] | None,
        text: Mapping[str, Any],
    ) -> None:
        write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
        final = train(recipe_of(tmp_path, save_model(template, stops), text=dict(text)))
        said, tokens = generated(final)
        assert said.rstrip().endswith("<|im_end|>")
        assert "x = 3" in said
        assert tokens < 40
        end = AutoTokenizer.from_pretrained(final).convert_tokens_to_ids("<|im_end|>")
        for name in ("config.json", "generation_config.json"):
            assert end in json.loads((final / name).read_text())["eos_token_id"]

    def test_an_adapter_says_so_too(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
    ) -> None:
        write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
        model = save_model(PLAIN)
        recipe = recipe_of(tmp_path, model, lora={"rank": 8}, text={"end_of_turn": "<|im_end|>"})
        with pytest.warns(UserWarning, match="does not stop where this adapter"):
            final = train(recipe)
        said, _ = generated(final, generation_config=GenerationConfig.from_pretrained(final))
        assert said == "x = 3<|im_end|>"
        merged = load_transformer(str(final), "auto")
        merged.save_pretrained(tmp_path / "merged")
        load_tokenizer(str(final)).save_pretrained(tmp_path / "merged")
        assert generated(tmp_path / "merged")[0] == "x = 3<|im_end|>"

    def test_what_was_right_is_left_alone(
        self, tmp_path: Path, model_folder: Path, write_rows: WriteRows
    ) -> None:
        write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
        final = train(recipe_of(tmp_path, model_folder, run={"steps": 1, "batch_size": 1}))
        for name in ("config.json", "generation_config.json"):
            before, after = (json.loads((f / name).read_text()) for f in (model_folder, final))
            assert after["eos_token_id"] == before["eos_token_id"]


class TestNamedTemplate:
    @pytest.mark.parametrize("tied", [True, False])
    def test_a_base_model_learns_to_speak(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows, tied: bool
    ) -> None:
        """Tokens are added, embeddings grow, and what is saved needs nothing of ours."""
        write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
        base = save_model(None, tied=tied)
        final = train(recipe_of(tmp_path, base, chat_template="chatml"))
        assert generated(final)[0] == "x = 3<|im_end|>"
        before = load_tokenizer(str(base)).get_vocab()
        after = load_tokenizer(str(final)).get_vocab()
        assert set(after) - set(before) == {"<|im_start|>", "<|im_end|>"}
        policy = load_for_inference(str(final))
        head, embeddings = policy.model.lm_head.weight, policy.model.get_input_embeddings().weight
        assert len(head) == len(embeddings) == max(after.values()) + 1
        assert (head.data_ptr() == embeddings.data_ptr()) is tied

    @pytest.mark.parametrize("tied", [True, False])
    def test_an_adapter_learns_the_new_tokens(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows, tied: bool
    ) -> None:
        """Embeddings and head are trained whole beside it, over a base with room for them; merged
        it is what was trained (every adapter run ends with that check)."""
        write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
        base = save_model(None, tied=tied)
        recipe = recipe_of(
            tmp_path, base, lora={"rank": 4}, chat_template="chatml",
            run={"steps": 40, "batch_size": 1},
        )  # fmt: skip
        final = train(recipe)
        assert generated(final)[0] == "x = 3<|im_end|>"
        saved = load_file(final / "adapter_model.safetensors")
        assert any("embed_tokens" in name for name in saved)
        assert any("lm_head" in name for name in saved)
        load_transformer(str(final), "auto").save_pretrained(tmp_path / "merged")
        load_tokenizer(str(final)).save_pretrained(tmp_path / "merged")
        assert generated(tmp_path / "merged")[0] == "x = 3<|im_end|>"

    def test_without_being_asked_it_is_refused(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
    ) -> None:
        write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
        with pytest.raises(Exception, match=r"no chat template[\s\S]*chatml"):
            train(recipe_of(tmp_path, save_model(None)))


class TestRewardsSeeWhatThePromptOpened:
    def judged(self, tokenizer: Any, prompt: Any, text: str, reward: Mapping[str, Any]) -> Any:
        (task,) = prompted_tasks(tokenizer, [Task(prompt, {"answer": "5"}, HERE)])
        said = Completion.one_turn((1,), text, (0.0,), "stop")
        rollout = answered(task, [replace(said, opened=task.opened)])
        from strop.recipe.train.reward import RewardComponent

        return Reward([RewardComponent(**reward)]).judge_rollouts([rollout]).scores[0].total

    @pytest.mark.parametrize(
        ("text", "score"),
        [
            ("halve it</think><answer>5</answer>", 1.0),
            ("<think>halve it</think><answer>5</answer>", 0.5),
        ],
    )
    def test_a_thought_is_opened_once(self, tokenizer: Any, text: str, score: float) -> None:
        """The prompt wrote `<think>`: to write a second one earns less, not more."""
        speaker = speaking(tokenizer, OPENS_THOUGHT)
        reward = {"function": "format_tags", "options": {"tags": ["think", "answer"]}}
        assert self.judged(speaker, [USER], text, reward) == score

    @pytest.mark.parametrize(
        ("text", "score"), [("so x = 5", 0.0), ("hm</think>x = 5", 1.0), ("hm</think>x = 6", 0.0)]
    )
    def test_a_thought_without_end_is_no_answer(
        self, tokenizer: Any, text: str, score: float
    ) -> None:
        speaker = speaking(tokenizer, OPENS_THOUGHT)
        assert self.judged(speaker, [USER], text, {"function": "exact_answer"}) == score

    def test_a_prefill_is_part_of_the_answer(self, tokenizer: Any, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(
            "def seen(prompts, completions, **columns):\n"
            "    turns = (p[-1]['role'] + c[0]['content'] for p, c in zip(prompts, completions))\n"
            "    return [float(turn == 'userx = 5') for turn in turns]\n"
        )
        prompt = [USER, {"role": "assistant", "content": "x ="}]
        reward = {"function": "seen", "file": str(tmp_path / "own.py")}
        assert self.judged(speaking(tokenizer, PLAIN), prompt, " 5", reward) == 1.0

    def test_samples_of_a_run_show_it(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
    ) -> None:
        write_rows("data.jsonl", [{"prompt": [USER], "answer": "3"}])
        model = save_model(OPENS_THOUGHT, ["<|im_end|>"])
        recipe = recipe_of(
            tmp_path, model, "grpo",
            reward=[{"function": "exact_answer"}],
            rollout={"group_size": 2, "max_tokens": 6},
            run={"steps": 1, "batch_size": 1},
        )  # fmt: skip
        train(recipe)
        samples = [row for row in read_rows(tmp_path / "run" / "samples.jsonl") if row["step"] > 0]
        assert samples
        assert all(row["completion"].startswith("<think>\n") for row in samples)


SUITE = {
    "name": "s",
    "tasks": [
        {"name": "said", "kind": "perplexity", "data": "data.jsonl"},
        {"name": "greedy", "kind": "generate", "data": "data.jsonl",
         "scores": [{"function": "exact_answer"}], "sampling": {"temperature": 0, "max_tokens": 5}},
    ],
}  # fmt: skip


class TestDates:
    def suite(self, tmp_path: Path, **changes: Any) -> Suite:
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({**SUITE, **changes}))
        return load(Suite, path)

    def rows(self, write_rows: WriteRows) -> None:
        rows = [{"prompt": [USER], "completion": f"x = {n}", "answer": "3"} for n in (3, 4)]
        write_rows("data.jsonl", rows)

    def test_two_evals_of_the_same_weights_agree(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """On whatever day they are made."""
        self.rows(write_rows)
        model, suite = str(save_model(DATED, ["<|im_end|>"])), self.suite(tmp_path)
        results = []
        for day in ("2026-11-27", "2027-02-03"):
            monkeypatch.setattr(
                "transformers.utils.chat_template_utils.datetime", _clock_of(day), raising=True
            )
            results.append(run_suite(suite, model, tmp_path / day))
        assert results[0].scores == results[1].scores
        first, second = (
            json.loads((tmp_path / day / "summary.json").read_text())["prompts"]
            for day in ("2026-11-27", "2027-02-03")
        )
        assert first == second
        assert set(first) == {"said", "greedy"}

    def test_another_day_is_another_prompt(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
    ) -> None:
        self.rows(write_rows)
        model = str(save_model(DATED, ["<|im_end|>"]))
        prompts = {}
        for day in ("2026-11-27", "2027-02-03"):
            run_suite(self.suite(tmp_path, date=day), model, tmp_path / day)
            prompts[day] = json.loads((tmp_path / day / "summary.json").read_text())["prompts"]
        assert prompts["2026-11-27"] != prompts["2027-02-03"]

    def test_the_gate_compares_the_prompts(
        self, tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
    ) -> None:
        """The same weights under another template are no other model; other weights are, and the
        verdict remarks that they were asked in other words."""
        self.rows(write_rows)
        model = save_model(PLAIN, ["<|im_end|>"])
        suite = self.suite(tmp_path)
        run_suite(suite, str(model), tmp_path / "before")
        (model / "chat_template.jinja").write_text("Listen! " + PLAIN)
        run_suite(suite, str(model), tmp_path / "after")
        policy = GateRules.model_validate({"targets": [{"score": "said/logprob"}]})
        with pytest.raises(MissingEvidenceError, match="different prompts, and their weights"):
            run_gate(policy, tmp_path / "before", tmp_path / "after")
        summary = json.loads((tmp_path / "after" / "summary.json").read_text())
        summary["model"]["sha256"] = "another"
        (tmp_path / "after" / "summary.json").write_text(json.dumps(summary))
        verdict = run_gate(policy, tmp_path / "before", tmp_path / "after")
        assert "greedy, said: the two models were asked with different prompts" in str(
            verdict.remarks
        )


def _clock_of(day: str) -> Any:
    """`datetime` whose now is this day."""
    from datetime import datetime

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromisoformat(day)

    return Clock


def test_a_suite_may_write_conversations_its_own_way(
    tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
) -> None:
    model = save_model(PLAIN, ["<|im_end|>"])
    (tmp_path / "mine.jinja").write_text("Listen! " + PLAIN)
    recipe = TemplateRecipe(chat_template=str(tmp_path / "mine.jinja"))
    task = Task([USER], {}, HERE)
    sampling = SamplingRecipe(temperature=0, max_tokens=1)
    for engine in (LocalEngine(str(model)), LocalEngine("", load_for_inference(str(model)))):
        (plain,) = ask(engine, [task], sampling, 1, 0)
        (mine,) = ask(engine.with_template(recipe), [task], sampling, 1, 0)
        tokenizer = engine.tokenizer()
        assert tokenizer.decode(mine.prompt_ids) == "Listen! " + tokenizer.decode(plain.prompt_ids)


def test_special_tokens_are_for_rewards_that_ask(tmp_path: Path, save_model: SaveModel) -> None:
    engine = LocalEngine(str(save_model(PLAIN, ["<|im_end|>"])))
    policy = engine.policy()
    end = policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():  # a model that says nothing but the end of its turn
        policy.model.get_input_embeddings().weight[:] = 0.01
        policy.model.get_input_embeddings().weight[end] = 1.0
    task = Task([USER], {}, HERE)
    texts = {}
    for skip in (True, False):
        sampling = SamplingRecipe(temperature=0, max_tokens=3, skip_special_tokens=skip)
        (rollout,) = ask(engine, [task], sampling, 1, 0)
        texts[skip] = rollout.completions[0].text
    assert texts == {True: "", False: "<|im_end|>"}


def test_options_that_nothing_reads(
    tmp_path: Path, save_model: SaveModel, write_rows: WriteRows
) -> None:
    write_rows("data.jsonl", [{"messages": [USER, {"role": "assistant", "content": "x = 3"}]}])
    recipe = recipe_of(
        tmp_path, save_model(PLAIN, ["<|im_end|>"]), template_options={"enable_thinking": False}
    )
    with pytest.raises(UsageError, match="never reads"):
        train(recipe)
