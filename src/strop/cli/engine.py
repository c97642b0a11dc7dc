"""`strop engine serve`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Serve models to runs, evals and judges.", no_args_is_help=True)


@app.callback()
def verbs() -> None:
    """Serve models to runs, evals and judges."""


@app.command("serve")
def serve(
    model: Annotated[str, typer.Argument(help="A model folder or hub name.")],
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8000,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 answers other machines, too, without asking who they are.")
    ] = "127.0.0.1",
    routes: Annotated[
        bool,
        typer.Option(
            "--enable-return-routed-experts",
            help="Answers say which experts their tokens went to, for rollout.routing_replay.",
        ),
    ] = False,
) -> None:
    """Serve a model with the embedded engine, over vLLM's protocol and OpenAI's completions.

    A recipe samples from it with rollout.engine: {kind: vllm, url: http://127.0.0.1:8000}.

    Example: strop engine serve runs/sft/final --port 8000
    """
    from strop.cli.show import setup
    from strop.engines.server.serve import serve_engine

    setup()
    serve_engine(
        model,
        host,
        port,
        lambda address: print(f"serving {model} at {address}", flush=True),
        routes=routes,
    )
