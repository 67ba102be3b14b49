"""The training step, its optimizer, what is skipped, and what a run leaves behind."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

import train as program
from conf import compose
from data.config import DataConfig
from data.order import PairStream
from matcher.config import MatcherConfig
from matcher.errors import CheckpointError, UsageError
from matcher.structures import ImagePair, PairGeometry
from matcher.training import checkpointing, nonfinite
from matcher.training.callbacks import CheckpointAndExport
from matcher.training.config import OptimConfig, RunConfig
from matcher.training.export import export_weights, load_weights
from matcher.training.loss.total import refinable, training_loss
from matcher.training.module import MatcherModule
from matcher.training.nonfinite import DivergedError, SkippedSteps
from matcher.training.optim import averaged_copy, lr_factor, scaled, update_average
from matcher.training.supervision import supervise
from matcher.training.trainer import accelerator, build_trainer
from matcher.validation.checked import config_from_dict
from tests.helpers.models import COMPACT
from tests.helpers.planes import PlaneData, plane_pair, shuffled


def words(folder: Path, *more: str) -> list[str]:
    return [
        "model=tiny",
        f"folder={folder}",
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        "trainer.progress=false",
        "trainer.log_every=1",
        "optim.warmup=5",
        *more,
    ]


def run(folder: Path, *more: str, data: PlaneData | None = None) -> dict[str, float]:
    return program.train(compose("train", words(folder, *more)), data or PlaneData())


def run_config(folder: Path, *more: str) -> RunConfig:
    values = compose("train", words(folder, *more))
    values.pop("data", None)
    return config_from_dict(RunConfig, values)


class Disturb(Callback):
    """Spoils the gradient of one parameter, or the batch, at some steps."""

    def __init__(self, steps: range, what: str) -> None:
        self.steps, self.what = steps, what
        self.before: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step in self.steps:
            self.before = {k: v.clone() for k, v in module.state_dict().items()}
            if self.what == "batch":
                batch.image0[:, :, 0, 0] = math.nan

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        if trainer.global_step in self.steps and self.what == "gradient":
            next(module.model.parameters()).grad.view(-1)[0] = math.inf


def fit(config: RunConfig, *callbacks: Callback) -> MatcherModule:
    module = MatcherModule(config, pairs_a_step=2)
    build_trainer(config, config.trainer.max_steps, callbacks).fit(module, datamodule=PlaneData())
    return module


def test_a_batch_is_learned_by_heart(tmp_path: Path) -> None:
    data = PlaneData(batch_size=2)
    metrics = run(
        tmp_path, "debug=overfit", "trainer.max_steps=60", "trainer.log_every=60", data=data
    )
    assert metrics["train/accuracy"] > 0.95
    assert metrics["pairs_seen"] == 120


def rendered(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[str]:
    """Names of the first pair of every batch that a run by heart learns from small scenes."""
    small = ("size=[64,96]", "texture_side=64", "procedural=9")
    words_of_data = [f"data.synthetic.{word}" for word in small]
    seen: list[str] = []
    learn = MatcherModule.learn

    def noted(module: MatcherModule, batch: ImagePair) -> torch.Tensor:
        seen.append(batch.names[0][0])
        return learn(module, batch)

    monkeypatch.setattr(MatcherModule, "learn", noted)
    by_heart = words(folder, *words_of_data, "data.batch_size=2", "trainer.overfit=true", *more)
    program.train(compose("train", by_heart))
    monkeypatch.undo()
    return seen


def test_what_is_learned_by_heart_stays_the_same_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no validation tells what nobody has asked for."""
    seen = rendered(tmp_path, monkeypatch, "trainer.max_steps=2")
    again = rendered(tmp_path, monkeypatch, "trainer.max_steps=4", "resume=auto")
    assert seen == again == seen[:1] * 2
    assert "validation" not in (tmp_path / "run.log").read_text()


