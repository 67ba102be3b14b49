"""Counting the files that a program enters."""

from benchmarks.walk import CallRecorder, moves_between
from matcher.geometry.pixels import resize_scale
from matcher.validation.checked import nearest_option


def test_calls_of_the_product_are_recorded_and_no_others():
    recorder = CallRecorder()
    recorder.start()
    sorted([2, 1], key=lambda value: value)
    resize_scale((4, 4), (2, 2))
    nearest_option("conf", ["threshold"])
    recorder.stop()
    resize_scale((4, 4), (2, 2))
    assert recorder.files[0] == "matcher/geometry/pixels.py"
    assert set(recorder.files[1:]) == {"matcher/validation/checked.py"}


def test_a_move_is_a_call_into_another_file():
    assert moves_between(["a", "a", "b", "a", "a"]) == [("a", "b"), ("b", "a")]
