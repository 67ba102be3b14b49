"""Bad options of match.py: exit code 2 and one line that names the option, before torch loads."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

import match
from conf import compose
from matcher.errors import UsageError
from matcher.options import MatchOptions
from matcher.validation.words import options_from_words

ROOT = Path(__file__).resolve().parents[2]
DEMO = [str(ROOT / "assets" / f"demo{i}.jpg") for i in (0, 1)]

# What is typed, and what the message must hold: the option and the nearest valid one or value.
BAD = [
    # unknown names
    ("treshold=0.3", "treshold", "'threshold'"),
    ("Threshold=0.3", "Threshold", "'threshold'"),
    ("thresh=0.3", "thresh", "'threshold'"),
    ("maxside=640", "maxside", "'max_side'"),
    ("max-side=640", "max-side", "'max_side'"),
    ("topk=5", "topk", "'top_k'"),
    ("out=a.h5", "out", "'output'"),
    ("outputs=a.h5", "outputs", "'output'"),
    ("weight=compact", "weight", "'weights'"),
    ("wieghts=compact", "wieghts", "'weights'"),
    ("geometrie=none", "geometrie", "'geometry'"),
    ("devise=cpu", "devise", "'device'"),
    ("mask=a.png", "mask", "'mask"),
    ("ransac=1", "ransac", "'ransac_threshold'"),
    ("K2=[1,1,0,0]", "K2", "'K"),
    ("model.coarse.threshold=0.3", "model.coarse.threshold", "'threshold'"),
    ("threshold.low=0.3", "threshold.low", "'threshold'"),
    # names that Hydra would act on
    ("+threshold=0.3", "+threshold", "'threshold'"),
    ("++threshold=0.3", "++threshold", "'threshold'"),
    ("~threshold=0.3", "~threshold", "'threshold'"),
    ("+new=1", "+new", "known: device"),
    ("model=outdoor", "model", "known: device"),
    ("experiment=outdoor", "experiment", "known: device"),
    ("model@other=outdoor", "model@other", "known: device"),
    ("hydra.run.dir=/tmp", "hydra.run.dir", "unknown option"),
    ("hydra/job_logging=none", "hydra/job_logging", "unknown option"),
    # no key=value
    ("threshold", "threshold", "key=value"),
    ("~threshold", "~threshold", "key=value"),
    ("--threshold", "--threshold", "key=value"),
    ("--multirun", "--multirun", "key=value"),
    ("third.jpg", "third.jpg", "key=value"),
    # values that are no plain value
    ("threshold=[0.3", "threshold", "number from 0.0 to 1.0"),
    ("threshold=0.1,0.2", "threshold", "number from 0.0 to 1.0"),
    ("threshold=choice(0.1,0.2)", "threshold", "number from 0.0 to 1.0"),
    ("K={a: 1", "K", "[fx,fy,cx,cy]"),
    ("threshold=${max_side}", "threshold", "number from 0.0 to 1.0"),
    ("device=${oc.env:HOME}", "device", "cpu, cuda"),
    # wrong types
    ("threshold=high", "threshold", "number from 0.0 to 1.0"),
    ("threshold=true", "threshold", "number from 0.0 to 1.0"),
    ("threshold=[0.3]", "threshold", "number from 0.0 to 1.0"),
    ("max_side=640.5", "max_side", "integer of at least 1"),
    ("top_k=many", "top_k", "integer of at least 1"),
    ("lines=null", "lines", "integer of at least 1"),
    ("offline=1", "offline", "true or false"),
    ("apply_exif=maybe", "apply_exif", "true or false"),
    ("allow_truncated=null", "allow_truncated", "true or false"),
    ("geometry=null", "geometry", "one of none, homography"),
    ("weights=null", "weights", "a name"),
    ("device=3", "device", "cpu, cuda"),
    ("K=520", "K", "[fx,fy,cx,cy]"),
    ("K=[a,b,c,d]", "K", "[fx,fy,cx,cy]"),
    # out of range
    ("threshold=nan", "threshold", "number from 0.0 to 1.0"),
    ("threshold=inf", "threshold", "number from 0.0 to 1.0"),
    ("threshold=1.01", "threshold", "number from 0.0 to 1.0"),
    ("threshold=-0.1", "threshold", "number from 0.0 to 1.0"),
    ("max_side=0", "max_side", "integer of at least 1"),
    ("top_k=0", "top_k", "integer of at least 1"),
    ("top_k=-3", "top_k", "integer of at least 1"),
    ("lines=-1", "lines", "integer of at least 1"),
    ("ransac_threshold=0", "ransac_threshold", "number from 0.001"),
    ("ransac_threshold=nan", "ransac_threshold", "number from 0.001"),
    ("K=[520,520,320]", "K", "[fx,fy,cx,cy]"),
    ("K=[-520,520,320,240]", "K", "[fx,fy,cx,cy]"),
    ("K=[520,nan,320,240]", "K", "[fx,fy,cx,cy]"),
    ("K=[520,0,320,0,520,240,0,0,2]", "K", "[fx,fy,cx,cy]"),
    ("K=[520,50,320,0,520,240,0,0,1]", "K", "no skew"),
    ("max_pixels=0", "max_pixels", "integer of at least 1"),
    ("nodata=nan", "nodata", "finite number"),
    ("bands=0", "bands", "one band or three"),
    ("bands=[1,2]", "bands", "one band or three"),
    ("rotate=[1,4]", "rotate", "quarter turns from 1 to 3"),
    ("rotate=sometimes", "rotate", "auto, off or a list"),
    # values outside a closed set
    ("geometry=homografy", "geometry", "'homography'"),
    ("estimator=magsack", "estimator", "'magsac'"),
    ("style=overlaid", "style", "'overlay'"),
    ("device=gpu", "device", "cpu, cuda"),
    ("output=matches.txt", "output", ".h5"),
    ("output=matches", "output", ".h5"),
    ("picture=matches.gif", "picture", ".png"),
    # contradictions
    ("geometry=essential", "K", "geometry=essential"),
    ("style=warp", "style", "geometry=homography"),
    ("style=epipolar geometry=homography", "style", "geometry=fundamental or essential or pose"),
    ("K=[1,1,0,0] K0=[1,1,0,0]", "K", "either K"),
    ("K0=[1,1,0,0] geometry=essential", "K", "geometry=essential"),
    ("K=[1,1,0,0]", "geometry", "essential or pose with K="),
    ("K=[1,1,0,0] cameras=exif geometry=pose", "cameras", "none beside K"),
    ("K1=[1,1,0,0] geometry=homography output=a.csv", "geometry", "essential or pose with K="),
    ("output=one.png picture=one.png", "output", ".h5"),
]

GADGETS = [
    "weights._target_=os.system",
    "+weights._target_=os.system",
    "threshold={_target_: os.system, command: touch pwned}",
    "threshold={_target_:os.system,_args_:['touch pwned']}",
    "K={_target_: builtins.open, file: pwned, mode: w}",
    "K=[{_target_: os.mkdir, path: pwned}]",
    "K=[1,1,0,{_target_: subprocess.run}]",
    "+gadget={_target_: subprocess.Popen, args: 'touch pwned', shell: true}",
    "++gadget._target_=pathlib.Path.touch",
    "~weights={_target_: os.system}",
    "device={_target_: torch.hub.load}",
    "device={_target_: torch.load, f: pwned}",
    "device={_target_: numpy.load, allow_pickle: true}",
    "device={_target_: shutil.copy, src: README.md, dst: pwned}",
    "lines={_target_: builtins.eval, _args_: ['1']}",
    "lines={_partial_: true, _target_: builtins.exec}",
    "threshold=${oc.env:HOME}",
    "threshold=${oc.create:{_target_: os.system}}",
    "threshold=${oc.decode:pwned}",
    "device=${oc.deprecated:weights}",
    "device=${now:%Y}",
    "device=${hydra:runtime.cwd}",
    "top_k=${python_version:}",
    "hydra/job_logging=custom",
    "hydra.job_logging={version: 1, handlers: {x: {class: logging.FileHandler, filename: pwned}}}",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.searchpath=[file:///tmp]",
    "+hydra/launcher=joblib",
    "hydra.sweeper._target_=os.system",
    "hydra.output_subdir=pwned",
    "--config-dir=/tmp",
    "!!python/object/apply:os.system=['touch pwned']",
    "device=!!python/object/apply:os.system ['touch pwned']",
]


@pytest.fixture
def errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> object:
    """Runs match.py in an empty folder; a call that goes as far as matching fails the test."""

    def matching(*arguments: object) -> None:
        pytest.fail(f"went on to match {arguments}")

    monkeypatch.setattr("matcher.pair.match_pair", matching)
    monkeypatch.chdir(tmp_path)

    def run(words: list[str]) -> tuple[int, str]:
        code = match.main([*DEMO, *words])
        assert list(tmp_path.iterdir()) == []
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(("typed", "subject", "hint"), BAD, ids=[b[0] for b in BAD])
def test_bad_options_exit_2_naming_the_option(errors, typed: str, subject: str, hint: str) -> None:
    code, message = errors(typed.split(" ") if "=" in typed.partition(" ")[2] else [typed])
    assert code == 2
    assert message.startswith("E2")
    assert message.count("\n") == 1
    assert message.partition(" ")[2].startswith(f"{subject}: ")
    assert hint in message


def test_a_bad_option_is_refused_in_a_moment(errors) -> None:
    """Processor time of all of them, which other programs do not stretch."""
    started = time.process_time()
    for typed, _, _ in BAD:
        errors([typed])
    assert time.process_time() - started < 3


HOOKS: list = []
sys.addaudithook(lambda event, args: [hook(event, args) for hook in HOOKS] and None)


@pytest.fixture
def side_effects():
    """Names of events that starting, writing or connecting somewhere would raise."""
    seen: list[str] = []
    watched = (
        "os.system",
        "subprocess.Popen",
        "os.exec",
        "os.mkdir",
        "socket.connect",
        "os.remove",
    )

    def hook(event: str, args: tuple) -> None:
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event in watched or writes:
            seen.append(f"{event} {args[:2]}")

    HOOKS.append(hook)
    yield seen
    HOOKS.clear()


@pytest.mark.parametrize("gadget", GADGETS)
def test_gadgets_run_nothing(errors, side_effects: list[str], gadget: str) -> None:
    code, message = errors([gadget])
    assert side_effects == []
    assert code == 2
    assert message.startswith("E2")


def test_the_watch_for_side_effects_works(side_effects: list[str], tmp_path: Path) -> None:
    (tmp_path / "pwned").write_text("")
    assert any("pwned" in event for event in side_effects)


TRAINED = {
    "weights": "data.workers", "threshold": "optim.lr", "K": "optim.milestones",
    "device": "trainer.devices", "lines": "seed", "top_k": "trainer.keep",
}  # fmt: skip
"""Options of train.py that take the place of those of match.py; what is text takes any."""
COMPOSED = re.compile(r"\b(weights|threshold|K|device|lines|top_k)\b(?==|\.)")


@pytest.mark.parametrize(
    "gadget", [g for g in GADGETS if "_target_" in g or "hydra" in g or "${" in g]
)
def test_the_composer_refuses_what_could_run(side_effects: list[str], gadget: str) -> None:
    """train.py and eval hand their overrides to `compose` as they are."""
    with pytest.raises(UsageError):
        compose("train", [COMPOSED.sub(lambda found: TRAINED[found[0]], gadget)])
    assert side_effects == []


@pytest.mark.parametrize("typed", ["treshold=0.3", "threshold=nan", "hydra/job_logging=none"])
def test_the_program_leaves_within_3_seconds(typed: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(
        [sys.executable, str(ROOT / "match.py"), *DEMO, typed],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert out.returncode == 2, out.stderr
    assert out.stdout == ""
    assert out.stderr.startswith("E2")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert list(tmp_path.iterdir()) == []


def test_torch_is_not_imported_before_the_options_are_right(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import match\n"
        "code = match.main(['a.jpg', 'b.jpg', 'threshold=2'])\n"
        "sys.exit(code if 'torch' not in sys.modules else 99)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, cwd=tmp_path
    )
    assert out.returncode == 2, out.stderr


def read(words: list[str]) -> MatchOptions:
    return options_from_words(MatchOptions, words)


def test_without_words_the_defaults_hold() -> None:
    assert read([]) == MatchOptions()


def test_path_options_hold_any_characters() -> None:
    typed = "a (1)=ü, {x: ${y}} 'q' \"r\".h5"
    options = read([f"output={typed}", "picture=null", "mask0=null"])
    assert options.output == typed
    assert options.picture_path is None
    assert options.mask0 is None


def test_the_picture_lies_beside_the_output() -> None:
    assert str(read(["output=a.b/c.csv"]).picture_path) == "a.b/c.png"
    assert read(["output=null"]).picture_path is None


def test_intrinsics_come_as_four_or_nine_numbers() -> None:
    four = read(["geometry=essential", "K=[500,510,320,240]"])
    nine = read(["geometry=essential", "K0=[500,0,320,0,510,240,0,0,1]", "K1=[500,510,320,240]"])
    assert four.intrinsics == nine.intrinsics
    assert four.intrinsics[0] == [[500, 0, 320], [0, 510, 240], [0, 0, 1]]
