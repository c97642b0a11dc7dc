"""The server as an ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from strop.recipe.serve import LOOPBACK
from strop.serve.errors import add_refusals
from strop.serve.limits import BodyLimit
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

    @app.middleware("http")
    async def counted(
        request: Request, go_on: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await go_on(request)
        route = request.scope.get("route")
        path = getattr(route, "path", "other")
        service.metrics.requests.labels(path, str(response.status_code)).inc()
        return response

    app.add_middleware(BodyLimit, most=service.recipe.limits.body_bytes)
    if not service.recipe.tokens:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    return app
