"""Counting the files that a program enters."""

from benchmarks.walk import CallRecorder, moves_between
from matcher.config import MatcherConfig
from matcher.geometry.pixels import resize_scale
from matcher.validation.checked import config_to_dict


def test_calls_of_the_product_are_recorded_and_no_others():
    config = MatcherConfig()
    recorder = CallRecorder()
    recorder.start()
    sorted([2, 1], key=lambda value: value)
    resize_scale((4, 4), (2, 2))
    config_to_dict(config)
    recorder.stop()
    resize_scale((4, 4), (2, 2))
    assert recorder.files[0] == "matcher/geometry/pixels.py"
    assert set(recorder.files[1:]) == {"matcher/validation/checked.py"}


def test_a_move_is_a_call_into_another_file():
    assert moves_between(["a", "a", "b", "a", "a"]) == [("a", "b"), ("b", "a")]
