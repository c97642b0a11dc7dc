"""Tickets, strop's own serving log, and answers in columns."""

from __future__ import annotations

from typing import Any

import pytest

from strop.errors import UsageError
from tests.support.exports import Make, user

THREAD = [{"from": "customer", "text": "My order 7 is late."}]
DRAFT = "Sorry! It will arrive on Monday."
SENT = "Sorry! It will arrive on Tuesday, before noon."


def ticket(number: int, **more: Any) -> dict[str, Any]:
    return {"ticket_id": f"T-{number}", "thread": THREAD, "draft": DRAFT, "sent": SENT,
            "closed_at": "2026-01-05T10:00:00Z"} | more  # fmt: skip


class TestTickets:
    def test_edit_demonstration_and_thumb_of_what_was_sent(self, make: Make) -> None:
        made = make([ticket(1, resolution="solved", rating=5)])
        assert made.said("preferences", "prompt", "chosen", "rejected") == [
            ("My order 7 is late.", SENT, DRAFT)
        ]
        assert made.said("demonstrations", "completion") == [(SENT,)]
        assert made.said("feedback", "completion", "label") == [(SENT, True)]
        assert made["preferences"][0]["meta"]["trace_id"] == "T-1"

    @pytest.mark.parametrize("ending", [{"rating": 1}, {"resolution": "reopened"}, {"csat": "bad"}])
    def test_what_was_sent_and_disliked_is_no_example(
        self, make: Make, ending: dict[str, Any]
    ) -> None:
        """In the first case others have ratings up to five, so that one is not a thumb up."""
        good = ticket(2, thread=[user("Hello?")], sent="Hi!", draft=None, rating=5)
        made = make([ticket(1, **ending), good])
        assert made.said("feedback", "completion", "label") == [(SENT, False), ("Hi!", True)]
        assert made["preferences"] == []
        assert made.said("demonstrations", "completion") == [("Hi!",)]

    def test_a_draft_sent_as_it_stands_is_liked_where_nothing_else_is_said(
        self, make: Make
    ) -> None:
        made = make([ticket(1, sent=DRAFT), ticket(2, sent=DRAFT, rating=2), ticket(3, rating=5)])
        assert made.said("feedback", "completion", "label") == [
            (DRAFT, True), (DRAFT, False), (SENT, True),
        ]  # fmt: skip
        assert made.said("demonstrations", "completion") == [(DRAFT,), (SENT,)]

    def test_rating_and_resolution_that_contradict_each_other(self, make: Make) -> None:
        made = make([ticket(1, resolution="unresolved", rating=5)])
        assert made["feedback"] == made["demonstrations"] == []
        assert made.built.left_out == {"conflict": 1}
        assert made.built.conflicts == 1

    def test_a_rewritten_draft_is_an_example_but_no_pair(self, make: Make) -> None:
        made = make([ticket(1, draft="No.")])
        assert made["preferences"] == []
        assert made.said("demonstrations", "completion") == [(SENT,)]

    def test_threads_as_help_desks_export_them(self, make: Make) -> None:
        """Roles, authors that are objects, internal notes, a subject with a description."""
        turns = [
            {"author": {"role": "end-user", "id": 7}, "body": "Late!", "public": True},
            {"author": {"role": "agent", "id": 8}, "body": "call him", "public": False},
            {"author": {"role": "agent", "id": 8}, "body": "Which order?", "public": True},
            {"author": {"role": "end-user", "id": 7}, "body": "7", "public": True},
        ]
        rows = [ticket(1, thread=turns), ticket(2, thread=None, subject="Late", description="7?")]
        asked = [row["prompt"] for row in make(rows)["demonstrations"]]
        assert asked[0] == [user("Late!"), {"role": "assistant", "content": "Which order?"},
                            user("7")]  # fmt: skip
        assert asked[1] == [user("Late\n\n7?")]

    def test_faults(self, make: Make) -> None:
        rows = [ticket(n) for n in range(3)]
        broken = [ticket(3, thread=None), ticket(4, rating=[5]), ticket(5, thread=[])]
        made = make([*rows, *broken, ticket(6, sent=None)], max_bad=0.6)
        assert [(bad.kind, bad.origin.line) for bad in made.built.bad] == [
            ("no_prompt", 4), ("rating", 5), ("empty", 6)]  # fmt: skip
        assert made.built.without_signal == 1
        assert made.adds_up()


def request(number: int, answer: str, **more: Any) -> dict[str, Any]:
    return {"id": f"r-{number}", "model": "support", "weights": "3f2a", "answer": answer,
            "messages": [user("Capital of Australia?")], "finish": "stop",
            "usage": {}, "time": f"2026-01-05T10:00:{number:02}Z"} | more  # fmt: skip


