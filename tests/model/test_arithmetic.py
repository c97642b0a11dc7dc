"""What a processor computes and what it only emulates: measured, said, and kept by a run."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RecipeError
from strop.model import arithmetic
from strop.model.arithmetic import Speeds, cpu_speeds, emulates_bfloat16
from strop.model.load import load_policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.muon import Float32Muon, orthogonalised
from strop.train.loop.optim import build_optimizer
from strop.train.preflight import refuse
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from tests.support.runs import break_off, metrics, same, weights

EMULATES, COMPUTES = Speeds(float32=125.0, bfloat16=26.0), Speeds(float32=125.0, bfloat16=240.0)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

Plant = Callable[[Speeds], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Another processor."""

    def planted(speeds: Speeds) -> None:
        for module in (arithmetic, refuse):
            monkeypatch.setattr(module, "cpu_speeds", lambda: speeds)

    return planted


class TestMeasured:
    @pytest.mark.parametrize(
        ("speeds", "emulates"),
        [(EMULATES, True), (COMPUTES, False), (Speeds(42.9, 2.4), True), (Speeds(100, 95), False)],
    )
    def test_what_is_emulated(self, speeds: Speeds, emulates: bool, plant: Plant) -> None:
        plant(speeds)
        assert emulates_bfloat16("cpu") is emulates
        assert emulates_bfloat16("cuda") is False, "a GPU is not judged by the processor beside it"

    def test_is_measured_once_and_leaves_the_threads_alone(self) -> None:
        threads = torch.get_num_threads()
        arithmetic.cpu_speeds.cache_clear()
        found = cpu_speeds()
        assert found is cpu_speeds()
        assert torch.get_num_threads() == threads
        assert found.bfloat16 > 1
        assert 1 < found.float32 < 10_000

    @pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86")
    def test_without_the_instructions_it_is_emulated(self) -> None:
        """A processor with no more than AVX2, as torch takes this one to be."""
        said = "from strop.model.arithmetic import cpu_speeds as s; print(s().emulates_bfloat16)"
        done = subprocess.run(
            [sys.executable, "-c", said], capture_output=True, text=True, timeout=120, check=True,
            env={"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        )  # fmt: skip
        assert done.stdout.strip() == "True"


class TestMuon:
    @pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
    def test_moves_singular_values_as_its_polynomial_says(self, shape: tuple[int, int]) -> None:
        """Against the singular value decomposition in float64."""
        torch.manual_seed(0)
        matrix = torch.randn(shape, dtype=torch.float64)
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        s = s / s.norm()
        a, b, c = COEFFICIENTS
        for _ in range(5):
            s = a * s + b * s**3 + c * s**5
        expected = u @ torch.diag(s) @ vt
        found = orthogonalised(matrix.float(), COEFFICIENTS, 5, 1e-7)
        assert torch.allclose(found.double(), expected, atol=1e-4)
        assert (s > 0.5).all()
        assert (s < 1.3).all()

    def test_several_updates_are_torchs_but_for_rounding(self) -> None:
        """Momentum, look-ahead, decay and scale are the same; only the products are finer."""
        torch.manual_seed(0)
        start, gradients = torch.randn(12, 20), torch.randn(4, 12, 20)
        ended, moved = [], []
        for kind in (torch.optim.Muon, Float32Muon):
            parameter = torch.nn.Parameter(start.clone())
            optimizer = kind([parameter], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
            for gradient in gradients:
                parameter.grad = gradient.clone()
                optimizer.step()
            ended.append(optimizer.state_dict()["state"][0]["momentum_buffer"])
            moved.append(parameter.detach() - start)
        assert torch.equal(*ended)
        apart = (moved[0] - moved[1]).norm() / moved[0].norm()
        assert 0 < apart < 0.02, "bfloat16 has 8 bits"

    def test_a_parameter_without_a_gradient_stays(self) -> None:
        parameter = torch.nn.Parameter(torch.ones(3, 3))
        Float32Muon([parameter], lr=0.1).step()
        assert torch.equal(parameter, torch.ones(3, 3))

    @pytest.mark.parametrize("muon", ["float32", "bfloat16"])
    def test_the_optimizer_has_the_precision_it_is_told(
        self, muon: arithmetic.Precision, model_folder: Path
    ) -> None:
        policy = load_policy(ModelRecipe(path=str(model_folder)))
        recipe = OptimRecipe(learning_rate=1e-3, optimizer="muon")
        _, member = build_optimizer(policy, recipe, muon=muon).members
        assert isinstance(member, Float32Muon) == (muon == "float32")


class TestRuns:
    muon = ("optim.optimizer=muon", "optim.learning_rate=3e-3", "eval=null")

    def check(self, run: Path) -> str:
        found: str = json.loads((run / "lineage.json").read_text())["self_check"]["muon"]
        return found

    @pytest.mark.parametrize(("speeds", "muon"), [(EMULATES, "float32"), (COMPUTES, "bfloat16")])
    def test_the_precision_is_measured_and_kept_on_another_processor(
        self, speeds: Speeds, muon: str, recipes: dict[str, Path], plant: Plant
    ) -> None:
        """Killed here and resumed there, the run ends with the bits of one that stayed."""

        plant(speeds)
        whole = train(load_recipe(recipes["sft"], [*self.muon, "output=runs/whole"]))
        recipe = load_recipe(recipes["sft"], [*self.muon, "output=runs/parts"])
        break_off(recipe, 3)
        plant(COMPUTES if speeds is EMULATES else EMULATES)
        parts = train(recipe, resume=True)
        assert same(weights(whole), weights(parts))
        assert metrics(whole.parent) == metrics(parts.parent)
        assert self.check(whole.parent) == self.check(parts.parent) == muon
        again = train(recipe, overwrite=True)
        assert self.check(again.parent) != muon, "a run that begins anew measures anew"

    def test_a_run_from_before_it_was_measured_stays_in_bfloat16(
        self, recipes: dict[str, Path], plant: Plant
    ) -> None:
        plant(COMPUTES)
        recipe = load_recipe(recipes["sft"], self.muon)
        run = train(recipe).parent
        lineage = json.loads((run / "lineage.json").read_text())
        del lineage["self_check"]["muon"]
        (run / "lineage.json").write_text(json.dumps(lineage))
        plant(EMULATES)
        found = prepare(recipe, resume=True, overwrite=False, force=False)
        assert found.muon == "bfloat16"

    def test_other_optimizers_say_nothing_of_it(self, recipes: dict[str, Path]) -> None:
        prepared = prepare(load_recipe(recipes["sft"]), resume=False, overwrite=False, force=False)
        assert "muon" not in prepared.checks

    def test_bfloat16_is_refused_where_it_is_emulated(
        self, recipes: dict[str, Path], plant: Plant
    ) -> None:
        recipe = load_recipe(recipes["sft"], ["model.dtype=bfloat16"])
        plant(EMULATES)
        told = r"only emulates: 26 GFLOP/s in bfloat16, 125 in float32 \(measured\)\n.*--force"
        with pytest.raises(RecipeError, match=told):
            prepare(recipe, resume=False, overwrite=False, force=False)
        assert prepare(recipe, resume=False, overwrite=False, force=True).total_steps == 6
        plant(COMPUTES)
        assert prepare(recipe, resume=False, overwrite=False, force=False).total_steps == 6


@pytest.mark.parametrize(("speeds", "said"), [(EMULATES, "emulates: Muon"), (COMPUTES, "computes")])
def test_the_doctor_says_it(speeds: Speeds, said: str, plant: Plant) -> None:
    plant(speeds)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(done.output.splitlines()[-1])
    assert found["cpu_bfloat16"].startswith(said)
    assert (found["cpu_float32_gflops"], found["cpu_bfloat16_gflops"]) == (
        speeds.float32,
        speeds.bfloat16,
    )
