"""`/v1/models`, `/health`, `/metrics`, `/canary`, `/admin`: what is served and how it fares."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from strop.serve.errors import RefusedError
from strop.serve.protocol.bodies import Body
from strop.serve.routes.callers import caller_of
from strop.serve.service import Service


class Ending(Body):
    why: str


def state_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Serving goes on where the log cannot be written; then it is degraded."""
        problem = service.traffic.problem if service.traffic is not None else ""
        return {"status": "degraded", "problem": problem} if problem else {"status": "ok"}

    @router.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        caller_of(service, request, "serve")
        listed = []
        for model in service.recipe.models:
            version = service.lineup.version(model.name)
            listed.append({
                "id": model.name, "object": "model", "owned_by": "strop",
                "max_model_len": version.context,
                "strop": {"version": version.label, **asdict(version.place),
                          "adapter": version.adapter is not None},
            })  # fmt: skip
        return {"object": "list", "data": listed}

    @router.get("/metrics")
    async def metrics() -> Response:
        _measure(service)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/canary")
    async def canary(request: Request) -> dict[str, Any]:
        caller_of(service, request, "serve")
        return {
            "canary": None if service.trial is None else service.trial.told(),
            "shadow": None if service.shadow is None else dict(service.shadow.counts),
        }

    @router.post("/admin/canary/end")
    async def end(body: Ending, request: Request) -> dict[str, Any]:
        caller_of(service, request, "admin")
        if service.trial is None or service.trial.state != "on trial":
            raise RefusedError(404, "no canary is on trial")
        service.end_trial(body.why)
        return service.trial.told()

    @router.post("/admin/follow")
    async def follow(request: Request) -> dict[str, Any]:
        """Look at once for promotions and rollbacks of what is followed."""
        caller_of(service, request, "admin")
        changed = [m.name for m in service.recipe.models if m.follow and await service.look(m)]
        return {"changed": changed}

    return router


def _measure(service: Service) -> None:
    """Gauges of the moment."""
    metrics = service.metrics
    metrics.running.set(service.turnstile.inside)
    metrics.waiting.set(service.turnstile.waiting)
    if service.traffic is not None:
        metrics.lost.set(service.traffic.lost)
    if service.trial is not None:
        standing = service.trial.ratings.standing
        for name in ("low", "high", "canary", "stable"):
            metrics.canary.labels(name).set(getattr(standing, name))
