"""Whether models can be blended: the same architecture, the same weights by name and shape, the
same tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.data.json_text import parsed
from strop.errors import ModelError
from strop.files import read_text, sha256_of
from strop.model.blend.tensors import Tensors
from strop.model.load import SAVED, load_config, load_tokenizer

FREE = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "bos_token_id",
    "eos_token_id", "pad_token_id", "attention_dropout", "initializer_range",
    "_attn_implementation", "_commit_hash",
}  # fmt: skip
"""Keys of a config that change no shape and no forward at inference."""

TEXTS = (
    "Solve 3x + 7 = 22. First subtract 7: 3x = 15, so x = 5.\n<answer>5</answer>",
    'def mean(values):\n    return sum(values) / len(values)  # 0.5, -1e-3, "none"',
    "The train was late again, so we bought two cups of tea; nobody seemed to be in a hurry!",
    "Zażółć gęślą jaźń, über Straße, Привет мир, 你好世界, 東京 2026, naïve café 🙂",
)
"""Texts on which tokenizers, and a merged model and its adapter, are compared. Written for this."""


def config_of(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder."""
    path = folder / "config.json"
    found = parsed(read_text(path, ModelError), str(path), fix=SAVED)
    if not isinstance(found, dict):
        raise ModelError("holds no object", where=str(path), fix=SAVED)
    return found


def expect_plain(folder: Path) -> None:
    """Raise `ModelError` for weights that are stored quantised: their numbers cannot be added."""
    if config_of(folder).get("quantization_config"):
        raise ModelError(
            "the weights are stored quantised, and cannot be blended as they are",
            where=str(folder),
            fix="give the model before it was quantised",
        )


def expect_alike(folders: Sequence[Path], names: Sequence[str]) -> None:
    """Raise `ModelError` unless all models are built like the first one: config, names and shapes
    of the weights."""
    first, told = Tensors(folders[0]), _settings(folders[0])
    for folder, name in zip(folders[1:], names[1:], strict=True):
        other = _settings(folder)
        differ = sorted(
            key for key in told.keys() | other.keys() if told.get(key) != other.get(key)
        )
        if differ:
            values = f"{told.get(differ[0])!r} and {other.get(differ[0])!r}"
            raise ModelError(
                f"is built differently from {names[0]}: {differ[0]} is {values} there and here",
                where=name,
                fix="blend models that were trained from one and the same model",
            )
        _expect_weights_alike(first, Tensors(folder), names[0], name)


def _expect_weights_alike(first: Tensors, other: Tensors, one: str, name: str) -> None:
    only = sorted(first.places.keys() ^ other.places.keys())
    if only:
        holder = one if only[0] in first else name
        raise ModelError(
            f"has other weights than {one}: only {holder} has {only[0]}",
            where=name,
            fix="blend models that were trained from one and the same model, with the same "
            "embeddings and head (tied or not)",
        )
    for key, place in first.places.items():
        if place.shape != other.places[key].shape:
            raise ModelError(
                f"{key} is {list(other.places[key].shape)}, and {list(place.shape)} in {one}",
                where=name,
                fix="blend models that were trained from one and the same model",
            )


def expect_one_tokenizer(folders: Sequence[Path], names: Sequence[str]) -> bool:
    """Raise `ModelError` unless all tokenizers give every text the same tokens. Returns whether
    their chat templates are the same, too."""
    if len({_hash(folder) for folder in folders}) == 1:
        return True
    tokenizers = [load_tokenizer(str(folder)) for folder in folders]
    first = tokenizers[0]
    for tokenizer, name in zip(tokenizers[1:], names[1:], strict=True):
        if tokenizer.get_vocab() != first.get_vocab():
            problem = "has another vocabulary"
        elif any(tokenizer(text)["input_ids"] != first(text)["input_ids"] for text in TEXTS):
            problem = "splits texts into other tokens"
        else:
            continue
        raise ModelError(f"its tokenizer {problem} than that of {names[0]}", where=name,
                         fix="blend models that share one tokenizer")  # fmt: skip
    return len({str(tokenizer.chat_template) for tokenizer in tokenizers}) == 1


def _hash(folder: Path) -> tuple[str, ...]:
    """Of all files that make a tokenizer and its template."""
    kinds = ("tokenizer*", "chat_template*", "vocab*", "merges.txt", "special_tokens_map.json")
    files = sorted(file for kind in kinds for file in folder.glob(kind) if file.is_file())
    return tuple(f"{file.name} {sha256_of(file)}" for file in files)


def _settings(folder: Path) -> dict[str, Any]:
    """All that a config says and that counts, also what older versions of transformers wrote under
    another name or left out."""
    return dict(_flat(load_config(str(folder)).to_dict()))


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """`("text_config.hidden_size", 64)` of every key that counts."""
    for key, value in config.items():
        if key in FREE:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