class TestServingLog:
    def test_thumb_edit_choice_and_regeneration(self, make: Make) -> None:
        rows = [
            {"id": "r-1", "label": False, "time": "2026-01-05T11:00:00Z"},
            request(1, "It is Sydney."),
            {"id": "r-2", "regenerated": "r-1"},
            request(2, "Melbourne."),
            {"id": "r-3", "regenerated": "r-2"},
            request(3, "Canberra."),
            request(4, "It is Camberra.", messages=[user("And its capital?")]),
            {"id": "r-4", "edit": "It is Canberra."},
            request(5, "", answers=["Perth", "Canberra", "Darwin"], messages=[user("Which?")]),
            {"id": "r-5", "choice": 1},
        ]
        made = make(rows)
        pairs = made.said("preferences", "chosen", "rejected")
        assert pairs == [
            ("It is Canberra.", "It is Camberra."), ("Canberra", "Perth"), ("Canberra", "Darwin"),
            ("Canberra.", "It is Sydney."), ("Canberra.", "Melbourne."),
        ]  # fmt: skip
        assert made["preferences"][-1]["meta"]["rejected_trace_id"] == "r-2"
        assert made.said("feedback", "completion", "label") == [("It is Sydney.", False)]
        assert made.said("demonstrations", "completion") == [("It is Canberra.",)]
        assert made.built.used == 5

    def test_a_regeneration_that_was_disliked_is_not_accepted(self, make: Make) -> None:
        rows = [request(1, "Sydney"), request(2, "Perth"), {"id": "r-2", "regenerated": "r-1"},
                {"id": "r-2", "label": False}]  # fmt: skip
        made = make(rows)
        assert made["preferences"] == []
        assert made.built.left_out == {"not_accepted": 1}

    def test_another_question_is_no_regeneration(self, make: Make) -> None:
        rows = [request(1, "Sydney"), request(2, "Paris", messages=[user("Of France?")]),
                {"id": "r-2", "regenerated": "r-1"}]  # fmt: skip
        assert make(rows).built.left_out == {"prompt_changed": 2}

    def test_the_same_question_again_in_a_session(self, make: Make) -> None:
        rows = [request(1, "Sydney", session="s"), request(2, "Canberra", session="s"),
                request(3, "Perth", session="t")]  # fmt: skip
        made = make(rows)
        assert (made.built.asked_again, made.built.without_signal) == (1, 3)
        made = make(rows, infer_regenerations=True)
        assert made.said("preferences", "chosen", "rejected") == [("Canberra", "Sydney")]

    def test_the_latest_of_two_thumbs_counts(self, make: Make) -> None:
        up = {"id": "r-1", "label": True, "time": "2026-01-05T11:00:00Z"}
        down = {"id": "r-1", "label": False, "time": "2026-01-05T12:00:00Z"}
        for rows in ([up, down], [down, up]):
            made = make([request(1, "Sydney"), *rows])
            assert made.said("feedback", "label") == [(False,)]
            assert made.built.conflicts == 1
        made = make([request(1, "Sydney"), up, {"id": "r-1", "label": False}])
        assert made["feedback"] == []
        assert made.built.left_out == {"conflict": 1}
        made = make([request(1, "Sydney"), up, up])
        assert (len(made["feedback"]), made.built.conflicts) == (1, 0)

    @pytest.mark.parametrize(
        ("edit", "reason"),
        [
            ("It  is Sydney.\n", "whitespace_edit"),
            ("It is Sydney. It is the largest city, on the east coast.", "small_edit"),
            ("No idea at all, sorry", "large_edit"),
            ({"nothing": "known"}, "large_edit"),
            ([], "unreadable_edit"),
        ],
    )
    def test_edits_of_no_use(self, make: Make, edit: Any, reason: str) -> None:
        """The second changes one letter of 56, which is less than the least."""
        longer = "It is Sydney, It is the largest city, on the east coast."
        said = longer if reason == "small_edit" else "It is Sydney."
        made = make([request(1, said), {"id": "r-1", "edit": edit}])
        assert made.built.left_out == {reason: 1}
        assert made["preferences"] == made["demonstrations"] == []
        assert len(made["tasks"]) == 1

    def test_the_bounds_of_edits_can_be_chosen(self, make: Make) -> None:
        """`Sydney` to `Sidney` changes 1 of 6 letters: 0.1667."""
        rows = [request(1, "Sydney"), {"id": "r-1", "edit": "Sidney"}]
        assert make(rows)["preferences"][0]["edit_distance"] == 0.1667
        assert make(rows, edits=(0.17, 0.7)).built.left_out == {"small_edit": 1}
        assert make(rows, edits=(0.05, 0.16)).built.left_out == {"large_edit": 1}

    def test_faults(self, make: Make) -> None:
        rows = [request(1, "Sydney"), {"id": "r-1", "label": "yes"}, {"id": "r-1", "choice": -1},
                {"id": "r-1", "regenerated": []}, {"id": None, "label": True},
                {"id": "r-1", "choice": 4}]  # fmt: skip
        made = make(rows, max_bad=0.9)
        assert [bad.kind for bad in made.built.bad] == ["label", "choice", "regenerated", "no_id"]
        assert made.built.left_out == {"no_such_answer": 1}


