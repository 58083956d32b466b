"""What a server's reply says, or that it says nothing."""

import pytest

from spr_plugin.sampling import replies

from . import chat_server as chat
from .chat_server import MALFORMED

SAID = {
    "text": (chat.completion(" a dog \n"), "a dog"),
    "parts": (chat.completion([{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}]), "a dog"),
    "thoughts first": (chat.completion([{"type": "thinking"}, {"type": "text", "text": "a dog"}]), "a dog"),
    "null": (chat.completion(None), ""),
    "refused": (chat.completion(None, refusal="I cannot look at this"), ""),
    "thoughts alone": (chat.completion(None, reasoning_content="a dog?"), ""),
    "no content": ('{"choices": [{"message": {}, "finish_reason": "content_filter"}]}', ""),
    "blank": (chat.completion(" \n\t"), ""),
    "nothing to see": (chat.completion("\u200b\ufeff \u2060"), ""),
    "a thought before": (chat.completion("<think>a dog?\nno</think>\n a cat"), "a cat"),
    "a thought alone": (chat.completion("<think>a dog?</think>\n"), ""),
    "a thought that was cut": (chat.completion("<think>a dog? perhaps"), ""),
    "no parts": (chat.completion([]), ""),
    "half a character": (chat.completion("a \ud83d dog"), "a \ufffd dog"),
}


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_a_reply_that_is_no_completion_says_what_it_is(reply):
    with pytest.raises(replies.Malformed, match="^a "):
        replies.answer_in(reply)
    with pytest.raises(replies.Malformed, match="^a "):
        replies.models_in(reply)


THOUGHT = {
    "in the text": (
        chat.completion(" <think>a dog?\nno</think>\n a cat "),
        "<think>a dog?\nno</think>\n a cat",
    ),
    "apart": (chat.completion("a cat", reasoning_content="a dog?"), "<think>a dog?</think>a cat"),
    "apart, by its newer name": (chat.completion("a cat", reasoning="a dog?"), "<think>a dog?</think>a cat"),
    "none": (chat.completion("a cat", reasoning_content=None), "a cat"),
    "cut": (chat.completion("<think>a dog? perhaps"), "<think>a dog? perhaps"),
    "nothing": (chat.completion(" "), ""),
}


@pytest.mark.parametrize("reply, said", THOUGHT.values(), ids=THOUGHT)
def test_thoughts_belong_to_an_answer_where_a_recipe_asks_for_them(reply, said):
    assert replies.answer_in(reply, thoughts=True) == said


@pytest.mark.parametrize("reply, said", SAID.values(), ids=SAID)
def test_a_reply_is_the_text_that_the_model_said(reply, said):
    assert replies.answer_in(reply) == said
