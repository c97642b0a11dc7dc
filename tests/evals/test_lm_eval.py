"""The same tiny model and tasks through lm-eval's own backend and through ours."""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from strop.demo.world import all_equations
from strop.errors import DataError, MissingEvidenceError, RecipeError, UsageError
from strop.evals.gate import gate
from strop.evals.lm_eval.log import holds_log_samples, read_log_samples
from strop.evals.lm_eval.model import LmEvalModel
from strop.evals.lm_eval.run import run_lm_eval
from strop.evals.reading import PolicyReader
from strop.evals.tasks import choice, perplexity
from strop.model.load import load_for_inference
from strop.model.network import Policy
from strop.recipe.gate import GateRules
from strop.recipe.suite import ChoiceTask, LmEvalTask, PerplexityTask
from strop.types import EvalRecord
from tests.support.models import bos_tokenizer

lm_eval = pytest.importorskip("lm_eval")
huggingface = pytest.importorskip("lm_eval.models.huggingface")
instances = pytest.importorskip("lm_eval.api.instance")
loggers = pytest.importorskip("lm_eval.loggers")
managers = pytest.importorskip("lm_eval.tasks")

ITEMS = 60
CHOICES = {
    "task": "toy_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": m} for m in ("acc", "acc_norm", "acc_bytes")],
}
ROLLING = {
    "task": "toy_rolling",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
}
WRITING = {
    "task": "toy_writing",
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{target}}",
    "generation_kwargs": {"until": ["5", "\n\n"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}
CLOZE = {
    "task": "toy_cloze",
    "output_type": "loglikelihood",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": " {{target}}",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}

NAMES = ["toy_choice", "toy_rolling", "toy_writing", "toy_cloze"]


def rows() -> list[dict[str, Any]]:
    """Questions whose choices differ in length, scripts and the white space before them."""
    found = []
    for number, equation in enumerate(all_equations()[:: len(all_equations()) // ITEMS][:ITEMS]):
        choices = [str(equation.x), "é" * (1 + number % 3), f"none of {number}", "Why?"]
        turned = choices[number % 4 :] + choices[: number % 4]
        found.append(
            {
                "prompt": equation.question + [" Answer:", " Answer:  ", "\nAnswer:\n"][number % 3],
                "choices": turned,
                "answer": number * 7 % 11 % 4,
                "target": choices[0],
                "text": (equation.question + " ") * (1 if number % 2 else 25),
                "id": number,
                "parity": str(number % 2),
            }
        )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four lm-eval tasks over one local file, as a user would write them."""
    path = tmp_path_factory.mktemp("tasks")
    data = path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    local = {"data_files": {"test": str(data)}, "cache_dir": str(path / "cache")}
    for task in (CHOICES, ROLLING, WRITING, CLOZE):
        whole = {**task, "dataset_path": "json", "dataset_kwargs": local, "test_split": "test"}
        (path / f"{task['task']}.yaml").write_text(yaml.safe_dump(whole))
    return path


@pytest.fixture(scope="module", autouse=True)
def _no_inventory() -> Iterator[None]:
    """lm-eval takes seconds to ask the machine for its hardware, for the head of its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        yield


@pytest.fixture(scope="module")
def theirs(model_folder: Path) -> Any:
    """lm-eval's own backend on the same folder, one row a forward: nothing of ours, no padding."""
    return huggingface.HFLM(
        pretrained=str(model_folder), dtype="float32", device="cpu", batch_size=1
    )


def evaluate(model: Any, folder: Path, tasks: list[str], **options: Any) -> dict[str, Any]:
    manager = managers.TaskManager(include_path=str(folder), include_defaults=False)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options
    )
    return found


@pytest.fixture(scope="module")
def expected(theirs: Any, folder: Path) -> dict[str, Any]:
    """What lm-eval finds with its own backend."""
    return evaluate(theirs, folder, NAMES)


def lm_eval_task(folder: Path, tasks: list[str], **options: Any) -> LmEvalTask:
    return LmEvalTask.model_validate(
        {"kind": "lm_eval", "name": "toy", "tasks": tasks, "include_path": str(folder), **options}
    )


def test_a_choice_task_equals_lm_eval_item_by_item(
    expected: dict[str, Any], policy: Policy, folder: Path
) -> None:
    samples = expected["samples"]["toy_choice"]
    task = ChoiceTask(kind="choice", name="mc", data=str(folder / "rows.jsonl"))
    records = choice.score_rows(PolicyReader(policy), task, choice.rows_of(task))
    ours = {(record.item, record.task): record for record in records}
    assert len(samples) == ITEMS
    for sample in samples:
        item = str(sample["doc"]["id"])
        logprobs = [float(answer[0]) for answer in sample["filtered_resps"]]
        for metric in ("acc", "acc_norm", "acc_bytes"):
            record = ours[item, f"mc/{metric}"]
            assert record.score == sample[metric]
            found = [record.details[f"logprob/{i}"] for i in range(4)]
            assert found == pytest.approx(logprobs, abs=1e-4)
    for metric in ("acc", "acc_norm", "acc_bytes"):  # no score is the same on all items
        assert 0 < sum(sample[metric] for sample in samples) < ITEMS
    differ = [s for s in samples if len({s["acc"], s["acc_norm"], s["acc_bytes"]}) > 1]
    assert differ  # and the three are not one score under three names


def test_our_model_class_equals_theirs_on_every_kind_of_request(
    expected: dict[str, Any], policy: Policy, folder: Path
) -> None:
    samples = expected["samples"]
    records = run_lm_eval(policy, lm_eval_task(folder, NAMES), seed=0)
    ours = {(record.task, int(record.item.split("-")[0])): record for record in records}
    assert len(records) == ITEMS * (3 + 2 + 1 + 2)
    for sample in samples["toy_choice"]:
        for metric in ("acc", "acc_norm", "acc_bytes"):
            assert ours[f"toy/toy_choice/{metric}", sample["doc_id"]].score == sample[metric]
    for sample in samples["toy_rolling"]:
        logprob, words = sample["word_perplexity"]
        record = ours["toy/toy_rolling/logprob_per_word", sample["doc_id"]]
        assert record.score == pytest.approx(logprob / words, abs=1e-4)
        _, size = sample["byte_perplexity"]
        record = ours["toy/toy_rolling/logprob_per_byte", sample["doc_id"]]
        assert record.score == pytest.approx(logprob / size, abs=1e-4)
    for sample in samples["toy_writing"]:
        record = ours["toy/toy_writing/exact_match", sample["doc_id"]]
        assert record.output == sample["filtered_resps"][0]
    texts = [sample["filtered_resps"][0] for sample in samples["toy_writing"]]
    assert len(set(texts)) > ITEMS / 4
    assert len({len(policy.tokenizer.encode(text)) for text in texts}) > 3  # some were stopped
    for sample in samples["toy_cloze"]:
        record = ours["toy/toy_cloze/logprob", sample["doc_id"]]
        assert record.score == pytest.approx(sample["perplexity"], abs=1e-4)
        assert ours["toy/toy_cloze/acc", sample["doc_id"]].score == sample["acc"]


def test_a_perplexity_task_equals_lm_eval_by_text_and_as_a_whole(
    expected: dict[str, Any], policy: Policy, folder: Path
) -> None:
    task = PerplexityTask(kind="perplexity", name="ppl", data=str(folder / "rows.jsonl"))
    texts = [
        perplexity.parse({"text": row["text"], "id": row["id"]}, read.task.origin)
        for row, read in zip(rows(), perplexity.rows_of(task), strict=True)
    ]
    records = perplexity.score_rows(PolicyReader(policy), task, texts)
    assert max(record.details["tokens"] or 0 for record in records) > 128  # several windows
    for record, sample in zip(records, expected["samples"]["toy_rolling"], strict=True):
        logprob, words = sample["word_perplexity"]
        assert record.details["nll"] == pytest.approx(-logprob, rel=1e-5)
        assert record.details["words"] == words
        assert record.details["bytes"] == sample["byte_perplexity"][1]
    corpus, theirs_whole = perplexity.corpus_of(records, "ppl"), expected["results"]["toy_rolling"]
    assert corpus.byte == pytest.approx(theirs_whole["byte_perplexity,none"], rel=1e-5)
    assert corpus.bits_per_byte == pytest.approx(theirs_whole["bits_per_byte,none"], rel=1e-5)
    assert corpus.word == pytest.approx(theirs_whole["word_perplexity,none"], rel=1e-3)


class Request:
    """What lm-eval hands to a model."""

    def __init__(self, *args: Any) -> None:
        self.args = args


def request_pairs() -> Iterator[tuple[str, str]]:
    yield "", "x = 3"
    yield "", "<|end|>x"
    yield "Answer:", " 5"
    yield "Answer: \n ", "5"
    yield "123456789" * 23, " 5"  # longer than the context: the beginning goes
    yield "7" * 127, "3 3"
    yield "Answer:", "7" * 127
    yield "Solve 2x = 6", " x = 3"
    yield "Solve 2x = 6", " x = 3"
    yield "Solve 2x = 6", " x = 4"


@pytest.mark.parametrize("bos", [False, True])
def test_every_shape_of_request_has_their_number(
    bos: bool, model_folder: Path, policy: Policy
) -> None:
    tokenizer = bos_tokenizer(policy.tokenizer) if bos else policy.tokenizer
    theirs = huggingface.HFLM(
        pretrained=load_for_inference(str(model_folder)).model,
        tokenizer=tokenizer,
        device="cpu",
        batch_size=1,
        max_length=128,
    )
    ours = LmEvalModel(replace(policy, tokenizer=tokenizer))
    instance = instances.Instance
    asked = [instance("loglikelihood", {}, pair, n) for n, pair in enumerate(request_pairs())]
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood([Request(*pair) for pair in request_pairs()])
    for (logprob, greedy), (their_logprob, their_greedy) in zip(found, expected, strict=True):
        assert logprob == pytest.approx(their_logprob, abs=1e-4)
        assert greedy == their_greedy

    texts = ["15 / 3 = 5", "123456789" * 33, "x"]
    asked = [instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)]
    expected = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling([Request(text) for text in texts]) == pytest.approx(
        expected, rel=1e-5
    )

    settings = {"until": ["\n"], "max_gen_toks": 16}
    prompts = ["Solve 2x = 6", "123456789" * 23]  # the second loses its beginning
    asked = [instance("generate_until", {}, (p, settings), n) for n, p in enumerate(prompts)]
    expected = theirs.generate_until(asked, disable_tqdm=True)
    assert ours.generate_until([Request(p, settings) for p in prompts]) == expected
    assert any(expected)


def test_a_chat_template_is_rendered_as_theirs(theirs: Any, policy: Policy) -> None:
    ours = LmEvalModel(policy)
    talk = [{"role": "user", "content": "2x = 6"}]
    assert ours.apply_chat_template(talk) == theirs.apply_chat_template(talk)
    begun = [*talk, {"role": "assistant", "content": "x ="}]
    assert ours.apply_chat_template(begun, False) == theirs.apply_chat_template(begun, False)


def test_the_chat_template_reaches_the_model(theirs: Any, policy: Policy, folder: Path) -> None:
    task = lm_eval_task(folder, ["toy_cloze"], limit=6, chat_template=True)
    records = run_lm_eval(policy, task, seed=0)
    found = evaluate(theirs, folder, ["toy_cloze"], limit=6, apply_chat_template=True)
    expected = [sample["perplexity"] for sample in found["samples"]["toy_cloze"]]
    scores = [record.score for record in records if record.task.endswith("/logprob")]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert records[0].prompt == f"<|user|>{rows()[0]['prompt']}<|assistant|>"


@pytest.fixture
def logged(expected: dict[str, Any], tmp_path: Path) -> Path:
    """What `lm_eval --log_samples --output_path out` leaves behind."""
    write_log(copy.deepcopy(expected), tmp_path / "out", "models/a")
    return tmp_path / "out"


def write_log(results: dict[str, Any], path: Path, model: str) -> None:
    keeper = loggers.EvaluationTracker(output_path=str(path))
    keeper.general_config_tracker.log_experiment_args("hf", f"pretrained={model}", "", "", False)
    samples = results.pop("samples")
    keeper.save_results_aggregated(results=results, samples=samples)
    for task, rows_of_task in samples.items():
        keeper.save_results_samples(task_name=task, samples=rows_of_task)


def by_name(records: list[EvalRecord]) -> dict[tuple[str, str], EvalRecord]:
    return {(record.task, record.item): record for record in records}


def test_logged_samples_are_the_records_of_our_own_run(
    logged: Path, policy: Policy, folder: Path
) -> None:
    """The same names and items, so that one side of a gate may come from lm-eval itself."""
    assert holds_log_samples(logged)
    theirs = by_name(read_log_samples(logged))
    ours = []
    for name in NAMES:
        task = lm_eval_task(folder, [name]).model_copy(update={"name": name})
        ours += run_lm_eval(policy, task, seed=0)
    assert by_name(ours).keys() == theirs.keys()
    assert len(theirs) == ITEMS * (3 + 2 + 1 + 2)
    for key, record in by_name(ours).items():
        assert record.score == pytest.approx(theirs[key].score, abs=1e-4)
        assert (record.prompt, record.output) == (theirs[key].prompt, theirs[key].output)


def test_the_gate_reads_logged_samples(
    logged: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    worse = copy.deepcopy(expected)
    for row in worse["samples"]["toy_choice"]:
        row["acc"] = 0.0
    write_log(worse, tmp_path / "worse", "models/b")
    other = copy.deepcopy(expected)
    other["samples"]["toy_choice"][0]["doc_hash"] = "another document"
    write_log(other, tmp_path / "other", "models/c")
    base = read_log_samples(logged)
    policy = GateRules.model_validate({"guardrails": [{"score": "toy_choice/acc", "margin": 0.1}]})
    assert gate(base, base, policy).name == "pass"
    assert gate(base, read_log_samples(tmp_path / "worse"), policy).name == "regressed"
    with pytest.raises(MissingEvidenceError, match=r"different items \(1 only in base"):
        gate(base, read_log_samples(tmp_path / "other"), policy)


def test_one_file_and_the_latest_run_of_a_folder(logged: Path) -> None:
    (file,) = logged.rglob("samples_toy_choice_*.jsonl")
    assert {record.task for record in read_log_samples(file)} == {
        "toy_choice/acc", "toy_choice/acc_norm", "toy_choice/acc_bytes",
    }  # fmt: skip
    date = file.name.removeprefix("samples_toy_choice_").removesuffix(".jsonl")
    later = "2999-01-01T00-00-00.000001"
    (file.parent / f"results_{later}.json").write_text(
        (file.parent / f"results_{date}.json").read_text()
    )
    first = json.loads(file.read_text().splitlines()[0])
    turned = {**first, "acc": 1.0 - first["acc"]}
    file.with_name(f"samples_toy_choice_{later}.jsonl").write_text(json.dumps(turned) + "\n")
    found = [r for r in read_log_samples(logged) if r.task == "toy_choice/acc"]
    assert [record.score for record in found] == [turned["acc"]]


def test_slices_and_limit_of_a_task(policy: Policy, folder: Path) -> None:
    task = lm_eval_task(folder, ["toy_choice"], limit=5, slices=["parity"])
    records = run_lm_eval(policy, task, seed=0)
    assert len(records) == 5 * 3
    assert [r.slices for r in records[::3]] == [{"parity": str(n % 2)} for n in range(5)]
    with pytest.raises(DataError, match="toy_choice:1: the slice 'topic' is no column"):
        run_lm_eval(policy, task.model_copy(update={"slices": ["topic"]}), seed=0)


def test_a_measuring_run_keeps_its_random_numbers(policy: Policy, folder: Path) -> None:
    def drawn() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    def seed() -> None:
        random.seed(5), np.random.seed(5), torch.manual_seed(5)

    seed()
    expected = drawn()
    seed()
    run_lm_eval(policy, lm_eval_task(folder, ["toy_choice"], limit=2), seed=0)
    assert drawn() == expected


def test_user_mistakes(
    policy: Policy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "tasks"))
    index = managers.TaskManager
    monkeypatch.setattr(  # its own thousands of tasks take long to read
        "lm_eval.tasks.TaskManager",
        lambda include_path, include_defaults=True: index(
            include_path=include_path, include_defaults=False
        ),
    )
    with pytest.raises(RecipeError, match="lm-eval has no task 'toy_chioce'"):
        run_lm_eval(policy, lm_eval_task(folder, ["toy_chioce"]), seed=0)
    gone = yaml.safe_load((folder / "toy_choice.yaml").read_text())
    gone["task"], gone["dataset_kwargs"]["data_files"]["test"] = "gone", str(folder / "gone.jsonl")
    (folder / "gone.yaml").write_text(yaml.safe_dump(gone))
    with pytest.raises(UsageError, match=r"task toy: lm-eval cannot load gone: .*gone.jsonl"):
        run_lm_eval(policy, lm_eval_task(folder, ["gone"]), seed=0)
    long = {**WRITING, "generation_kwargs": {"until": ["5"], "max_gen_toks": 128}}
    written = yaml.safe_load((folder / "toy_writing.yaml").read_text())
    (folder / "toy_writing.yaml").write_text(yaml.safe_dump({**written, **long}))
    with pytest.raises(UsageError, match="answers of 128 tokens, the model reads 128"):
        run_lm_eval(policy, lm_eval_task(folder, ["toy_writing"], limit=1), seed=0)
    beams = {**WRITING, "generation_kwargs": {"until": ["5"], "num_beams": 2}}
    (folder / "toy_writing.yaml").write_text(yaml.safe_dump({**written, **beams}))
    with pytest.raises(UsageError, match="set num_beams, which is not read here"):
        run_lm_eval(policy, lm_eval_task(folder, ["toy_writing"], limit=1), seed=0)
    with pytest.raises(UsageError, match="a continuation of 0 tokens after 'x ='"):
        LmEvalModel(policy).loglikelihood([Request("x =", " ")])
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UsageError, match=r"pip install 'strop\[lm-eval\]'"):
        run_lm_eval(policy, lm_eval_task(folder, ["toy_choice"]), seed=0)
