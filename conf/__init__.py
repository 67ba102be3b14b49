"""Configuration from `conf/` and the command line, as plain values.

The options are the fields of dataclasses; the YAML files hold what differs from their defaults.
Hydra composes and does nothing else: no object is built from a configuration, no folder is made,
no logging is set up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from matcher.errors import Code, UsageError
from matcher.validation.checked import annotations_of, invalid, nearest_option
from matcher.validation.words import is_text, key_values

CONF = Path(__file__).resolve().parent
DATACLASSES = {
    "train": {"": "matcher.training.config:RunConfig", "data": "data.config:DataConfig"},
    "train_stereo": {
        "": "matcher.tasks.stereo.training:StereoRunConfig",
        "data": "data.stereo:StereoDataConfig",
    },
    "train_detection": {
        "": "matcher.tasks.detection.training:DetectionRunConfig",
        "data": "data.detection:DetectionDataConfig",
    },
    "train_classification": {
        "": "matcher.tasks.classification.training:ClassificationRunConfig",
        "data": "data.classification:ClassificationDataConfig",
    },
    "eval": {"": "eval.options:EvalOptions"},
}
"""What each file of options is composed over, as ``<name>_defaults``, and under which key. By name:
these rooms compose too."""
TASKS = {
    "matcher": "train",
    "stereo": "train_stereo",
    "detection": "train_detection",
    "classification": "train_classification",
}
"""The file of options of each task that train.py knows."""
REFUSED = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def compose(config_name: str, overrides: Sequence[str] = (), folder: Path = CONF) -> dict[str, Any]:
    """The configuration `config_name` with `overrides` applied, resolved.

    Args:
        config_name: file in `folder`, such as ``train``.
        overrides: ``key=value`` words in Hydra's grammar, also as ``--key value``; an option that
            is text, such as a path, takes what follows the first ``=`` as it is.
        folder: of the YAML files.

    Raises:
        UsageError: an unknown key or group (with the nearest valid one), a word that cannot be
            read, a key that would call code, or a value that cannot be resolved.
    """
    words = [_checked(word) for word in key_values(overrides)]
    kinds = DATACLASSES.get(config_name, {})
    texts = {name for key, kind in kinds.items() for name in _texts(resolve_name(kind), key)}
    given = [word.partition("=") for word in words]
    GlobalHydra.instance().clear()
    if config_name in DATACLASSES:
        ConfigStore.instance().store(f"{config_name}_defaults", _defaults_of(config_name))
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            others = ["".join(parts) for parts in given if parts[0] not in texts]
            config = hydra_compose(config_name, overrides=others)
        for name, _, text in given:
            if name in texts:
                OmegaConf.update(config, name, None if text == "null" else text)
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        # Hydra lets the last two escape on words such as ``@x=1``.
        raise _usage_error(error, config_name, words, folder) from error
    if not isinstance(values, dict):
        raise UsageError(Code.UNUSABLE_WORD, config_name, "is not a group of options")
    _refuse_calls(values)
    for key, name in kinds.items():
        _drop_unset(values[key] if key else values, resolve_name(name))
    return {str(key): value for key, value in values.items()}


def compose_run(words: Sequence[str]) -> dict[str, Any]:
    """The configuration of a training: the words of train.py over the file of its task.

    Raises:
        UsageError: no such task (E201), or as `compose`.
    """
    words = key_values(words)
    others = [word for word in words if not word.startswith("task=")]
    task = next((w.partition("=")[2] for w in reversed(words) if w.startswith("task=")), "matcher")
    if task not in TASKS:
        known = f"expected one of {', '.join(TASKS)}"
        raise UsageError(Code.INVALID_VALUE, "task", f"got {task!r}", known)
    return compose(TASKS[task], others)


def _texts(kind: Any, group: str) -> Iterator[str]:
    """The dotted names of the options of a dataclass that are text, below a group or none."""
    for name, annotation in annotations_of(kind).items():
        dotted = f"{group}.{name}" if group else name
        if is_dataclass(annotation):
            yield from _texts(annotation, dotted)
        elif is_text(annotation):
            yield dotted


def _defaults_of(config_name: str) -> dict[str, Any]:
    """Defaults of the dataclasses of a file of options, as one tree of plain values."""
    tree: dict[str, Any] = {}
    for key, name in DATACLASSES[config_name].items():
        defaults = _defaults(resolve_name(name))
        tree.update({key: defaults} if key else defaults)
    return tree


def _defaults(kind: Any) -> dict[str, Any]:
    kinds = get_type_hints(kind)
    tree: dict[str, Any] = {}
    for each in fields(kind):
        if is_dataclass(kinds[each.name]):
            tree[each.name] = _defaults(kinds[each.name])
        elif each.default_factory is not MISSING:
            # A mapping: values would be merged with its own, and not take its place.
            tree[each.name] = None
        elif each.default is not MISSING:
            tree[each.name] = _listed(each.default)
    return tree


def _drop_unset(values: dict[str, Any], kind: Any) -> None:
    """Remove the mappings that nobody has set, so that their dataclass fills them."""
    kinds = get_type_hints(kind)
    for each in fields(kind):
        if is_dataclass(kinds[each.name]) and isinstance(values.get(each.name), dict):
            _drop_unset(values[each.name], kinds[each.name])
        elif each.default_factory is not MISSING and values.get(each.name, ...) is None:
            del values[each.name]


def _listed(value: Any) -> Any:
    """Tuples as the lists of YAML."""
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _checked(word: str) -> str:
    key, equals, _ = word.partition("=")
    if not equals and not word.startswith("~"):
        raise UsageError(Code.REFUSED_WORD, word, "is not an option", "write key=value")
    if re.split(r"[.@/:]", key.lstrip("+~@/:"))[0] == "hydra":
        raise UsageError(Code.REFUSED_WORD, word, "Hydra's own options cannot be changed")
    if "${" in word:
        raise UsageError(
            Code.UNSAFE_VALUE, key, "interpolations are refused here", "write the value itself"
        )
    return word


def _usage_error(
    error: Exception, config_name: str, words: Sequence[str], folder: Path
) -> UsageError:
    """A one-line error that names the offending word and the nearest valid key."""
    what = (str(error).strip() or "cannot be composed").splitlines()[0]
    groups = {p.name for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else set()
    for word in reversed(words):  # The last of two for an option is the one that counts.
        key, _, value = word.partition("=")
        key = key.lstrip("+~")
        if key in groups:
            options = sorted(p.stem for p in (folder / key).glob("*.yaml"))
            if value not in options:
                return UsageError(
                    Code.UNUSABLE_WORD, word, f"no such {key}", _nearest(value, options)
                )
        elif key in what or (value and value in what):
            return UsageError(
                Code.UNKNOWN_OPTION,
                word,
                "unknown option or value",
                _nearest(key, _keys(config_name, folder)),
            )
    return UsageError(Code.UNUSABLE_WORD, config_name, what)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = nearest_option(name, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(known)[:12])}"


def _keys(config_name: str, folder: Path) -> list[str]:
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            values = OmegaConf.to_container(hydra_compose(config_name))
    except (HydraException, OmegaConfBaseException):
        return []
    groups = [p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "_"]
    return [*groups, *_dotted(values)]


def _dotted(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield f"{path}{key}"
            yield from _dotted(value, f"{path}{key}.")


def _refuse_calls(values: Any, path: str = "") -> None:
    if isinstance(values, dict):
        for key, value in values.items():
            if key in REFUSED:
                raise UsageError(
                    Code.UNSAFE_VALUE,
                    f"{path}{key}",
                    "configurations cannot call code",
                    "remove it",
                )
            _refuse_calls(value, f"{path}{key}.")
    elif isinstance(values, list):
        for i, value in enumerate(values):
            _refuse_calls(value, f"{path}{i}.")


FORMS = (
    "[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*",
    "[0-9]{1,9}",
    "[1-9][0-9]{0,5}x[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}x[1-9][0-9]{0,5})*",
)
"""Of values of `plain_options`: numbers above 0, a number, sizes."""


def plain_options(words: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """`defaults` with ``key=value`` words applied, for programs without a configuration.

    A number or size by default stays one, a list of them a list.

    Raises:
        UsageError: a key that `defaults` lacks (E202), or a value of another form (E201).
    """
    options = dict(defaults)
    for word in key_values(words):
        key, _, value = word.partition("=")
        if key not in options:
            raise UsageError(
                Code.UNKNOWN_OPTION, word, "unknown option", f"known: {', '.join(options)}"
            )
        form = next((form for form in FORMS if re.fullmatch(form, defaults[key])), ".*")
        if not re.fullmatch(form, value, re.DOTALL):
            raise invalid(key, value, f"such as {defaults[key]}")
        options[key] = value
    return options
