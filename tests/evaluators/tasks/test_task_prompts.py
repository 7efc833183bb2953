"""Prompts to the letter, and template files of the user's own."""

from pathlib import Path
from typing import get_args

import pytest

from engine.config.run_config import PromptName
from engine.errors import ConfigError
from evaluators.tasks.prompts import PROMPTS, read_template, strip_prompt


def template(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    return file


def test_every_prompt_name_has_a_prompt_with_one_place_for_the_question() -> None:
    assert PROMPTS.keys() == set(get_args(PromptName))
    assert all(prompt.count("{question}") == 1 for prompt in PROMPTS.values())


def test_the_prompts_of_others_are_quoted_to_the_letter() -> None:
    assert PROMPTS["plain"] == "{question}"
    assert (
        PROMPTS["boxed"]
        == "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    assert (
        PROMPTS["dapo"]
        == "Solve the following math problem step by step. The last line of your response should be"
        " of the form Answer: $Answer (without quotes) where $Answer is the answer to the"
        ' problem.\n\n{question}\n\nRemember to put your answer on its own line after "Answer:".'
    )
    assert (
        PROMPTS["gpqa"]
        == "Answer the following multiple choice question. The last line of your response should be"
        " of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of"
        " ABCD. Think step by step before answering.\n\n{question}"
    )


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_a_prompt_that_a_data_set_brings_along_is_taken_off(name: PromptName) -> None:
    question = "What is {x}?\n\nAs a fraction."
    assert strip_prompt(PROMPTS[name].replace("{question}", question)) == question


@pytest.mark.parametrize(
    "text", ["", "What is 1+1?", PROMPTS["dapo"].split("{question}")[0].strip()]
)
def test_any_other_text_is_left_as_it_is(text: str) -> None:
    assert strip_prompt(text) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"Q: {question}", "Q: {question}"),
        (b"Q: {question}\n", "Q: {question}"),
        (b"Q: {question}\n\n", "Q: {question}\n"),
        (b"\xef\xbb\xbfQ:\r\n{question}\r\n", "Q:\n{question}"),
        ("Überlege: {question} {x} {}".encode(), "Überlege: {question} {x} {}"),
    ],
)
def test_a_template_is_read_as_it_stands_less_one_final_newline(
    tmp_path: Path, content: bytes, text: str
) -> None:
    assert read_template(template(tmp_path, content)) == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds {question} 0 times: it must stand there once"),
        (b"no place", "0 times"),
        (b"{question} {question}", "2 times"),
        (b"{ question }", "0 times"),
        (b"\xff{question}", "is not UTF-8 text"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = template(tmp_path, content)
    with pytest.raises(ConfigError) as error:
        read_template(file)
    assert str(error.value).startswith(f"prompt_template {file} ") and reason in str(error.value)


@pytest.mark.parametrize("name", ["nothing.txt", ".", "a\0b", "~nobody-of-that-name/x", "x" * 300])
def test_a_template_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    path = Path(name) if name.startswith("~") else tmp_path / name
    with pytest.raises(ConfigError, match="cannot be read: "):
        read_template(path)


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template(tmp_path, b"{question}!")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_template(Path("~/mine.txt")) == "{question}!"