class TestAnswers:
    def test_several_scores_of_one_row(self, make: Make) -> None:
        """Of 0.9, 0.5, 0.4 and 0.1 the last is nearest to the mean minus two deviations."""
        row = {"prompt": "2x = 6?", "completions": ["3", "x is 3", "4", "9"],
               "scores": [0.9, 0.5, 0.4, 0.1]}  # fmt: skip
        made = make([row])
        assert made.said("preferences", "chosen", "rejected", "margin") == [("3", "9", 0.8)]

    def test_scores_and_verdicts_of_several_rows(self, make: Make) -> None:
        rows = [
            {"prompt": "2x = 6?", "completion": "3", "score": 1.0},
            {"prompt": "3x = 6?", "completion": "2", "correct": True},
            {"prompt": "2x = 6?", "completion": "5", "score": 0.25},
            {"prompt": "3x = 6?", "completion": "3", "correct": False},
            {"prompt": "3x = 6?", "completion": "18", "correct": False},
            {"prompt": "4x = 8?", "completion": "2", "score": 0.5},
            {"prompt": "5x = 5?", "completion": "1", "correct": True},
        ]
        made = make(rows)
        assert made.said("preferences", "prompt", "chosen", "rejected") == [
            ("2x = 6?", "3", "5"), ("3x = 6?", "2", "3"),
        ]  # fmt: skip
        assert made.built.left_out == {"no_counterpart": 2, "one_answer": 1}
        assert made.adds_up()

    def test_several_scores_need_a_name(self, make: Make) -> None:
        turns = [user("Q?")]
        rows = [{"id": str(n), "messages": turns, "answer": f"a{n}"} for n in range(3)]
        notes = [{"id": str(n), "name": name, "score": s} for n in range(3)
                 for name, s in (("relevance", n / 3), ("tone", 1 - n / 3))]  # fmt: skip
        assert make([*rows, *notes]).built.left_out == {"several_scores": 3}
        named = make([*rows, *notes], score="tone")
        assert named.said("preferences", "chosen", "rejected") == [("a0", "a2")]
        assert named.built.left_out == {"other_answer": 1}
        with pytest.raises(UsageError, match="'humor': found relevance, tone"):
            make([*rows, *notes], score="humor")

    def test_equal_scores_and_equal_answers_make_no_pair(self, make: Make) -> None:
        rows = [{"prompt": "a?", "completions": ["x", "y"], "scores": [1, 1]},
                {"prompt": "b?", "completions": ["x", "x "], "scores": [1, 0]},
                {"prompt": "c?", "completions": ["x", "x"], "corrects": [True, False]}]  # fmt: skip
        made = make(rows)
        assert made["preferences"] == []
        assert made.built.left_out == {"equal_scores": 1, "same_answer": 2}

    def test_a_reference_is_a_tasks_answer(self, make: Make) -> None:
        rows = [{"prompt": "2x = 6?", "completion": "4", "label": False},
                {"prompt": "2x = 6?", "completion": "3", "reference": "3"}]  # fmt: skip
        made = make(rows)
        assert made.said("tasks", "prompt", "answer") == [("2x = 6?", "3")]
        assert made.built.used == 2

    @pytest.mark.parametrize("words", [("up", "down"), ("Yes", "NO"), (1, -1), ("1", "0")])
    def test_labels_and_verdicts_in_words(self, make: Make, words: tuple[Any, Any]) -> None:
        good, bad = words
        rows = [{"prompt": "a?", "completion": "x", "label": good},
                {"prompt": "b?", "completion": "y", "label": bad}]  # fmt: skip
        assert make(rows).said("feedback", "label") == [(True,), (False,)]
        checked = {"prompt": "c?", "completions": ["x", "y"], "corrects": [bad, good]}
        assert make([checked]).said("preferences", "chosen", "rejected") == [("y", "x")]

    @pytest.mark.parametrize(
        ("row", "kind"),
        [
            ({"completion": "x", "label": "meh"}, "label"),
            ({"completion": "x", "score": True}, "score"),
            ({"completion": "x", "correct": 2}, "correct"),
            ({"completions": ["x", "y"], "scores": [1]}, "values"),
            ({"completions": "x", "scores": [1]}, "completions"),
            ({"completions": ["x", "y"], "choice": 2}, "choice"),
        ],
    )
    def test_faults(self, make: Make, row: dict[str, Any], kind: str) -> None:
        made = make([{"prompt": "a?", "completion": "x"}, {"prompt": "b?", **row}], max_bad=0.5)
        assert [(bad.kind, bad.origin.line) for bad in made.built.bad] == [(kind, 2)]


def test_what_users_of_a_server_send_without_words_is_counted_and_refuses_nothing(
    make: Make,
) -> None:
    """One in four asks nothing: no row is bad, however few may be."""
    said = [{"role": "user", "content": "  "}, {"role": "user", "content": "Solve 2x = 6"}]
    rows = [
        {"id": f"r-{n}", "model": "m", "messages": [said[n % 4 > 0]], "answer": f"x = {n}"}
        for n in range(8)
    ]
    thumbs = [{"id": f"r-{n}", "label": n % 2 == 0} for n in range(8)]
    made = make([*rows, *thumbs], max_bad=0.0)
    assert made.built.left_out["no_prompt"] == 2
    assert made.adds_up()
    assert len(made["feedback"]) == 6
