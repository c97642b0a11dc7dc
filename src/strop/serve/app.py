"""The server as an ASGI application."""

from __future__ import annotations

from fastapi import FastAPI

from strop.serve.errors import add_refusals
from strop.serve.limits import BodyLimit, Counted, KnownCallers, OwnName
from strop.serve.routes.answers import answer_routes
from strop.serve.routes.feedback import feedback_routes
from strop.serve.routes.state import state_routes
from strop.serve.service import Service


def serve_app(service: Service) -> FastAPI:
    """Routes, limits and refusals. No other site's page may ask (no CORS), and where no tokens are
    asked for, only requests to this machine's own name are answered: a page whose name was made to
    lead here has another."""
    app = FastAPI(title="strop", openapi_url=None)
    add_refusals(app)
    for router in (answer_routes, feedback_routes, state_routes):
        app.include_router(router(service))

    app.add_middleware(BodyLimit, most=service.recipe.limits.body_bytes)
    if service.recipe.tokens:
        app.add_middleware(KnownCallers, doors=service.doors)
    else:
        app.add_middleware(OwnName)
    app.add_middleware(Counted, requests=service.metrics.requests)
    return app
