"""The page on divergence weighting, as it stands: its trainer inside TRL's, on the tiny pair, and
its loss for verl.
"""

from __future__ import annotations

import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from engine.advantage import kl_estimate
from evaluators.grading.extraction import extract
from evaluators.tasks.arithmetic import question, solve
from tests.support.paths import ROOT

BASE = ROOT / "engine" / "tiny_pair" / "base"
TRAINER, EXAMPLE, VERL = re.findall(
    r"```python\n(.*?)```",
    (ROOT / "docs" / "divergence-weighting.md").read_text(encoding="utf-8"),
    re.DOTALL,
)
EXPRESSIONS = ("58+26-31", "19+60-20", "81-25+17", "45+38-60")
ALPHA = 10.0  # where the weights are between none and all of the boost, after two large steps
needs_trl = pytest.mark.skipif(
    find_spec("trl") is None, reason="trl is not installed: pip install trl"
)
pytestmark = [
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


def page(tmp_path: Path, code: str) -> dict[str, Any]:
    """The names that a block of the page defines."""
    file = tmp_path / "page.py"
    file.write_text(code, encoding="utf-8")
    return runpy.run_path(str(file))


def is_right(completions: list[Any], expression: list[str], **_: object) -> list[float]:
    answers = [extract(reply["content"]).answer for (reply,) in completions]
    return [
        float(answer == str(solve(asked)))
        for answer, asked in zip(answers, expression, strict=True)
    ]


def trained(tmp_path: Path, num_steps: int = 2, **weighting: float) -> Any:
    """A trainer after steps on one rollout of 16 responses: TRL's own, or the page's where a
    weighting is given.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = [
        {"prompt": [{"role": "user", "content": question(e)}], "expression": e} for e in EXPRESSIONS
    ]
    args = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=num_steps,
        num_iterations=num_steps,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=100,
        learning_rate=1e-3,
        epsilon_high=0.28,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
    )
    kind = page(tmp_path, TRAINER)["DivergenceWeightedTrainer"] if weighting else GRPOTrainer
    trainer = kind(
        model=str(BASE),
        reward_funcs=is_right,
        args=args,
        train_dataset=Dataset.from_list(rows),
        **weighting,
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trained(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trained(tmp_path_factory.mktemp("weighted"), alpha=ALPHA)


def logged(trainer: Any, name: str) -> list[float]:
    return [step[name] for step in trainer.state.log_history if name in step]


def are_equal(a: Any, b: Any) -> bool:
    return all(map(torch.equal, a.model.state_dict().values(), b.model.state_dict().values()))


# TRL


@needs_trl
def test_a_strength_of_0_trains_trls_own_model_bit_for_bit(stock: Any, tmp_path: Path) -> None:
    unweighted = trained(tmp_path, alpha=ALPHA, strength=0.0)
    assert logged(unweighted, "loss") == logged(stock, "loss")
    assert are_equal(unweighted, stock)


@needs_trl
def test_the_first_step_of_a_rollout_is_trls_own_and_the_second_is_not(
    stock: Any, weighted: Any
) -> None:
    assert logged(weighted, "divergence/kl_99")[0] == pytest.approx(0, abs=1e-9)
    assert logged(weighted, "divergence/kl_99")[1] > 1e-4
    assert logged(weighted, "loss")[0] == pytest.approx(logged(stock, "loss")[0], rel=1e-5)
    assert logged(weighted, "loss")[1] != pytest.approx(logged(stock, "loss")[1], rel=1e-3)
    assert not are_equal(weighted, stock)


def by_hand(weights: Tensor, logp: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """DAPO's loss with weighted advantages: the mean over tokens of the clipped objective."""
    ratio = (logp - batch["old_per_token_logps"]).exp()
    advantage = batch["advantages"][:, None] * weights
    loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
    return loss[batch["completion_mask"].bool()].mean()


def scored(model: Qwen2ForCausalLM, batch: dict[str, Tensor]) -> Tensor:
    """Log-probabilities of the completions' tokens by the model, [B, T], with no part of TRL."""
    ids, mask = (
        torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], 1)
        for name in ("ids", "mask")
    )
    logp = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    of_tokens: Tensor = logp.gather(-1, ids[:, 1:, None])[:, -batch["completion_ids"].shape[1] :, 0]
    return of_tokens


@needs_trl
def test_the_loss_and_its_gradient_are_the_formula_with_constant_weights(weighted: Any) -> None:
    (batch,) = weighted._buffered_inputs  # the rollout, two steps ago
    model = Qwen2ForCausalLM.from_pretrained(BASE)
    model.load_state_dict(weighted.model.state_dict())
    logp = scored(model, batch)
    ratio = (logp - batch["old_per_token_logps"]).double().exp()
    weights = (1 + 0.3 * ((ALPHA * (ratio - 1 - ratio.log())).sigmoid() - 0.5)).float().detach()
    expected = by_hand(weights, logp, batch)
    torch.autograd.backward(expected)

    weighted.model.zero_grad()
    loss = weighted.compute_loss(weighted.model, batch)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.item() != pytest.approx(by_hand(torch.ones(1, 1), logp, batch).item(), rel=1e-3)
    for parameter, reference in zip(weighted.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(parameter.grad, reference.grad, rtol=1e-3, atol=1e-5)


@needs_trl
def test_the_rollouts_own_advantages_stay_as_they_were(weighted: Any) -> None:
    (batch,) = weighted._buffered_inputs
    before = batch["advantages"].clone()
    weighted.compute_loss(weighted.model, batch)
    assert torch.equal(batch["advantages"], before)
    assert before.dim() == 1


@needs_trl
def test_the_pages_example_runs_and_sees_the_policy_move_at_every_second_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = EXAMPLE.replace("max_steps=6", "max_steps=2").replace(
        "batch_size=64", "batch_size=16"
    )
    trainer = page(tmp_path, TRAINER + smaller.replace("length=192", "length=96"))["trainer"]
    still, moved = logged(trainer, "divergence/kl_99")
    assert still < 1e-9 < 1e-5 < moved < 1e-1


# verl: how it calls a policy loss was read in its sources; verl itself is not run


def test_the_loss_for_verl_hands_weighted_advantages_to_the_vanilla_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[str, Any] = {"vanilla": lambda **given: given}
    algorithms: Any = ModuleType("verl.trainer.ppo.core_algos")
    algorithms.register_policy_loss = lambda name: (
        lambda function: losses.setdefault(name, function)
    )
    algorithms.get_policy_loss_fn = losses.__getitem__
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, algorithms.__name__, algorithms)

    alpha = page(tmp_path, VERL)["ALPHA"]
    tensors = {
        "old_log_prob": torch.tensor([[-1.0, -2.0]]),
        "log_prob": torch.tensor([[-1.0, -1.98]]),
    }
    others = {"response_mask": torch.ones(1, 2), "loss_agg_mode": "token-mean", "config": None}
    handed_on = losses["divergence_weighted"](
        **tensors, advantages=torch.tensor([[2.0, 2.0]]), **others
    )
    kl = kl_estimate(tensors["log_prob"], tensors["old_log_prob"])
    assert torch.allclose(
        handed_on.pop("advantages"), 2 * (1 + 0.3 * ((alpha * kl).sigmoid() - 0.5))
    )
    assert handed_on == tensors | others
