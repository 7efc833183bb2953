"""Trainings of the embedded task, run for real at a very small size: resumed, killed, stopped,
diverged.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from engine.errors import ConfigError, ModelError, StoreError
from engine.system.signals import Stopped
from evaluators.shifts.evolution import step_of
from recipes.corpus import CAREFUL
from recipes.health import TrainingError
from recipes.model import load_tokenizer
from recipes.pretrain import PRETRAINING
from recipes.progress import Metrics, draw_metrics
from recipes.rl_config import PRESETS
from recipes.rlvr import RLVR
from recipes.sft import sft
from recipes.stages import SHIPPED_BASE, train_pair
from recipes.supervised import Supervised, SupervisedConfig, learning_rate_share
from recipes.train import commands
from recipes.training import train
from tests.support.paths import ROOT
from tests.support.tiny_training import TINY, Interrupted, rl_stage, saving

TINY_SFT = SupervisedConfig(
    num_steps=6, learning_rate=1e-3, style=CAREFUL, batch_size=4, num_warmup_steps=1
)


class Poisoned(RLVR):
    """An RL stage whose model breaks in step 3."""

    def step(self, number: int) -> Metrics:
        row = super().step(number)
        return row | {"gradient_norm": float("nan")} if number == 3 else row


def sft_stage() -> Supervised:
    return sft(SHIPPED_BASE, load_tokenizer(SHIPPED_BASE), TINY_SFT, seed=0)


def weights(out: Path, step: int = 4) -> str:
    """A digest of them."""
    return sha256((out / f"checkpoint-{step}" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the commands train: sums of two threads have other last bits."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("left-alone")
    train(rl_stage(), saving(out))
    return out


def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, left_alone: Path
) -> None:
    code = (
        "from tests.support.tiny_training import train_until_killed;"
        f"train_until_killed({str(tmp_path)!r})"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "checkpoint-4").exists()
    train(rl_stage(), saving(tmp_path))
    assert weights(tmp_path) == weights(left_alone)


def test_ctrl_c_ends_after_the_step_with_its_state_saved(tmp_path: Path, left_alone: Path) -> None:
    with pytest.raises(Stopped, match="stopped after step 4; the same command goes on from there"):
        train(rl_stage(Interrupted, replace(TINY, num_steps=5)), saving(tmp_path))
    stage = rl_stage(config=replace(TINY, num_steps=5))
    train(stage, saving(tmp_path))
    assert weights(tmp_path) == weights(left_alone)
    assert pq.read_table(tmp_path / "metrics.parquet")["step"].to_pylist() == [1, 2, 3, 4, 5]


def test_an_interrupted_sft_reads_on_where_it_was(tmp_path: Path) -> None:
    train(sft_stage(), saving(tmp_path / "whole"))
    interrupted = sft_stage()
    interrupted.num_steps = 3
    train(interrupted, saving(tmp_path / "parts"))
    train(sft_stage(), saving(tmp_path / "parts"))
    assert weights(tmp_path / "whole", 6) == weights(tmp_path / "parts", 6)


def test_another_configuration_is_refused_in_one_line(left_alone: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        train(rl_stage(config=replace(TINY, clip_high=0.2), seed=1), saving(left_alone))
    assert "clip_high was 0.28 and is 0.2, seed was 0 and is 1; give another --out" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)


def test_a_damaged_state_is_named(tmp_path: Path, left_alone: Path) -> None:
    whole = (left_alone / "state.safetensors").read_bytes()
    for damaged in (b"", whole[:1000], whole[:-1]):
        (tmp_path / "state.safetensors").write_bytes(damaged)
        with pytest.raises(StoreError, match=r"state\.safetensors cannot be read"):
            train(rl_stage(), saving(tmp_path))


def test_what_is_not_finite_stops_the_training_and_keeps_the_last_checkpoint(
    tmp_path: Path, left_alone: Path
) -> None:
    with pytest.raises(TrainingError, match="stopped at step 3: gradient_norm is nan"):
        train(rl_stage(Poisoned), saving(tmp_path))
    assert weights(tmp_path, 2) == weights(left_alone, 2)
    assert not (tmp_path / "checkpoint-4").exists()


def test_a_collapsed_entropy_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"step 1: entropy is 0\.\d+ nats a token, below min_entropy 0\.5"
    ):
        train(rl_stage(config=replace(TINY, min_entropy=0.5)), saving(tmp_path))


def test_a_learning_rate_that_is_absurd_ends_in_an_error_and_not_in_a_model(tmp_path: Path) -> None:
    config = replace(TINY, learning_rate=1e30, num_prompts=8, num_steps=3)
    with pytest.raises(TrainingError, match=r"stopped at step \d: (loss|gradient_norm|entropy) is"):
        train(rl_stage(config=config), saving(tmp_path))


def test_checkpoints_are_models_whose_step_a_report_reads_from_their_name(left_alone: Path) -> None:
    folders = sorted(left_alone.glob("checkpoint-*"))
    assert [step_of({"models": {"rl": str(folder)}}) for folder in folders] == [2, 4]
    assert (
        load_file(folders[0] / "model.safetensors").keys()
        == load_file(SHIPPED_BASE / "model.safetensors").keys()
    )
    assert not list(left_alone.glob(".*"))


def test_every_step_is_measured_and_every_column_explained(left_alone: Path) -> None:
    table = pq.read_table(left_alone / "metrics.parquet")
    assert table.num_rows == 4
    assert all(field.metadata[b"meaning"] for field in table.schema)
    assert table["entropy"].to_pylist()[0] > 0.05
    draw_metrics(left_alone)
    assert (left_alone / "metrics.png").stat().st_size > 1000


def test_without_weighting_weights_are_exactly_one_and_with_it_they_leave_it() -> None:
    config = replace(TINY, num_prompts=4, num_minibatches=4, learning_rate=1e-3)
    plain, low, high = (
        rl_stage(config=replace(config, alpha=alpha)).step(1) for alpha in (0.0, -1e4, 1e4)
    )
    assert plain["weight_min"] == plain["weight_max"] == 1
    assert 0.85 <= (low["weight_min"] or 0) < 0.9 and low["weight_max"] == 1
    assert 1.1 < (high["weight_max"] or 0) <= 1.1501 and high["weight_min"] == 1


def test_the_first_optimiser_step_after_a_rollout_has_not_moved_anything() -> None:
    row = rl_stage(config=replace(TINY, num_minibatches=1)).step(1)
    assert (row["k3"] or 0) < 1e-9
    assert row["clipped"] == 0


def test_dynamic_sampling_fills_the_batch_with_informative_groups_or_ends_after_its_rounds() -> (
    None
):
    full = rl_stage(config=replace(TINY, group_size=2, max_rounds=50)).step(1)
    assert 1 < (full["rounds"] or 0) < 50
    hopeless = rl_stage(config=replace(TINY, num_prompts=8, group_size=2, max_rounds=2)).step(1)
    assert hopeless["rounds"] == 2


def test_the_presets_differ_in_what_they_are_named_for() -> None:
    dapo, grpo = PRESETS["dapo"], PRESETS["grpo"]
    assert replace(dapo, max_rounds=1, clip_high=0.2, kl_coefficient=1e-4) == grpo
    assert (dapo.clip_low, dapo.clip_high, dapo.kl_coefficient) == (0.2, 0.28, 0)


def test_grpo_measures_how_far_it_is_from_the_base() -> None:
    config = replace(PRESETS["grpo"], num_prompts=4, num_minibatches=2)
    stage = rl_stage(config=config)
    rows = [stage.step(number) for number in (1, 2)]
    assert all(row["kl_base"] is not None and row["kl_base"] > 0 for row in rows)


def test_the_learning_rate_warms_up_and_decays_fully() -> None:
    config = PRETRAINING
    assert learning_rate_share(config.num_warmup_steps, config) == 1
    assert learning_rate_share(0, config) == pytest.approx(1 / config.num_warmup_steps)
    assert learning_rate_share(config.num_steps, config) == pytest.approx(config.final_share)


def test_one_seed_trains_one_pair_and_another_seed_another(tmp_path: Path) -> None:
    base = replace(PRETRAINING, num_steps=2, batch_size=4, num_warmup_steps=1)
    rl = replace(PRESETS["shipped"], num_steps=1, num_prompts=2, group_size=2)
    found = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train_pair(tmp_path / name, base, rl, seed)
        found[name] = (tmp_path / name / "rl" / "model.safetensors").read_bytes()
    assert found["first"] == found["again"] != found["other"]


# The command line


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """The command settles threads and determinism for its process."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("torch_as_it_was")
def test_a_command_ends_in_checkpoints_a_table_and_a_figure(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        commands, ["sft", "--steps", "2", "--checkpoint-every", "1", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert [line.split()[:2] for line in done.output.splitlines()] == [["step", "1"], ["step", "2"]]
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {
        "checkpoint-1", "checkpoint-2", "state.safetensors", "metrics.parquet", "metrics.png",
        "metrics.svg",
    }  # fmt: skip


@pytest.mark.usefixtures("torch_as_it_was")
def test_a_folder_that_is_no_model_is_said_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        commands, ["rl", "--base", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == ModelError.exit_code
    assert done.output.count("\n") == 1
    assert "it has no config.json; give engine/tiny_pair/base" in done.output


@pytest.mark.usefixtures("torch_as_it_was")
def test_an_option_that_makes_no_sense_is_said_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["rl", "--minibatches", "0", "--out", str(tmp_path)])
    assert done.exit_code == ConfigError.exit_code
    assert done.output.count("\n") == 1
    assert "num_minibatches is 0: give at least 1" in done.output
