"""Whether this tree predicts and trains as another commit does, bit for bit.

    python -m benchmarks.against COMMIT [what=all] [pairs=FOLDER,...] [limit=N] [steps=20]

Checks COMMIT out beside this tree. ``what=predictions`` matches the pairs of folders in SuperGlue's
format (``pairs_with_gt.txt`` beside ``images/``) with the bundled weights in both trees,
``what=training`` trains ``experiment=smoke`` for a few steps in both, each with one thread on the
CPU. `limit` takes this many pairs of each folder, evenly from its list. The exit code is 0 where
everything is the same, 1 where anything differs.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from conf import plain_options
from eval.benchmarks.folder import read_pairs_with_gt
from matcher.files import sha256_of
from matcher.terminal.program import program
from matcher.validation.checked import invalid

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ("../shared/eval/redkitchen", "../shared/eval/strecha")
WHAT = ("predictions", "training", "all")
DEFAULTS = {"what": "all", "pairs": ",".join(PAIRS), "limit": "0", "steps": "20"}
WEIGHTS = "compact.safetensors"


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The tree of a commit in `folder`, removed at the end.

    Raises:
        UsageError: no such commit.
    """
    added = git("worktree", "add", "--detach", str(folder), commit)
    if added.returncode:
        raise invalid("COMMIT", commit, "a commit of this repository")
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=False, capture_output=True)


def run_in_trees(commands: Mapping[Path, Sequence[str]]) -> None:
    """Run a command of Python in each tree, all at the same time, one thread each.

    Raises:
        RuntimeError: one of them failed; its last lines are the message.
    """
    children = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=tree,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for tree, words in commands.items()
    ]
    outputs = [child.communicate()[0] for child in children]
    for tree, child, output in zip(commands, children, outputs, strict=True):
        if child.returncode:
            raise RuntimeError(
                f"{tree}: exit code {child.returncode}: {output.decode(errors='replace')[-2000:]}"
            )


def same_weights(tree: Path, other: Path) -> bool:
    """Whether both trees bundle the same weights; prints their digests."""
    digests = [sha256_of(next((t / "matcher").rglob(WEIGHTS))) for t in (tree, other)]
    same = digests[0] == digests[1]
    told = digests[0] if same else " and ".join(digests)
    print(f"weights      {'identical' if same else 'DIFFERENT'}: {WEIGHTS} {told}")
    return same


def listed_pairs(folders: Sequence[Path], limit: int) -> list[tuple[str, str]]:
    """Image files of the pairs of `folders`; a folder that is absent is told and left out."""
    paths = []
    for folder in folders:
        if not (folder / "pairs_with_gt.txt").is_file():
            print(f"predictions  {folder} is left out: it has no pairs_with_gt.txt")
            continue
        pairs = read_pairs_with_gt(folder.resolve())
        count = min(limit or len(pairs), len(pairs))
        chosen = np.linspace(0, len(pairs) - 1, count).round().astype(int)
        paths += [(str(pairs[i].image0), str(pairs[i].image1)) for i in chosen]
    return paths


def same_predictions(tree: Path, other: Path, pairs: Sequence[tuple[str, str]], work: Path) -> bool:
    """Whether both trees find the same matches in all pairs; prints what differs."""
    (work / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    program, listed = str(Path(__file__).with_name("predict_pairs.py")), str(work / "pairs.json")
    folders = {tree: work / "ours", other: work / "theirs"}
    for folder in folders.values():
        folder.mkdir()
    run_in_trees({t: ["-P", program, listed, str(folder)] for t, folder in folders.items()})
    differing, counts, largest, total = 0, 0, {}, 0
    for index in range(len(pairs)):
        ours, theirs = (read_arrays(f / f"{index:06d}.npz") for f in folders.values())
        total += len(ours["scores"])
        if all(same_bits(ours[name], theirs[name]) for name in ours):
            continue
        differing += 1
        if len(ours["scores"]) != len(theirs["scores"]):
            counts += 1
            continue
        for name in ours:
            change = float(np.abs(ours[name] - theirs[name]).max(initial=0.0))
            largest[name] = max(largest.get(name, 0.0), change)
    if not differing:
        print(f"predictions  identical: {len(pairs)} pairs, {total} matches")
        return True
    changes = "".join(f", {name} by up to {change:.3g}" for name, change in largest.items())
    print(
        f"predictions  DIFFERENT: {differing} of {len(pairs)} pairs, {counts} of them in their "
        f"number of matches{changes}"
    )
    return False


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def same_training(tree: Path, other: Path, steps: int, work: Path) -> bool:
    """Whether both trees log the same numbers in every step; prints the first that differs."""
    folders = {tree: work / "our_run", other: work / "their_run"}
    words = (
        "train.py", "experiment=smoke", f"trainer.max_steps={steps}", "trainer.log_every=1",
        "trainer.accelerator=cpu", "trainer.threads=1", "trainer.progress=false",
        # Channels last, PyTorch 2.13 on one thread of the CPU corrupts its heap in the backward of
        # this model's convolution of 8 channels with stride 2 and a kernel of 1.
        "trainer.channels_last=false",
    )  # fmt: skip
    run_in_trees({t: [*words, f"folder={folder}"] for t, folder in folders.items()})
    ours, theirs = (logged_values(folder) for folder in folders.values())
    names = [name for name in ours[0] if name.startswith("train/") and name in theirs[0]]
    if "train/loss" not in names or min(len(ours), len(theirs)) < steps:
        raise RuntimeError(f"the runs log {sorted(ours[0])} and {sorted(theirs[0])}")
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1):
        changed = [f"{name} {a[name]} and {b[name]}" for name in names if a[name] != b[name]]
        if changed:
            print(f"training     DIFFERENT from step {step} on: {', '.join(changed)}")
            return False
    print(f"training     identical: {steps} steps, {', '.join(names)}")
    return True


def logged_values(folder: Path) -> list[dict[str, str]]:
    """Lines of the log of a run that belong to a step of training, as they are written."""
    (path,) = (folder / "logs").glob("*/metrics.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return [line for line in csv.DictReader(file) if line["train/loss"]]


def compare(commit: str, options: Mapping[str, str]) -> bool:
    """Whether this tree and `commit` do the same.

    Raises:
        UsageError: an option that cannot work.
    """
    if options["what"] not in WHAT:
        raise invalid("what", options["what"], f"one of {', '.join(WHAT)}")
    folders = [ROOT / folder for folder in options["pairs"].split(",") if folder]
    pairs = listed_pairs(folders, int(options["limit"])) if options["what"] != "training" else []
    with (
        tempfile.TemporaryDirectory() as folder,
        checked_out(commit, Path(folder) / "tree") as other,
    ):
        same = [same_weights(ROOT, other)]
        if pairs:
            same.append(same_predictions(ROOT, other, pairs, Path(folder)))
        if options["what"] != "predictions":
            same.append(same_training(ROOT, other, int(options["steps"]), Path(folder)))
    return all(same)


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    if not words or "=" in words[0]:
        raise invalid("COMMIT", words[0] if words else None, "a commit, as in against HEAD~1")
    return 0 if compare(words[0], plain_options(words[1:], DEFAULTS)) else 1


if __name__ == "__main__":
    sys.exit(main())
