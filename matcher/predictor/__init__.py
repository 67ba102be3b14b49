"""The main way in: two images of any kind and size to matches in their original pixels."""

from matcher.predictor.load import load_matcher, locate
from matcher.predictor.predictor import Predictor

__all__ = ["Predictor", "load_matcher", "locate"]
