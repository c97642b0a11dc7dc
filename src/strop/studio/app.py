"""The studio's web application."""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from plotly.offline import get_plotlyjs
from starlette.exceptions import HTTPException

from strop.errors import StropError
from strop.studio.guard import Guard
from strop.studio.pages.advise import advise_routes
from strop.studio.pages.compare import compare_routes
from strop.studio.pages.data import data_routes
from strop.studio.pages.gates import gate_routes
from strop.studio.pages.label import label_routes
from strop.studio.pages.live import live_routes
from strop.studio.pages.registry import registry_routes
from strop.studio.pages.run import run_routes
from strop.studio.pages.runs import runs_routes
from strop.studio.pages.serve import serve_routes
from strop.studio.site import FILES, Site
from strop.tracking.story.page import style

STATIC = {"studio.js": "text/javascript", "studio.css": "text/css"}
YEAR = {"Cache-Control": "max-age=31536000, immutable"}
PAGES = (runs_routes, run_routes, live_routes, compare_routes, data_routes, gate_routes,
         registry_routes, label_routes, advise_routes, serve_routes)  # fmt: skip


def studio_app(site: Site) -> FastAPI:
    """The application of a studio."""
    app = FastAPI(title="strop studio", openapi_url=None)
    app.middleware("http")(Guard(site.token, lambda request, said: _told(site, request, 500, said)))
    for routes in PAGES:
        app.include_router(routes(site))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name == "story.css":
            return Response(style(), media_type="text/css")
        if name == "plotly.js":
            return Response(plotly(), media_type="text/javascript", headers=YEAR)
        if name not in STATIC:
            raise HTTPException(404, "there is no such file")
        return FileResponse(FILES / name, media_type=STATIC[name])

    @app.exception_handler(StropError)
    async def refused(request: Request, error: StropError) -> Response:
        return _told(site, request, 404 if request.method == "GET" else 400, str(error))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return _told(site, request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        return _told(site, request, 422, said)

    return app


@cache
def plotly() -> bytes:
    """Plotly's own script, which comes with its Python package."""
    script: str = get_plotlyjs()
    return script.encode()


def _told(site: Site, request: Request, status: int, said: str) -> Response:
    """What is wrong, as a page for those who look and as JSON for those who act."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return site.page("problem.html", "Not shown", "", status, problems=said.splitlines())
    return JSONResponse({"detail": said}, status)
