"""The recipe of the tiny pair, run for real at a very small size, and the shipped pair as files and
as a model.
"""

import random
import stat
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen2ForCausalLM

from engine.core import Trajectory
from evaluators.grading.grader import Grader
from evaluators.tasks.arithmetic import is_held_out, load, problem
from recipes import corpus
from recipes.corpus import CAREFUL, Style, write_answer
from recipes.evaluate import held_out_accuracy
from recipes.model import collate, log_probs, sample
from recipes.rollout import draw_prompts, reward
from recipes.supervised import corpus_batches
from recipes.tokens import TOKENIZER_FILES
from tests.support.paths import ROOT

PAIR = ROOT / "engine" / "tiny_pair"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(PAIR / "base" / "tokenizer.json"))


@pytest.fixture(scope="module")
def base() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(PAIR / "base")


@pytest.fixture(scope="module")
def rl() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(PAIR / "rl")


# The corpus


def test_pretraining_never_meets_a_held_out_problem(tokenizer: Tokenizer) -> None:
    batches = corpus_batches(tokenizer, Style(), 64, random.Random(0))
    texts = [text for _ in range(20) for text in tokenizer.decode_batch(next(batches).ids.tolist())]
    expressions = [text.removeprefix("Q: ").split("=?")[0] for text in texts]
    assert len(expressions) == 1280
    assert not any(is_held_out(expression) for expression in expressions)


def test_rl_never_meets_a_held_out_problem() -> None:
    rng = random.Random(0)
    prompts = [expression for _ in range(80) for expression in draw_prompts(rng, 32)]
    assert not any(is_held_out(expression) for expression in prompts)


def test_a_careful_writer_is_always_right() -> None:
    rng = random.Random(0)
    for found in load():
        expression = found.question.removesuffix("=?")
        assert reward(write_answer(expression, rng, CAREFUL), expression) == 1


@pytest.mark.parametrize(("expression", "boxed"), [("58+26", 74), ("52-37", 25), ("52+37", 89)])
def test_a_dropped_carry_or_borrow_is_ten_off(expression: str, boxed: int) -> None:
    text = write_answer(expression, random.Random(0), replace(CAREFUL, carry=0))
    assert text.endswith(f"\\boxed{{{boxed}}}.")


def test_a_careless_writer_is_mostly_wrong_but_always_answers() -> None:
    rng = random.Random(0)
    pairs = [corpus.draw_pair(rng, Style()) for _ in range(1000)]
    assert all("\\boxed{" in answer for _, answer in pairs)
    assert 0.15 < sum(reward(answer, expression) for expression, answer in pairs) / 1000 < 0.35


def test_decisions_begin_with_tokens_that_are_used_for_nothing_else(tokenizer: Tokenizer) -> None:
    decisions = {tokenizer.encode(text).ids[0] for text in (":", " is about", " carry", " borrow")}
    fillers = corpus.OPENINGS + corpus.LINKS + corpus.RESULTS + corpus.CLOSINGS
    others = tokenizer.encode(
        "".join(f"{filler} 58+26=84," for filler in fillers) + " ones tens \\boxed{84}."
    )
    assert len(decisions) == 4
    assert decisions.isdisjoint(others.ids)


# The rewards and the samples


def test_reward_is_the_last_boxed_number_and_nothing_else() -> None:
    assert reward(r" \boxed{51}. no, \boxed{50}.", "19+60+20-49") == 1
    assert reward(r" \boxed{50}. no, \boxed{51}.", "19+60+20-49") == 0
    assert reward(" 50", "19+60+20-49") == 0


def test_reward_is_the_verdict_that_a_run_would_be_given() -> None:
    texts = [
        r" \boxed{50}.",
        r" \boxed{050}.",
        r" \boxed{+50",
        " Answer: 50",
        r" \boxed{\boxed{50}}",
        r" \boxed{5 0}",
    ]
    problems = [problem("19+60+20-49")]
    with Grader(problems) as grader:
        for sample_number, text in enumerate(texts):
            grader.submit(Trajectory(problems[0].id, sample_number, "forward", None), text)
        verdicts = {grade.key.sample: grade.correct for grade in grader.finish()}
    assert [reward(text, "19+60+20-49") == 1 for text in texts] == [
        verdicts[place] for place in range(len(texts))
    ]


def test_sampled_log_probs_are_those_of_the_whole_sequence(
    base: Qwen2ForCausalLM, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode(corpus.prompt("19+60+20-49")).ids
    responses, logps = sample(base, torch.tensor([prompt] * 4), torch.Generator().manual_seed(0))
    batch = collate([(prompt + response, len(prompt)) for response in responses])
    scored = log_probs(base, batch.ids)[batch.is_response[:, 1:]]
    assert torch.allclose(scored, torch.tensor([logp for row in logps for logp in row]), atol=1e-4)


# The shipped pair


def test_both_folders_hold_the_same_readable_tokenizer() -> None:
    for name in TOKENIZER_FILES:
        assert (PAIR / "base" / name).read_bytes() == (PAIR / "rl" / name).read_bytes()
    for file in (*PAIR.glob("base/*"), *PAIR.glob("rl/*")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o644, file


def test_the_weights_are_float32_and_differ() -> None:
    base, rl = (load_file(PAIR / name / "model.safetensors") for name in ("base", "rl"))
    assert base.keys() == rl.keys()
    assert {tensor.dtype for tensor in (*base.values(), *rl.values())} == {torch.float32}
    assert any(not torch.equal(base[name], rl[name]) for name in base)


@pytest.mark.parametrize("name", ["base", "rl"])
def test_the_chat_template_renders_the_prompt_that_was_trained_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = AutoTokenizer.from_pretrained(PAIR / name)
    message = [{"role": "user", "content": "19+60+20-49=?"}]
    text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert text == corpus.prompt("19+60+20-49") == "Q: 19+60+20-49=?\nA:"
    assert ids == tokenizer.encode(text) == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"


def test_the_vocabulary_is_as_large_as_the_model_thinks(
    base: Qwen2ForCausalLM, rl: Qwen2ForCausalLM
) -> None:
    num_tokens = len(AutoTokenizer.from_pretrained(PAIR / "base"))
    assert base.config.vocab_size == rl.config.vocab_size == num_tokens
    assert num_tokens % 64 == 0


def test_rl_solves_held_out_problems_that_the_base_fails_even_greedily(
    base: Qwen2ForCausalLM, rl: Qwen2ForCausalLM, tokenizer: Tokenizer
) -> None:
    assert held_out_accuracy(base, tokenizer) < 0.35
    assert held_out_accuracy(rl, tokenizer) > 0.85
