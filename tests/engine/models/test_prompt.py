"""Prompts: the RL model's chat template, rendered once, special tokens once, and the ids kept."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from engine.core import Problem, Task
from engine.errors import ModelError
from engine.models.pair_info import TINY_PAIR
from engine.models.prompt import render_prompts, token_texts

WORDS = ["<s>", "</s>", "<user>", "<model>", "what", "is", "6", "7", "?", "*"]
TEMPLATE = (
    "{{ bos_token }}<user> {{ messages[0].content }}{% if add_generation_prompt %} <model>{%"
    " endif %}"
)


def task(*questions: str, template: str = "{question}") -> Task:
    return Task("t", tuple(Problem(str(i), q, "") for i, q in enumerate(questions)), template, 1, 8)


def tokenizer(template: str | None) -> Any:
    """A real word-level tokenizer that, as Llama's does, puts its BOS before every text it
    encodes.
    """
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", name_or_path="RL"
    )
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<model>"]})
    made.chat_template = template
    return made


def words_of(ids: list[int]) -> str:
    return " ".join(WORDS[i] for i in ids)


def test_a_prompt_is_the_user_turn_in_the_template_with_the_models_turn_opened() -> None:
    (prompt,) = render_prompts(tokenizer(TEMPLATE), task("6 * 7", template="what is {question} ?"))
    assert words_of(prompt) == "<s> <user> what is 6 * 7 ? <model>"


def test_a_tokenizer_that_adds_bos_by_itself_adds_it_once() -> None:
    made = tokenizer(TEMPLATE)
    assert made("6").input_ids.count(0) == 1  # it does add one to plain text
    assert render_prompts(made, task("6"))[0].count(0) == 1


def test_prompts_come_in_the_order_of_the_problems_as_plain_ints() -> None:
    prompts = render_prompts(tokenizer(TEMPLATE), task("6", "7", "6"))
    assert [words_of(prompt).split()[2] for prompt in prompts] == ["6", "7", "6"]
    assert {type(i) for prompt in prompts for i in prompt} == {int}


def test_braces_and_template_words_in_a_question_stay_as_they_are() -> None:
    made = tokenizer("{{ messages[0].content }}")
    (prompt,) = render_prompts(made, task("{{ what }} {question} 7", template="is {question}"))
    assert words_of(prompt) == "is ? what ? ? 7"


def test_a_tokenizer_without_a_template_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ModelError, match=r"--rl RL has no chat template: put the chat_template\.jinja"
    ):
        render_prompts(tokenizer(None), task("6"))


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('needs a system turn') }}", "{% if %}", "{{ a.b.c }}"]
)
def test_a_template_that_cannot_be_rendered_is_refused_in_one_line(template: str) -> None:
    with pytest.raises(
        ModelError, match="--rl RL has a chat template that cannot be rendered"
    ) as error:
        render_prompts(tokenizer(template), task("6"))
    assert "\n" not in str(error.value)


def test_a_template_that_renders_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="to no tokens"):
        render_prompts(tokenizer("{# nothing #}"), task("6"))


def test_the_embedded_pairs_prompt_decodes_to_its_question() -> None:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(TINY_PAIR / "rl")
    (prompt,) = render_prompts(made, task("12 + 30 - 4"))
    assert "12 + 30 - 4" in made.decode(prompt)
    assert made.eos_token_id not in prompt


def test_every_token_id_has_its_text_special_ones_too() -> None:
    assert token_texts(tokenizer(TEMPLATE), len(WORDS)) == WORDS


def test_a_sentencepiece_token_keeps_the_space_before_it() -> None:
    from tokenizers import decoders
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({"?": 0, "\N{LOWER ONE EIGHTH BLOCK}so": 1, "so": 2}, unk_token="?")
    )
    words.decoder = decoders.Metaspace()
    assert token_texts(PreTrainedTokenizerFast(tokenizer_object=words), 3) == ["?", " so", "so"]
