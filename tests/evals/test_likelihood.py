"""Multiple choice and perplexity against plain transformers forwards and hand-made figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from strop.errors import DataError, TextError, UnscoredError, UsageError
from strop.evals.continuations import (
    context_of,
    continuing,
    pair_ids,
    prefix_id,
    read_continuations,
    windows,
)
from strop.evals.reading import PolicyReader
from strop.evals.tasks import choice, perplexity
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.recipe.suite import ChoiceTask, PerplexityTask
from strop.text.encode import Encoder
from strop.types import EvalRecord, Origin
from tests.support.models import bos_tokenizer
from tests.support.runs import WriteRows

ROWS: list[dict[str, Any]] = [
    {"prompt": "Solve 3x + 7 = 22. Answer:", "choices": ["5", "7", "22 over 3"], "answer": 0},
    {"prompt": "Solve 2x = 6. ", "choices": ["x = 3", "x = 4"], "answer": "x = 3"},
    {"prompt": "x + 1 = 2, so", "choices": ["x = 1", "x = 2", "é", "Subtract 1"], "answer": "D"},
]


@pytest.fixture(scope="module")
def plain_model(model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager").eval()


def choice_task(path: Path, **options: Any) -> ChoiceTask:
    return ChoiceTask.model_validate({"kind": "choice", "name": "mc", "data": str(path), **options})


def perplexity_task(path: Path, **options: Any) -> PerplexityTask:
    return PerplexityTask.model_validate(
        {"kind": "perplexity", "name": "ppl", "data": str(path), **options}
    )


@torch.no_grad()
def token_logprobs(model: Any, ids: Sequence[int]) -> list[float]:
    """Log-prob of every token after the first, from one plain forward."""
    logits = model(input_ids=torch.tensor([list(ids)])).logits[0].double()
    return [float(torch.log_softmax(logits[i], -1)[ids[i + 1]]) for i in range(len(ids) - 1)]


def scored(policy: Policy, task: ChoiceTask) -> dict[str, list[EvalRecord]]:
    records = choice.score_rows(PolicyReader(policy), task, choice.rows_of(task))
    names = {record.task for record in records}
    return {name: [r for r in records if r.task == name] for name in names}


def test_choices_have_the_log_probs_of_a_plain_forward(
    policy: Policy, plain_model: Any, write_rows: WriteRows
) -> None:
    records = scored(policy, choice_task(write_rows("mc.jsonl", ROWS)))
    encode = policy.tokenizer.encode
    for number, row in enumerate(ROWS):
        context = row["prompt"].rstrip()
        sums = []
        for text in row["choices"]:
            cut = len(encode(context))
            ids = encode(context) + encode(row["prompt"] + " " + text)[cut:]
            sums.append(sum(token_logprobs(plain_model, ids)[cut - 1 :]))
        right = [0, 0, 3][number]
        for name, values in {
            "acc": sums,
            "acc_norm": [s / len(c) for s, c in zip(sums, row["choices"], strict=True)],
            "acc_bytes": [s / len(c.encode()) for s, c in zip(sums, row["choices"], strict=True)],
        }.items():
            record = records[f"mc/{name}"][number]
            assert [record.details[f"logprob/{i}"] for i in range(len(sums))] == pytest.approx(
                sums, abs=1e-4
            )
            best = max(range(len(values)), key=values.__getitem__)
            others = max(v for i, v in enumerate(values) if i != right)
            assert record.score == float(best == right)
            assert record.output == row["choices"][best]
            assert record.details["margin"] == pytest.approx(values[right] - others, abs=1e-4)


Told = Callable[..., list[EvalRecord]]


@pytest.fixture
def told(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Told:
    """The records of a row whose choices have these log-probs."""

    def records(row: dict[str, Any], *logprobs: float) -> list[EvalRecord]:
        monkeypatch.setattr(PolicyReader, "sums", lambda reader, trees: list(logprobs))
        parsed = choice.parse(row, Origin("f", 1))
        return choice.score_rows(PolicyReader(policy), choice_task(Path("f")), [parsed])

    return records


def test_the_three_scores_pick_by_sum_by_character_and_by_byte(told: Told) -> None:
    """Log-probs (-6, -8, -7) of a text of 1 character, one of 4, and one of 2 that are 8 bytes."""
    row = {"prompt": "p", "choices": ["a", "abcd", "😀😀"], "answer": 1}
    acc, norm, by_bytes = told(row, -6.0, -8.0, -7.0)
    assert [acc.output, norm.output, by_bytes.output] == ["a", "abcd", "😀😀"]
    assert [acc.score, norm.score, by_bytes.score] == [0.0, 1.0, 0.0]
    assert norm.details["margin"] == pytest.approx(-8 / 4 + 7 / 2)
    assert by_bytes.details["margin"] == pytest.approx(-8 / 4 + 7 / 8)


def test_of_equals_the_first_is_chosen_and_what_is_not_finite_is_unscored(told: Told) -> None:
    row = {"prompt": "p", "choices": ["a", "b"], "answer": 0}
    assert told(row, -1.0, -1.0)[0].score == 1.0
    record = told(row, math.nan, -1.0)[0]
    assert record.score is None
    assert record.details == {"margin": None, "logprob/0": None, "logprob/1": -1.0}


def test_messages_go_through_the_chat_template_without_an_end(
    policy: Policy, plain_model: Any, write_rows: WriteRows
) -> None:
    prompt = [{"role": "user", "content": "Solve 2x = 6"}]
    task = choice_task(
        write_rows("chat.jsonl", [{"prompt": prompt, "choices": ["x = 3", "x = 12"], "answer": 1}])
    )
    (record,) = scored(policy, task)["mc/acc"]
    trunk = policy.tokenizer.encode("<|user|>Solve 2x = 6<|assistant|>")
    for number, text in enumerate(["x = 3", "x = 12"]):
        ids = trunk + policy.tokenizer.encode(text)
        expected = sum(token_logprobs(plain_model, ids)[len(trunk) - 1 :])
        assert record.details[f"logprob/{number}"] == pytest.approx(expected, abs=1e-4)


def test_rows_are_scored_alike_whatever_stands_around_them(
    policy: Policy, write_rows: WriteRows
) -> None:
    task = choice_task(write_rows("mc.jsonl", ROWS))
    rows = choice.rows_of(task)
    together = choice.score_rows(PolicyReader(policy), task, rows)
    apart = [r for row in rows for r in choice.score_rows(PolicyReader(policy), task, [row])]
    assert [(r.task, r.item, r.score) for r in together] == [
        (r.task, r.item, r.score) for r in apart
    ]
    for one, other in zip(together, apart, strict=True):
        assert one.details == pytest.approx(dict(other.details), abs=1e-5)


def test_items_clusters_and_slices_come_from_the_row(policy: Policy, write_rows: WriteRows) -> None:
    rows = [
        {**ROWS[0], "id": 7, "cluster": "page 1", "topic": "linear"},
        {**ROWS[1], "cluster": "page 1", "topic": "easy"},
    ]
    path = write_rows("mc.jsonl", rows)
    first, second = scored(policy, choice_task(path, slices=["topic"]))["mc/acc"]
    assert (first.item, first.cluster, first.slices) == ("7", "page 1", {"topic": "linear"})
    assert (second.cluster, second.slices) == ("page 1", {"topic": "easy"})
    write_rows("mc.jsonl", rows[::-1])
    assert scored(policy, choice_task(path, slices=["topic"]))["mc/acc"][0].item == second.item


def test_answers_are_numbers_letters_or_texts() -> None:
    def right(choices: list[str], answer: Any) -> int:
        row = {"question": "q", "choices": choices, "answer": answer}
        return choice.parse(row, Origin("f", 1)).right

    assert right(["5", "7"], 1) == 1
    assert right(["5", "7"], "7") == 1
    assert right(["5", "7"], "B") == 1
    assert right(["B", "A"], "A") == 1  # a text before a letter
    assert right(["1", "0"], "0") == 1  # a text before a number


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "9"}, "the answer '9' is not among the 3 choices"),
        ({"answer": 3}, "the answer 3 is not among the 3 choices"),
        ({"answer": -1}, "the answer -1 is not among the 3 choices"),
        ({"answer": True}, "the answer True is not among the 3 choices"),
        ({"answer": "E"}, "a letter from A to C"),
        ({"answer": None}, "the row has no `answer`"),
        ({"prompt": None}, "the row has no `prompt`"),
        ({"prompt": "  "}, "`prompt` is empty"),
        ({"choices": ["5"]}, "`choices` holds 1 text,"),
        ({"choices": []}, "`choices` holds 0 texts,"),
        ({"choices": "57"}, "`choices` is not a list of texts"),
        ({"choices": [5, 7]}, "`choices` is not a list of texts"),
        ({"choices": ["5", " "]}, "`choices[1]` is empty"),
        ({"choices": ["5", "5"]}, "two choices are the same text"),
    ],
)
def test_a_row_that_is_no_item_is_refused_by_line(
    change: dict[str, Any], said: str, write_rows: WriteRows
) -> None:
    path = write_rows("mc.jsonl", [ROWS[0], {**ROWS[0], **change}])
    with pytest.raises(DataError) as caught:
        choice.rows_of(choice_task(path))
    assert f"{path}:2: " in str(caught.value)
    assert said in str(caught.value)


def test_an_item_may_fill_the_context_and_no_more(policy: Policy, write_rows: WriteRows) -> None:
    """128 positions: the last token of a choice predicts nothing and needs none."""

    def row(tokens: int) -> dict[str, Any]:
        return {"prompt": "7" * (tokens - 3), "choices": ["3 3", "3"], "answer": 0}

    def run(tokens: int) -> list[EvalRecord]:
        task = choice_task(write_rows("mc.jsonl", [ROWS[0], row(tokens)]), delimiter="")
        return choice.score_rows(PolicyReader(policy), task, choice.rows_of(task))

    assert context_of(policy) == 128
    assert len(run(129)) == 6
    with pytest.raises(DataError, match=r"mc.jsonl:2: .* are 130 tokens, the model reads 128"):
        run(130)


def test_a_delimiter_is_refused_where_the_template_speaks(
    policy: Policy, write_rows: WriteRows
) -> None:
    prompt = [{"role": "user", "content": "2x = 6"}]
    path = write_rows("mc.jsonl", [{"prompt": prompt, "choices": ["3", "4"], "answer": 0}])
    task = choice_task(path, delimiter=": ")
    with pytest.raises(DataError, match="`delimiter` would not be read"):
        choice.score_rows(PolicyReader(policy), task, choice.rows_of(task))


def test_recipes_are_strict() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        choice_task(Path("f"), delimeter=" ")
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        perplexity_task(Path("f"), window=1)


def test_white_space_goes_to_the_continuation(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    trunk, branch = pair_ids(encoder, "Answer:  \n", " 5")
    assert trunk == tuple(tokenizer.encode("Answer:"))
    assert trunk + branch == tuple(tokenizer.encode("Answer:  \n 5"))


def test_a_choice_that_the_prompt_swallows_is_refused(
    policy: Policy, write_rows: WriteRows
) -> None:
    """This tokenizer knows `x = ` as one token, so `x = 5` is no longer than `x =`."""
    assert len(policy.tokenizer.encode("x = 5")) == len(policy.tokenizer.encode("x ="))
    task = choice_task(
        write_rows("mc.jsonl", [ROWS[0], {"prompt": "x =", "choices": ["5", "6"], "answer": 0}])
    )
    with pytest.raises(DataError, match=r"mc.jsonl:2: the choice '5' adds no token"):
        choice.score_rows(PolicyReader(policy), task, choice.rows_of(task))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("tokens", range(1, 16))
def test_windows_predict_every_token_once_with_all_the_context_there_is(
    length: int, tokens: int
) -> None:
    ids = tuple(range(100, 100 + tokens))
    text = (9, *ids)
    predicted: list[int] = []
    for tree in windows(ids, 9, length):
        whole = tree.trunk + tree.branches[0].ids
        place = 1 + len(predicted)  # of the next token in `text`
        predicted += tree.branches[0].ids
        end = 1 + len(predicted)
        assert whole == text[max(0, end - length - 1) : end]
        assert tree.branches[0].ids == text[place:end]
    assert tuple(predicted) == ids


def test_rolling_perplexity_is_that_of_plain_forwards(
    policy: Policy, plain_model: Any, write_rows: WriteRows
) -> None:
    texts = ["Solve 3x + 7 = 22. " * 12, "15 / 3 = 5", "é 😀 x"]
    task = perplexity_task(write_rows("t.jsonl", [{"text": t} for t in texts]), window=40)
    records = perplexity.score_rows(PolicyReader(policy), task, perplexity.rows_of(task))
    end = policy.tokenizer.eos_token_id
    nlls, counts = [], []
    for text, record in zip(texts, records, strict=True):
        ids = policy.tokenizer.encode(text)
        nll = 0.0
        for start in range(0, len(ids), 40):
            stop = min(start + 40, len(ids))
            given = [end, *ids][: stop + 1][-41:]
            nll -= sum(token_logprobs(plain_model, given)[-(stop - start) :])
        assert record.task == "ppl/logprob"
        assert record.score == pytest.approx(-nll / len(ids), abs=1e-4)
        assert record.details["tokens"] == len(ids)
        assert record.details["bytes"] == len(text.encode())
        nlls.append(nll)
        counts.append(len(ids))
    assert counts[0] > 80  # three windows
    corpus = perplexity.corpus_of(records, "ppl")
    size = sum(len(text.encode()) for text in texts)
    assert corpus.token == pytest.approx(math.exp(sum(nlls) / sum(counts)), rel=1e-4)
    assert corpus.byte == pytest.approx(math.exp(sum(nlls) / size), rel=1e-4)
    assert corpus.bits_per_byte == pytest.approx(math.log2(corpus.byte))


def test_corpus_figures_by_hand() -> None:
    def record(nll: float | None, tokens: float, words: float, size: float) -> EvalRecord:
        details = {"nll": nll, "tokens": tokens, "words": words, "bytes": size}
        return EvalRecord("t/logprob", "i", nll and -nll / tokens, "i", details=details)

    records = [record(6.0, 3, 2, 10), record(2.0, 1, 1, 6), record(None, 5, 5, 5)]
    figures = perplexity.corpus_of(records, "t")
    assert figures.token == pytest.approx(math.exp(8 / 4))
    assert figures.word == pytest.approx(math.exp(8 / 3))
    assert figures.byte == pytest.approx(math.exp(8 / 16))
    assert figures.bits_per_byte == pytest.approx(8 / 16 / math.log(2))
    assert perplexity.corpus_of([record(1000.0, 400, 1, 900)], "t").word == math.inf
    with pytest.raises(UnscoredError, match="t: no passage"):
        perplexity.corpus_of(records[2:], "t")


def test_only_answers_are_measured_where_there_are_prompts(
    policy: Policy, plain_model: Any, write_rows: WriteRows
) -> None:
    messages = [
        {"role": "user", "content": "Solve 2x = 6"},
        {"role": "assistant", "content": "x = 3"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "3 it is"},
    ]
    rows = [{"prompt": "2x = 6;", "completion": " x = 3"}, {"messages": messages}]
    task = perplexity_task(write_rows("a.jsonl", rows))
    plain, chat = perplexity.score_rows(PolicyReader(policy), task, perplexity.rows_of(task))
    encode, end = policy.tokenizer.encode, policy.tokenizer.eos_token_id

    prompt = encode("2x = 6;")
    found = token_logprobs(plain_model, [*prompt, *encode(" x = 3"), end])[len(prompt) - 1 :]
    assert plain.score == pytest.approx(sum(found) / len(found), abs=1e-4)
    assert (plain.prompt, plain.output) == ("2x = 6;", " x = 3")
    assert (plain.details["bytes"], plain.details["words"]) == (6, 4)

    texts = ["<|user|>Solve 2x = 6<|assistant|>", "x = 3<|end|>",
             "<|user|>Sure?<|assistant|>", "3 it is<|end|>"]  # fmt: skip
    ids, learnt = [], []
    for number, text in enumerate(texts):
        part = encode(text)
        ids += part
        learnt += [number % 2 == 1] * len(part)
    found = [
        value
        for value, learn in zip(token_logprobs(plain_model, ids), learnt[1:], strict=True)
        if learn
    ]
    assert chat.details["tokens"] == len(found)
    assert chat.score == pytest.approx(sum(found) / len(found), abs=1e-4)
    assert chat.details["bytes"] == len("x = 3" + "3 it is")


def test_a_document_keeps_its_columns(policy: Policy, write_rows: WriteRows) -> None:
    rows = [{"text": "15 / 3 = 5", "id": "a", "cluster": "c", "topic": "t"}, {"text": "5 x"}]
    path = write_rows("t.jsonl", rows)
    task = perplexity_task(path, slices=["topic"])
    rows_read = perplexity.rows_of(task)
    (first,) = perplexity.score_rows(PolicyReader(policy), task, rows_read[:1])
    assert (first.item, first.cluster, first.slices) == ("a", "c", {"topic": "t"})
    with pytest.raises(DataError, match=r"t.jsonl:2: the slice 'topic' is no column"):
        perplexity.score_rows(PolicyReader(policy), task, rows_read)


def test_user_mistakes_of_perplexity(policy: Policy, write_rows: WriteRows) -> None:
    task = perplexity_task(write_rows("w.jsonl", [{"text": "5"}, {"prompt": "5"}]))
    with pytest.raises(DataError, match=r"w.jsonl:2: wrong columns for perplexity: found {prompt}"):
        perplexity.rows_of(task)
    task = perplexity_task(write_rows("w.jsonl", [{"text": "5"}, {"text": " "}]))
    with pytest.raises(DataError, match=r"w.jsonl:2: `text` is empty"):
        perplexity.rows_of(task)
    task = perplexity_task(write_rows("w.jsonl", [{"text": "5"}]), window=129)
    with pytest.raises(UsageError, match="window is 129 tokens, the model reads 128"):
        perplexity.score_rows(PolicyReader(policy), task, perplexity.rows_of(task))
    long = {"prompt": "7" * 100, "completion": "7" * 29}
    task = perplexity_task(write_rows("w.jsonl", [{"text": "5"}, long]))
    with pytest.raises(DataError, match=r"w.jsonl:2: prompt and answer are 130 tokens"):
        perplexity.score_rows(PolicyReader(policy), task, perplexity.rows_of(task))
    path = write_rows("w.jsonl", [])
    with pytest.raises(DataError, match="the data holds no records"):
        perplexity.rows_of(perplexity_task(path))


def test_a_rolling_text_needs_something_before_it(tokenizer: Any) -> None:
    class Bare:
        bos_token_id = None
        eos_token_id = None

    with pytest.raises(TextError, match="neither BOS nor EOS"):
        prefix_id(Bare())
    assert prefix_id(tokenizer) == tokenizer.eos_token_id


def test_greedy_tells_what_greedy_decoding_would_write(policy: Policy, plain_model: Any) -> None:
    trunk = tuple(policy.tokenizer.encode("Solve 2x ="))
    ids = list(trunk)
    with torch.no_grad():
        for _ in range(4):
            ids.append(int(plain_model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    written = tuple(ids[len(trunk) :])
    other = (*written[:3], (written[3] + 1) % 300)
    read = read_continuations(policy, [continuing(trunk, [written, other, written[:2]])])
    assert [r.greedy for r in read] == [True, False, True]
    assert [r.tokens for r in read] == [4, 4, 2]


def test_forwards_are_bounded_and_change_nothing(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [continuing((5, 6, 7), [(8, number), (9,)]) for number in range(20, 40)]
    whole = read_continuations(policy, trees)
    calls: list[int] = []
    inner = policy.model.get_decoder().forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["input_ids"].shape[1])
        return inner(*args, **kwargs)

    monkeypatch.setattr(policy.model.get_decoder(), "forward", counted)
    monkeypatch.setattr("strop.evals.continuations.TOKENS", 25)
    monkeypatch.setattr("strop.evals.continuations.CHUNK_ELEMENTS", 4 * 325)
    parts = read_continuations(policy, trees)
    assert calls == [24] * 5
    for one, other in zip(whole, parts, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


@pytest.mark.parametrize("by_tree", [True, False])
def test_learned_positions_end_where_the_context_does(
    by_tree: bool, tokenizer: Any, write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2 has no position beyond its last; a full window still predicts one token past it."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=16, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, initializer_range=0.3,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    scorer = TreeScorer(model)
    monkeypatch.setattr(scorer, "by_tree", by_tree and scorer.by_tree)
    policy = Policy(model, tokenizer, False, scorer)
    text = "3x + 7 = 22, x = 5. 15 / 3 = 5"
    task = perplexity_task(write_rows("t.jsonl", [{"text": text}]))
    (record,) = perplexity.score_rows(PolicyReader(policy), task, perplexity.rows_of(task))
    ids, length = tokenizer.encode(text), 16 if scorer.by_tree else 15
    assert len(ids) > 17
    nll = 0.0
    for start in range(0, len(ids), length):
        stop = min(start + length, len(ids))
        given = [tokenizer.eos_token_id, *ids][: stop + 1][-(length + 1) :]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([given[:-1]])).logits[0].double()
        all_logprobs = torch.log_softmax(logits, -1)
        for back in range(1, stop - start + 1):
            nll -= float(all_logprobs[-back, given[-back]])
    assert record.details["nll"] == pytest.approx(nll, abs=1e-3)


def test_a_bos_stands_once_before_the_prompt_and_none_within(
    policy: Policy, plain_model: Any, write_rows: WriteRows
) -> None:
    with_bos = bos_tokenizer(policy.tokenizer)
    asked = dataclasses.replace(policy, tokenizer=with_bos)
    (record,) = scored(asked, choice_task(write_rows("b.jsonl", ROWS[:1])))["mc/acc"]
    encode = policy.tokenizer.encode
    for number, text in enumerate(ROWS[0]["choices"]):
        whole = [2, *encode(ROWS[0]["prompt"] + " " + text)]
        start = len(encode(ROWS[0]["prompt"]))
        expected = sum(token_logprobs(plain_model, whole)[start:])
        assert record.details[f"logprob/{number}"] == pytest.approx(expected, abs=1e-4)
    task = perplexity_task(write_rows("t.jsonl", [{"text": "15 / 3 = 5"}]))
    (text_record,) = perplexity.score_rows(PolicyReader(asked), task, perplexity.rows_of(task))
    found = token_logprobs(plain_model, [2, *encode("15 / 3 = 5")])
    assert text_record.details["nll"] == pytest.approx(-sum(found), abs=1e-4)
