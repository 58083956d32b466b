"""What requests ask, which share a window and a batch, and where an answer ends."""

import pytest
from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import asking
from spr_plugin.eval_tasks.asking import LONGEST, Ask, asked, batches, ended, fingerprint, windows


def shown(colour, size=(4, 4), mode="RGB"):
    return Image.new(mode, size, colour)


def of(**given):
    arguments = ("Where?", given, lambda document: [document["picture"]], 3, "t", "test")
    return asked(7, arguments, {"t": {"test": {3: {"picture": "a"}}}})


def test_a_request_is_read():
    ask = of(max_new_tokens=5, until=["\n", "\n\n", ""], temperature=0.0, num_beams=None, do_sample=False)
    assert (ask.index, ask.task, ask.text, ask.max_new_tokens, ask.until) == (7, "t", "Where?", 5, ("\n",))
    assert ask.open() == ["a"]


@pytest.mark.parametrize(
    ("until", "ends"), [(None, ()), ("###", ("###",)), ([], ()), (["a", "b"], ("a", "b"))]
)
def test_what_a_task_does_not_say(until, ends):
    ask = of(until=until)
    assert ask.until == ends and ask.max_new_tokens == LONGEST


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": 0.7}, "temperature 0.7, and answers are greedy: give --gen_kwargs temperature=0"),
        ({"num_beams": 3}, "num_beams 3, and answers are greedy: give --gen_kwargs num_beams=1"),
        ({"temperature": 1, "num_beams": 2}, "give --gen_kwargs temperature=0,num_beams=1"),
    ],
)
def test_what_is_not_greedy_is_refused(given, said):
    with pytest.raises(UserError) as caught:
        of(**given)
    assert str(caught.value).startswith("t asks for ") and said in str(caught.value)


def asks(*rows):
    """Of (text, pictures) or (text, pictures, longest answer)."""
    return [
        Ask(index, "t", text, longest[0] if longest else 9, (), lambda pictures=pictures: pictures)
        for index, (text, pictures, *longest) in enumerate(rows)
    ]


def test_equal_pictures_are_one_in_a_window():
    first, again, other = shown("red"), shown("red"), shown("blue")
    (window,) = windows(asks(("a", [first]), ("b", [again]), ("c", [other, None]), ("d", None)))
    assert [one.ask.text for one in window] == list("abcd")
    assert window[1].pictures[0] is first and window[0].key == window[1].key != window[2].key
    assert window[2].pictures == (other,) and window[3].pictures == window[3].key == ()


def test_answers_as_long_share_a_window():
    rows = [("a", [], 5), ("b", [], 9), ("c", [], 5)]
    assert [[one.ask.text for one in window] for window in windows(asks(*rows))] == [["a", "c"], ["b"]]


def test_a_window_holds_so_many_requests_and_pixels(monkeypatch):
    monkeypatch.setattr(asking, "WINDOW", 3)
    rows = asks(*((str(n), []) for n in range(7)))
    assert [len(window) for window in windows(rows)] == [3, 3, 1]
    monkeypatch.setattr(asking, "WINDOW", 100)
    monkeypatch.setattr(asking, "PIXELS", 32)  # two pictures; the third closes the window
    pictures = [shown(colour) for colour in ("red", "red", "blue", "green", "white")]
    rows = asks(*((str(n), [picture]) for n, picture in enumerate(pictures)))
    assert [len(window) for window in windows(rows)] == [4, 1]


def test_pictures_are_opened_as_windows_are_asked_for(monkeypatch):
    monkeypatch.setattr(asking, "WINDOW", 1)
    opened = []
    rows = [Ask(n, "t", "a", 9, (), lambda n=n: opened.append(n)) for n in range(3)]
    going = windows(rows)
    assert opened == [] and next(going) and opened == [0]


def test_what_is_no_picture_is_refused():
    with pytest.raises(UserError, match="^t shows a str: this model knows pictures alone$"):
        list(windows(asks(("a", ["film.mp4"]))))


def test_a_fingerprint_is_of_all_that_is_seen():
    alike = [shown("red"), shown("red"), shown("red").copy()]
    others = [shown("blue"), shown("red", (2, 8)), shown("red", mode="RGBA"), shown(0, mode="L")]
    assert len(set(map(fingerprint, alike))) == 1
    assert len(set(map(fingerprint, alike + others))) == 1 + len(others)


def test_those_of_a_picture_are_answered_together_and_a_text_alone_beside_no_picture():
    red, blue = shown("red"), shown("blue")
    rows = [("aaaa", [red]), ("b", []), ("c", [blue]), ("d", [red]), ("eee", []), ("ff", [blue])]
    (window,) = windows(asks(*rows))
    found = [[one.ask.text for one in batch] for batch in batches(window, 2)]
    assert found == [["c", "ff"], ["aaaa", "d"], ["b", "eee"]]
    assert [len(batch) for batch in batches(window, 9)] == [4, 2]


@pytest.mark.parametrize(
    ("until", "left"),
    [((), "a. b; c"), ((". ",), "a"), (("; ", ". "), "a"), (("#",), "a. b; c"), (("a",), "")],
)
def test_an_answer_ends_before_the_first_end(until, left):
    assert ended("a. b; c", until) == left
