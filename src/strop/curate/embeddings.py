"""Static embeddings of texts: a model2vec model from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.errors import ModelError, UsageError


def static_model(folder: Path, extra: str) -> Any:
    """The model2vec model of a local folder; nothing is downloaded.

    Raises `UsageError` where the library is missing (`extra` brings it), and `ModelError` where the
    folder holds no such model.
    """
    try:
        from model2vec import StaticModel
    except ImportError:
        raise UsageError("static embeddings need model2vec, which is not installed",
                         fix=f"pip install 'strop[{extra}]'") from None  # fmt: skip
    if not (folder / "model.safetensors").is_file() or not (folder / "tokenizer.json").is_file():
        raise ModelError(
            "no model2vec model: a folder with model.safetensors, tokenizer.json and config.json",
            where=str(folder),
            fix="give the folder of a static model, as model2vec's save_pretrained writes it",
        )
    try:
        return StaticModel.from_pretrained(folder, force_download=False)
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"the model cannot be loaded: {error}",
            where=str(folder),
            fix="save it again with model2vec's save_pretrained",
        ) from None