def test_a_run_leaves_config_logs_checkpoint_and_weights(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=3")
    assert json.loads((tmp_path / "config.json").read_text())["name"] == "compact"
    log = next(tmp_path.glob("logs/*/metrics.csv")).read_text()
    assert "train/accuracy" in log.splitlines()[0]
    assert len(checkpointing.checkpoints(tmp_path)) == 1
    assert (tmp_path / "weights.safetensors").stat().st_size > 10_000


def test_a_resumed_run_continues_the_count_of_pairs(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=3")
    metrics = run(tmp_path, "trainer.max_steps=5", "resume=auto")
    assert (metrics["steps"], metrics["pairs_seen"]) == (5, 10)


def test_exported_weights_start_another_run(tmp_path: Path) -> None:
    run(tmp_path / "a", "trainer.max_steps=3")
    weights = tmp_path / "a" / "weights.safetensors"
    metrics = run(tmp_path / "b", "trainer.max_steps=1", f"init_weights={weights}")
    assert metrics["pairs_seen"] == 8
    config = run_config(tmp_path)
    model = MatcherModule(config, 2).model
    assert load_weights(model, weights) == 6
    export_weights(model, tmp_path / "again.safetensors", 6)
    other = MatcherModule(replace(config, seed=1), 2).model
    load_weights(other, tmp_path / "again.safetensors")
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b) or name.endswith("num_batches_tracked")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    export_weights(MatcherModule(config, 2).model, tmp_path / "w.safetensors", 0)
    transformer = replace(config.model.transformer, heads=4)
    other = replace(config, model=replace(config.model, transformer=transformer))
    with pytest.raises(CheckpointError, match="architecture"):
        load_weights(MatcherModule(other, 2).model, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="E111"):
        load_weights(MatcherModule(other, 2).model, tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_weights(MatcherModule(other, 2).model, tmp_path / "bad.safetensors")


@pytest.mark.parametrize("what", ["batch", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, what: str) -> None:
    config = run_config(tmp_path, "trainer.max_steps=4")
    disturb = Disturb(range(2, 3), what)
    at_end: dict[str, Any] = {}

    class Compare(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                at_end.update({k: v.clone() for k, v in module.state_dict().items()})

    module = fit(config, disturb, Compare())
    assert module.skipped.total == 1
    assert disturb.before
    for key, before in disturb.before.items():
        assert torch.equal(at_end[key], before), key
    assert all(torch.isfinite(v.float()).all() for v in module.state_dict().values())
    assert next(tmp_path.glob("nonfinite_*.pt"))


def test_a_bad_batch_of_several_in_a_step_changes_nothing(tmp_path: Path) -> None:
    """The second batch of the step is fine; its statistics must not hide those of the first."""

    class First(Disturb):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if index % 2 == 0:
                super().on_train_batch_start(trainer, module, batch, index)

    config = run_config(tmp_path, "trainer.max_steps=2", "trainer.accumulate=2")
    disturb = First(range(1, 2), "batch")
    module = fit(config, disturb)
    assert module.skipped.total == 1
    for key, value in module.state_dict().items():
        assert torch.equal(value, disturb.before[key]), key
    pair, _ = saved_step(next(tmp_path.glob("nonfinite_*.pt")))
    assert torch.isnan(pair.image0).any()


def saved_step(path: Path) -> tuple[ImagePair, dict[str, Any]]:
    """The pair of a step that was kept, and what else is there."""
    saved = torch.load(path, weights_only=True)
    values = dict(saved["pair"])
    values["geometry"] = PairGeometry(**values["geometry"])
    return ImagePair(**values), saved


def test_more_than_ten_bad_steps_end_the_run_and_the_last_can_be_replayed(tmp_path: Path) -> None:
    config = run_config(tmp_path, "trainer.max_steps=40")
    with pytest.raises(DivergedError) as caught:
        fit(config, Disturb(range(3, 40), "batch"))
    assert caught.value.exit_code == 2
    files = sorted(tmp_path.glob("nonfinite_*.pt"), key=lambda p: int(p.stem.split("_")[1]))
    assert len(files) == 2
    pair, saved = saved_step(files[-1])
    again = MatcherModule(config_from_dict(RunConfig, saved["config"]), 2)
    again.model.load_state_dict(saved["weights"])
    torch.manual_seed(saved["seed"])
    assert not torch.isfinite(training_loss(again.model, pair, again.config.loss).terms.total)


def test_steps_of_several_batches_are_counted_as_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four steps, nine batches apart."""
    monkeypatch.setattr(nonfinite, "WINDOW", 4)
    monkeypatch.setattr(nonfinite, "ALLOWED", 1)
    config = run_config(tmp_path, "trainer.max_steps=4", "trainer.accumulate=3")
    with pytest.raises(DivergedError):
        fit(config, Disturb(range(0, 4, 3), "gradient"))


def test_one_percent_of_the_steps_may_be_skipped() -> None:
    skipped = SkippedSteps()
    assert not any(skipped.add(step) for step in range(10))
    assert skipped.add(10)
    spread = SkippedSteps()
    assert not any(spread.add(step * 100) for step in range(50))
    assert spread.total == 50
    copy = SkippedSteps()
    copy.restore(json.loads(json.dumps(skipped.state())))
    assert copy.add(11)


def test_pairs_without_a_true_match_are_counted(tmp_path: Path) -> None:
    class Blind(PlaneData):
        def on_after_batch_transfer(self, batch: ImagePair, dataloader_idx: int) -> ImagePair:
            assert batch.geometry is not None
            batch.geometry.depth0[0] = 0
            return batch

    metrics = run(tmp_path, "trainer.max_steps=3", data=Blind(batch_size=2))
    assert metrics["train/unmatched"] == 3
    again = run(tmp_path, "trainer.max_steps=4", "resume=auto", data=Blind(batch_size=2))
    assert again["train/unmatched"] == 4


def test_a_batch_without_true_matches_takes_a_step(tmp_path: Path) -> None:
    module = MatcherModule(run_config(tmp_path), 2)
    pair = plane_pair(0)
    assert pair.geometry is not None
    nothing = replace(pair, geometry=replace(pair.geometry, depth0=torch.zeros(1, 64, 96)))
    terms = training_loss(module.model, nothing, module.config.loss).terms
    terms.total.backward()
    assert terms.total.item() == 0
    gradients = [p.grad for p in module.model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("options", [("loss=focal",), ("loss.level_weight=0.1",)])
def test_every_loss_trains_every_parameter(tmp_path: Path, options: tuple[str, ...]) -> None:
    module = MatcherModule(run_config(tmp_path, *options), 2)
    pair = ImagePair.collate([plane_pair(0), plane_pair(1, shift=8)])
    terms = training_loss(module.model, pair, module.config.loss).terms
    terms.total.backward()
    unused = [n for n, p in module.model.named_parameters() if p.grad is None]
    assert unused == []
    assert (terms.levels > 0) == ("loss.level_weight=0.1" in options)


def test_images_of_different_sizes_train(tmp_path: Path) -> None:
    pair = plane_pair(0, shift=0)
    assert pair.geometry is not None
    geometry = replace(pair.geometry, depth1=pair.geometry.depth1[:, :32])
    pair = replace(pair, image1=pair.image1[:, :, :32], geometry=geometry)
    module = MatcherModule(run_config(tmp_path, "loss.level_weight=0.1"), 2)
    terms = training_loss(module.model, pair, module.config.loss).terms
    assert torch.isfinite(terms.total)
    assert terms.levels > 0


def test_refined_matches_are_capped_and_drawn_from_the_true_ones(tmp_path: Path) -> None:
    model, pair = MatcherModule(run_config(tmp_path), 2).model, plane_pair(0)
    matches, _ = refinable(*supervise(pair, stride=8, reach=6.0))
    images = pair.image0, pair.image1, pair.mask0, pair.mask1
    few = model.forward_training(*images, matches, limit=7).refined
    assert len(few) == len(few.unique()) == 7
    assert few.max() < len(matches.batch)
    everything = model.forward_training(*images, matches, limit=1000).refined
    assert torch.equal(everything, torch.arange(len(matches.batch)))


def test_the_average_follows_weights_and_statistics() -> None:
    model = torch.nn.BatchNorm1d(1)
    average = averaged_copy(model)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(1.0)  # pyright: ignore
        model.num_batches_tracked.fill_(7)  # pyright: ignore
    update_average(average, model, decay=0.5, updates=1000)
    assert average.weight.item() == 2.0  # pyright: ignore
    assert average.running_mean.item() == 0.5  # pyright: ignore
    assert average.num_batches_tracked.item() == 7  # pyright: ignore
    update_average(average, model, decay=0.999, updates=0)
    assert average.weight.item() == pytest.approx(2.9)  # pyright: ignore


def test_published_scaling_of_the_learning_rate() -> None:
    config = scaled(OptimConfig(), pairs_a_step=4)
    assert config.lr == pytest.approx(8e-3 * 4 / 64)
    assert config.warmup == 1875 * 16
    assert scaled(replace(OptimConfig(), canonical_batch=0), 4).lr == 8e-3


def test_schedules() -> None:
    steps = OptimConfig(warmup=10, warmup_start=0.1, milestones=(2, 3))
    assert [lr_factor(steps, s, 100, s / 20) for s in (0, 5, 10, 39, 40, 60)] == pytest.approx(
        [0.1, 0.55, 1, 1, 0.5, 0.25]
    )
    cosine = replace(steps, schedule="cosine")
    assert [lr_factor(cosine, s, 110, 0) for s in (10, 60, 110)] == pytest.approx([1, 0.5, 0])
    trapezoid = replace(steps, schedule="trapezoid", cooldown=0.2)
    assert [lr_factor(trapezoid, s, 100, 0) for s in (79, 90, 100)] == pytest.approx([1, 0.5, 0])
    assert lr_factor(trapezoid, 10**6, math.inf, 0) == 1


def test_the_order_of_pairs_depends_on_seed_and_position_alone() -> None:
    def take(count: int, **options: int) -> list[Any]:
        stream = iter(PairStream(shuffled(5, seed=3), options.pop("batch_size", 2), **options))
        return [key for _ in range(count) for key in next(stream)]

    whole = take(10)
    assert sorted(index for epoch, index in whole if epoch == 0) == [0, 1, 2, 3, 4]
    assert [index for _, index in whole[:5]] != [index for _, index in whole[5:10]]
    assert take(6, start=8) == whole[8:20]
    ranks = [take(5, rank=r, world=2, batch_size=1) for r in (0, 1)]
    assert [k for pair in zip(*ranks, strict=True) for k in pair] == whole[:10]


def test_the_presets_equal_the_dataclasses() -> None:
    for name, expected in (("outdoor", MatcherConfig()), ("compact", COMPACT)):
        values = compose("train", [f"model={name}"])["model"]
        assert config_from_dict(MatcherConfig, values) == expected
    indoor = config_from_dict(MatcherConfig, compose("train", ["model=indoor"])["model"])
    assert indoor.transformer.topks == (32, 16, 16)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.max_step=3", "trainer.max_steps"),
        ("model=compakt", "compact"),
        ("optim.lr=-1", "optim.lr"),
        ("optim.lr=nan", "optim.lr"),
        ("loss.coarse=foccal", "focal"),
        ("+model.transformer.head=3", "heads"),
        ("+x._target_=os.system", "call code"),
        ("hydra.run.dir=/tmp", "Hydra"),
        ("optim.schedule=cosin", "cosine"),
        ("resume=/nowhere/x.ckpt", "no such checkpoint"),
        ("init_weights=/nowhere/x.safetensors", "/nowhere/x.safetensors"),
        ("trainer.threads=${oc.env:HOME}", "interpolations"),
        ("justaword", "key=value"),
        ("seed=-1", "E201 seed"),
        ("seed=x", "E201 seed"),
        ("trainer.figures=2", "E201 trainer.figures"),
        ("trainer={overfit: true, accumulate: 2}", "E201 trainer.accumulate"),
        ("trainer.pose_pairs=folder", "E201 trainer.pose_pairs"),
    ],
)
def test_a_bad_option_is_named_in_one_line(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(words(tmp_path, word)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("E")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "gpus", "found"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("gpu", 2, "cuda"), ("cpu", 2, "cpu")],
)
def test_training_takes_cuda_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = run_config(tmp_path, f"trainer.accelerator={asked}")
    assert accelerator(config.trainer) == found


def test_gpus_that_are_not_there_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert program.main(words(tmp_path, "trainer.accelerator=gpu", "trainer.max_steps=1")) == 2
    error = capsys.readouterr().err
    assert error.startswith("E201 trainer.accelerator: 1 GPUs are asked for, this machine has 0")
    assert error.count("\n") == 1


def test_batch_statistics_over_processes_are_for_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    one = run_config(tmp_path, "trainer.sync_batchnorm=true").trainer
    assert accelerator(one) == "cpu"
    with pytest.raises(UsageError, match=r"E201 trainer\.sync_batchnorm: .*false where CPUs"):
        accelerator(replace(one, devices=2))


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--help"]) == 0
    assert "experiment=compact" in capsys.readouterr().out


def test_every_experiment_composes() -> None:
    folder = Path(program.__file__).parent / "conf"
    for group in ("experiment", "debug"):
        for path in sorted((folder / group).glob("*.yaml")):
            values = compose("train", [f"{group}={path.stem}"])
            data = config_from_dict(DataConfig, values.pop("data"))
            assert config_from_dict(RunConfig, values).name
            sizes = [stage[1:] for stage in data.ramp]
            assert path.stem != "compact" or sizes[-1] == (480, 640)


def test_validation_logs_poses_and_draws_matches(tmp_path: Path) -> None:
    metrics = run(tmp_path, "trainer.max_steps=2", "trainer.validate_steps=2", "trainer.figures=2")
    assert 0 <= metrics["val/coarse_accuracy"] <= 1
    assert metrics["val/matches"] > 10
    assert "val/auc@10" in metrics
    assert len(list((tmp_path / "figures").glob("00000002_*.png"))) == 2


@pytest.mark.parametrize("killed", [False, True])
def test_the_weights_of_the_best_validation_are_kept(tmp_path: Path, killed: bool) -> None:
    """Three validations and a restart between them: 30, 50, 40; a run that is `killed` after the
    second one leaves the checkpoint of before it."""
    scores = iter((30.0, 50.0, 40.0))

    class Judge(Callback):
        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            module.log("val/auc@10", next(scores))

    best = tmp_path / "best.safetensors"
    kept = []
    for steps, resume in ((2, None), (3, "auto")):
        config = run_config(tmp_path, f"trainer.max_steps={steps}", "trainer.validate_steps=1")
        trainer = build_trainer(replace(config, folder=str(tmp_path)), steps, [])
        trainer.callbacks = [Judge(), CheckpointAndExport(config)]  # pyright: ignore
        if killed and resume:
            checkpointing.checkpoints(tmp_path)[0].unlink()
        start = checkpointing.newest_intact(tmp_path) if resume else None
        module = MatcherModule(config, 2)
        trainer.fit(module, datamodule=PlaneData(), ckpt_path=start)
        kept.append(load_weights(MatcherModule(config, 2).model, best))
    assert kept == [4, 4]  # pairs seen at the second validation


def test_epochs_are_counted_in_steps(tmp_path: Path) -> None:
    metrics = run(tmp_path, "trainer.max_epochs=1", data=PlaneData(batch_size=2, pairs=5))
    assert metrics["steps"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(PlaneData):
        def on_after_batch_transfer(self, batch: ImagePair, dataloader_idx: int) -> ImagePair:
            if self.trainer.global_step == 4:
                os.kill(os.getpid(), number)
            return batch

    monkeypatch.setattr(program, "build_datamodule", lambda *_: Interrupting())
    assert program.main(words(tmp_path, "trainer.max_steps=9")) == 128 + number
    newest = checkpointing.newest_intact(tmp_path)
    assert newest is not None
    assert newest.name.startswith("step_00000005")
    monkeypatch.setattr(program, "build_datamodule", lambda *_: PlaneData())
    resumed = run(tmp_path, "trainer.max_steps=9", "resume=auto")
    plain = run(tmp_path / "plain", "trainer.max_steps=9")
    assert resumed["train/loss"] == plain["train/loss"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_ends_the_run_at_once(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early(PlaneData):
        def val_dataloader(self) -> Any:
            os.kill(os.getpid(), number)
            return super().val_dataloader()

    monkeypatch.setattr(program, "build_datamodule", lambda *_: Early())
    more = ("trainer.max_steps=9", "trainer.validate_steps=9")
    assert program.main(words(tmp_path, *more)) == 128 + number
    assert not checkpointing.checkpoints(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(30))
def test_not_a_number_at_any_step_and_parameter_is_never_saved(tmp_path: Path, case: int) -> None:
    rng = random.Random(case)
    step, value = rng.randrange(5), rng.choice([math.nan, math.inf, -math.inf])

    class Spoil(Callback):
        def on_after_backward(self, trainer: Any, module: Any) -> None:
            if trainer.global_step == step:
                gradient = rng.choice(list(module.model.parameters())).grad
                gradient[tuple(rng.randrange(n) for n in gradient.shape)] = value

    options = ("trainer.max_steps=6", "trainer.checkpoint_steps=1", "trainer.keep=9")
    config = run_config(tmp_path, *options)
    module = fit(config, Spoil(), CheckpointAndExport(config))
    assert module.skipped.total == 1
    saved = checkpointing.checkpoints(tmp_path)
    assert len(saved) >= 6
    for path in saved:
        for key, tensor in checkpointing.load_checkpoint(path)["state_dict"].items():
            assert torch.isfinite(tensor.float()).all(), (path, key)
