"""`/v1/feedback`: what users say of an answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from strop.serve.errors import RefusedError
from strop.serve.protocol.bodies import FeedbackSaid
from strop.serve.routes.callers import caller_of
from strop.serve.service import Service, now
from strop.serve.traffic.log import cannot_keep


def feedback_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/feedback")
    async def feedback(body: FeedbackSaid, request: Request) -> dict[str, Any]:
        """On the disk when this answers; the same said twice is kept once."""
        caller = caller_of(service, request, "feedback")
        traffic = service.traffic
        if traffic is None:
            raise RefusedError(404, "this server keeps no feedback: start it with a traffic folder",
                               code="no_traffic")  # fmt: skip
        known = traffic.answer(body.id)
        if known is None and traffic.problem:  # the answer itself may not have been kept
            raise cannot_keep(traffic.problem)
        if known is None or known.caller != caller.name:
            raise RefusedError(404, f"no answer {body.id!r} is known here", param="id",
                               code="answer_not_found")  # fmt: skip
        for name in ("index", "choice"):
            place = getattr(body, name)
            if place is not None and place >= known.choices:
                raise RefusedError(422, f"{name}: the answer has {known.choices} choices",
                                   param=name)  # fmt: skip
        row = row_of(body)
        new = await traffic.feedback({**row, "time": now()})
        if new:
            for kind in ("thumb", "edit", "choice", "score", "comment"):
                if getattr(body, kind) is not None:
                    service.metrics.feedback.labels(kind).inc()
            service.rated(known, row)
        return {"id": body.id, "object": "feedback", "kept": True, "repeated": not new}

    return router


def row_of(said: FeedbackSaid) -> dict[str, Any]:
    """A row of the log, as `strop data build` reads it."""
    row: dict[str, Any] = {"id": said.id}
    if said.thumb is not None:
        row["label"] = said.thumb == "up"
    for name in ("index", "edit", "choice", "comment"):
        if getattr(said, name) is not None:
            row[name] = getattr(said, name)
    if said.score is not None:
        row |= {"name": said.score.name}
        row["score"] = said.score.value if said.score.value is not None else said.score.label
        if said.score.value is not None and said.score.label is not None:
            row["score_label"] = said.score.label
        if said.score.explanation is not None:
            row["explanation"] = said.score.explanation
    return row
