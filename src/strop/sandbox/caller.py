"""A trusted process that calls one function of untrusted code with plain data.

`python -m strop.sandbox.caller TIER`: `{"code", "function", "args", "limits"}` a line in,
`{"value"}` a line out (null where the code failed).
"""

from __future__ import annotations

import json
import sys
from numbers import Real
from typing import Any

from strop.errors import SandboxError
from strop.sandbox.client import Sandbox
from strop.sandbox.confine.jail import Limits
from strop.sandbox.tiers import start


def call(request: dict[str, Any], sandbox: Sandbox) -> Any:
    """The number that the function returns; `None` where it fails or returns something else."""
    try:
        with sandbox.execute(request["code"], Limits(**request["limits"])) as candidate:
            value = candidate.call(request["function"], request["args"], {})
            return float(value) if isinstance(value, Real) else None
    except SandboxError:
        raise
    except (SystemExit, Exception):  # noqa: BLE001 - the code may raise any built-in error
        return None


def main() -> None:
    with start(sys.argv[1]) as sandbox:  # type: ignore[arg-type]
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps({"value": call(json.loads(line), sandbox)}), flush=True)


if __name__ == "__main__":
    main()
