"""Scores structured output: the completion has to be one JSON value that a schema accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs

from strop.text.parse import spoken
from strop.text.tools import without_twins
from strop.types import Text

_FORMAT_NAMES = (
    "date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname",
    "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template",
    "json-pointer", "relative-json-pointer", "regex",
)  # fmt: skip
FORMATS = {
    name: jsonschema_rs.validator_for({"format": name}, validate_formats=True).is_valid
    for name in _FORMAT_NAMES
}
"""The formats of draft 2020-12, which older drafts know in part."""


class NoJsonError(ValueError):
    """A text is not one unambiguous JSON value."""


def json_schema(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    schema: Sequence[Any],
    **columns: object,
) -> list[float | None]:
    """1.0 where the whole completion, bare or in one fence, is JSON that its `schema` accepts.

    A schema is an object or its JSON text (drafts 4 to 2020-12). Every `format` of draft 2020-12 is
    asserted, whatever draft the schema names: "2022-02-31" is no date. Ambiguous JSON scores 0.0:
    text around the value (except thoughts in `<think>`), a key given twice, NaN and infinity, a
    number that no float can hold, half a surrogate pair. `None` if the schema itself is broken.
    Nothing is fetched: a schema that refers to another document is broken.
    """
    scores: list[float | None] = []
    for completion, wanted in zip(completions, schema, strict=True):
        validator = _validator(_json_text(wanted))
        scores.append(None if validator is None else float(_accepts(validator, spoken(completion))))
    return scores


def read_json(text: str) -> Any:
    """The JSON value that a text is, bare or in one fence. Raises `NoJsonError`."""
    bare = unfenced(text)
    try:
        value = json.loads(
            bare, object_pairs_hook=without_twins, parse_constant=_refused, parse_float=_finite
        )
        if "\\u" in bare:  # half a surrogate pair is no text
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise NoJsonError(str(error)) from None


def unfenced(text: str) -> str:
    """The content of a text that is one fence; other text unchanged."""
    bare = text.strip()
    opening, line, rest = bare.partition("\n")
    if not line or opening.rstrip().lower() not in ("```", "```json") or not rest.endswith("```"):
        return text
    return rest[:-3]


def _json_text(schema: Any) -> str:
    """A schema as JSON text; invalid text for a broken schema."""
    try:
        return schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ""


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """A compiled schema; `None` for a broken one."""
    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), FORMATS, validate_formats=True, retriever=_refused
        )
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError):
        return None


def _accepts(validator: Any, text: str) -> bool:
    try:
        return bool(validator.is_valid(read_json(text)))
    except (NoJsonError, ValueError):
        return False


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refused(digits)


def _refused(what: str) -> Any:
    raise ValueError(f"{what} is refused")
