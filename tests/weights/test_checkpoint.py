"""Weights on disk: saved in one way, loaded strictly, converted from the published layouts."""

import json
import random
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import tests.helpers.hostile as hostile
from matcher.config import (
    BackboneConfig,
    CoarseConfig,
    FineConfig,
    MatcherConfig,
    TransformerConfig,
)
from matcher.errors import CheckpointError, UsageError
from matcher.files import sha256_of
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.weights.__main__ import main
from matcher.weights.checkpoint import load_safetensors, override, read_weights, save_safetensors
from matcher.weights.convert import config_from_official, convert, infer_config, rename_tensors
from matcher.weights.torch_archive import read_tensors

GOLDEN = Path(__file__).parents[1] / "golden"
CKPT = GOLDEN / "loftr_quadtree_b_small.ckpt"
OFFICIAL = GOLDEN / "loftr_quadtree_b_small.json"
TINY = MatcherConfig(
    backbone=BackboneConfig(initial_dim=8, block_dims=(8, 8, 16), depths=(1, 1, 1)),
    transformer=TransformerConfig(layers=("self", "cross"), heads=2, topks=(4, 4, 4)),
    fine=FineConfig(layers=("self", "cross"), heads=2),
)


@pytest.fixture
def model() -> FeatureMatcher:
    torch.manual_seed(0)
    model = build_matcher(TINY).eval()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def saved(model: FeatureMatcher, tmp_path: Path) -> Path:
    save_safetensors(model, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def rewrite(path: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Save `path` again with some tensors replaced, added or (None) dropped."""
    tensors, metadata = read_weights(path)
    merged = {**tensors, **change}
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    path.write_bytes(safetensors.torch.save(kept, metadata))


def test_what_is_saved_is_loaded(model: FeatureMatcher, tmp_path: Path) -> None:
    save_safetensors(model, tmp_path / "x.safetensors", half=False)
    loaded = load_safetensors(tmp_path / "x.safetensors")
    assert loaded.config == TINY
    assert not loaded.training
    expected = model.state_dict()
    found = loaded.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    image = torch.rand(1, 1, 64, 96)
    assert all(map(torch.equal, model.extract(image), loaded.extract(image)))


def test_half_keeps_vectors_and_rounds_matrices(model: FeatureMatcher, saved: Path) -> None:
    found = load_safetensors(saved).state_dict()
    for name, tensor in model.state_dict().items():
        rounded = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(found[name], rounded), name
    stored = read_weights(saved).tensors
    assert stored["backbone.stem.weight"].dtype == torch.float16
    assert stored["backbone.stem_norm.running_var"].dtype == torch.float32


def test_a_matrix_beyond_half_precision_stays_whole(model: FeatureMatcher, tmp_path: Path) -> None:
    with torch.no_grad():
        model.backbone.stem.weight[0, 0, 0, 0] = 1e6
    save_safetensors(model, tmp_path / "x.safetensors")
    assert load_safetensors(tmp_path / "x.safetensors").backbone.stem.weight.max() == 1e6


def test_the_same_weights_are_the_same_bytes(model: FeatureMatcher, tmp_path: Path) -> None:
    extra = {"training_pairs": "1000", "source_sha256": "0" * 64}
    hashes = set()
    for i in range(8):
        save_safetensors(model, tmp_path / f"{i}.safetensors", extra=extra)
        hashes.add(sha256_of(tmp_path / f"{i}.safetensors"))
    assert len(hashes) == 1
    assert set(read_weights(tmp_path / "0.safetensors").metadata) == {"canary", "config", *extra}


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_safetensors(saved)
    assert torch.equal(torch.rand(3), expected)


def test_loading_never_imports_the_compiler_of_torch(saved: Path) -> None:
    program = (
        "import sys; from matcher.weights.checkpoint import load_safetensors\n"
        "load_safetensors(sys.argv[1]); sys.exit('torch._dynamo' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(saved)], check=True)


def test_other_metadata_and_suffixes_are_refused(model: FeatureMatcher, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="author"):
        save_safetensors(model, tmp_path / "x.safetensors", extra={"author": "me"})
    with pytest.raises(UsageError, match="safetensors"):
        save_safetensors(model, tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    model: FeatureMatcher, saved: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.backbone.output.weight[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"E504.*backbone\.output\.weight"):
        save_safetensors(model, tmp_path / "nan.safetensors")
    assert not (tmp_path / "nan.safetensors").exists()
    rewrite(saved, {"backbone.stem_norm.bias": torch.full((8,), -torch.inf)})
    with pytest.raises(CheckpointError, match=r"E504.*backbone\.stem_norm\.bias"):
        load_safetensors(saved)


def test_misfits_are_listed(saved: Path) -> None:
    gone = {f"transformer.blocks.{i}.query.weight": None for i in range(2)}
    extra = {f"surprise{i}": torch.ones(1) for i in range(7)}
    rewrite(saved, {**gone, **extra, "backbone.output.weight": torch.ones(3, 3)})
    with pytest.raises(CheckpointError, match="E502") as caught:
        load_safetensors(saved)
    message = str(caught.value)
    assert "2 missing: transformer.blocks.0.query.weight" in message
    assert "7 unexpected: surprise0, surprise1, surprise2, surprise3, surprise4;" in message
    assert "1 of another shape: backbone.output.weight (3, 3) for (16, 16, 1, 1)" in message


def test_counters_of_batch_norms_are_ignored(model: FeatureMatcher, saved: Path) -> None:
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counters
    assert not set(counters) & set(read_weights(saved).tensors)
    rewrite(saved, {name: value + 3 for name, value in counters.items()})
    found = load_safetensors(saved).state_dict()
    assert all(found[name] == 0 for name in counters)


def test_integers_are_refused(saved: Path) -> None:
    rewrite(saved, {"backbone.stem_norm.bias": torch.ones(8, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match=r"E502.*not a float"):
        load_safetensors(saved)


def test_options_can_be_overridden(saved: Path) -> None:
    loaded = load_safetensors(saved, overrides={"coarse.threshold": 0.05, "coarse.border": 0})
    assert loaded.config.coarse == replace(TINY.coarse, threshold=0.05, border=0)
    assert loaded.coarse.config.threshold == 0.05


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("coarse.treshold", 0.1, "did you mean 'threshold'"),
        ("corse.threshold", 0.1, "did you mean 'coarse'"),
        ("coarse.threshold", 2.0, "from 0.0 to 1.0"),
        ("coarse", 0.1, "unknown option"),
        ("coarse.threshold.x", 0.1, "unknown option"),
    ],
)
def test_wrong_overrides_are_usage_errors(option: str, value: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        override(TINY, {option: value})


def test_an_override_that_changes_shapes_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="E502"):
        load_safetensors(saved, overrides={"transformer.mlp_ratio": 2})


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E111"):
        load_safetensors(tmp_path / "none.safetensors")


def mutations(data: bytes, count: int) -> list[bytes]:
    """Seeded: bits flipped, cut short, spans overwritten, repeated or dropped."""
    random_ = random.Random(0)
    header = 8 + struct.unpack_from("<Q", data)[0]
    out = []
    for i in range(count):
        changed = bytearray(data)
        end = header if i % 2 else len(data)
        start = random_.randrange(end)
        stop = min(len(data), start + random_.randrange(1, 64))
        kind = random_.randrange(5)
        if kind == 0:
            changed[start] ^= 1 << random_.randrange(8)
        elif kind == 1:
            del changed[start:]
        elif kind == 2:
            changed[start:stop] = random_.randbytes(stop - start)
        elif kind == 3:
            changed[start:start] = data[start:stop]
        else:
            del changed[start:stop]
        out.append(bytes(changed))
    return out


def fuzz(path: Path, count: int) -> tuple[int, int]:
    """How many mutations were refused and how many were loaded."""
    original = path.read_bytes()
    digest, refused, loaded = sha256_of(path), 0, 0
    for data in mutations(original, count):
        path.write_bytes(data)
        if data != original:
            assert sha256_of(path) != digest
        try:
            load_safetensors(path)
            loaded += 1
        except CheckpointError:
            refused += 1
    return refused, loaded


def test_damaged_files_are_refused_or_differ_in_their_hash(saved: Path) -> None:
    refused, loaded = fuzz(saved, 200)
    assert refused > 100
    assert loaded > 10


@pytest.mark.slow
def test_ten_thousand_damaged_files(saved: Path) -> None:
    refused, loaded = fuzz(saved, 10_000)
    assert refused > 5_000
    assert loaded > 500


def test_damaged_torch_checkpoints_are_refused(tmp_path: Path) -> None:
    original = CKPT.read_bytes()
    random_ = random.Random(0)
    config = config_from_official(json.loads(OFFICIAL.read_text()))
    path = tmp_path / "x.ckpt"
    for _ in range(60):
        changed = bytearray(original)
        for _ in range(20):
            changed[random_.randrange(30_000)] = random_.randrange(256)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError):
            convert(path, tmp_path / "x.safetensors", config)


def full_size(variant: str) -> dict[str, torch.Tensor]:
    """Zeros in the official layout of the published QuadTree models: the names of a small one,
    with its last two layers repeated."""
    path = GOLDEN / f"loftr_quadtree_{variant}_small.ckpt"
    names = list(torch.load(path, weights_only=True)["state_dict"])
    for i in range(4, 8):
        pattern = f"loftr_coarse.layers.{i - 2}."
        names += [n.replace(pattern, f"loftr_coarse.layers.{i}.") for n in names if pattern in n]
    config = MatcherConfig(transformer=TransformerConfig(variant=variant.upper()))
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in build_matcher(config).state_dict().items()}
    tensors = {}
    for name in names:
        ours = next(iter(rename_tensors({name: torch.zeros(1)})), None)
        shape = () if ours is None else shapes[ours]
        tensors[name] = torch.zeros(*shape, 1, 1) if ".attn.q_proj." in name else torch.zeros(shape)
    return tensors


@pytest.mark.parametrize("variant", ["a", "b"])
def test_the_published_sizes_need_no_configuration(tmp_path: Path, variant: str) -> None:
    torch.save({"state_dict": full_size(variant)}, tmp_path / "full.ckpt")
    convert(tmp_path / "full.ckpt", tmp_path / "full.safetensors")
    expected = MatcherConfig(transformer=TransformerConfig(variant=variant.upper()))
    assert load_safetensors(tmp_path / "full.safetensors").config == expected
    options = {"transformer.topks": (32, 16, 16)}
    convert(tmp_path / "full.ckpt", tmp_path / "indoor.safetensors", overrides=options)
    found = load_safetensors(tmp_path / "indoor.safetensors").config
    assert found == override(expected, options)


def test_tensors_of_another_model_ask_for_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"E502.*of another shape.*--config"):
        convert(CKPT, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_nan_in_a_torch_checkpoint_is_refused(tmp_path: Path) -> None:
    state = torch.load(CKPT, weights_only=True)["state_dict"]
    state["matcher.backbone.conv1.weight"][0, 0, 3, 3] = torch.nan
    torch.save({"state_dict": state}, tmp_path / "nan.ckpt")
    config = config_from_official(json.loads(OFFICIAL.read_text()))
    with pytest.raises(CheckpointError, match="E504"):
        convert(tmp_path / "nan.ckpt", tmp_path / "x.safetensors", config)


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    state = torch.load(CKPT, weights_only=True)["state_dict"]
    state["backbone.conv1.weight"] = state["matcher.backbone.conv1.weight"]
    torch.save(state, tmp_path / "twice.ckpt")
    with pytest.raises(CheckpointError, match=r"two tensors are named backbone\.stem\.weight"):
        convert(tmp_path / "twice.ckpt", tmp_path / "x.safetensors")


def test_positions_and_counters_of_a_checkpoint_are_ignored() -> None:
    names = ("matcher.pos_encoding.pe", "backbone.bn1.num_batches_tracked", "backbone.bn1.bias")
    renamed = rename_tensors({name: torch.ones(1) for name in names})
    assert list(renamed) == ["backbone.stem_norm.bias"]


@pytest.mark.parametrize(
    "wrapper",
    ["module.", "_orig_mod.", "module._orig_mod.", "matcher._orig_mod.", "module.matcher."],
)
def test_names_of_wrapped_models_are_those_of_the_model(wrapper: str) -> None:
    official = read_tensors(CKPT)
    wrapped = {f"{wrapper}{n.removeprefix('matcher.')}": t for n, t in official.items()}
    assert rename_tensors(wrapped).keys() == rename_tensors(official).keys()
    assert infer_config(wrapped) == infer_config(official)


def test_pyramids_at_a_sixteenth_are_renamed() -> None:
    names = ("layer4_outconv", "layer3_outconv", "layer3_outconv2.0", "layer2_outconv2.3")
    renamed = rename_tensors({f"backbone.{name}.weight": torch.ones(1) for name in names})
    parts = ("output", "merges.0.lateral", "merges.0.merge.0", "merges.1.merge.3")
    assert list(renamed) == [f"backbone.{part}.weight" for part in parts]


@pytest.mark.parametrize(
    ("names", "block", "variant", "position", "match_type"),
    [
        (["matcher.loftr_coarse.layers.0.q_proj.weight"], "loftr", "B", "legacy", "dual_softmax"),
        (["loftr_coarse.layers.0.attn.q_proj.weight"], "quadtree", "A", "fixed", "dual_softmax"),
        (
            [
                "loftr_coarse.layers.0.attn.q_proj.weight",
                "loftr_coarse.layers.0.attn.py_att.weight",
            ],
            "quadtree",
            "B",
            "fixed",
            "dual_softmax",
        ),
        (
            ["loftr_coarse.layers.0.q_proj.weight", "coarse_matching.bin_score"],
            "loftr",
            "B",
            "legacy",
            "sinkhorn",
        ),
    ],
)
def test_the_published_model_is_inferred(
    names: list[str], block: str, variant: str, position: str, match_type: str
) -> None:
    config = infer_config(names)
    assert config.transformer.block == block
    assert config.transformer.variant == variant
    assert config.transformer.topks == (16, 8, 8)
    assert config.position.variant == position
    assert config.coarse == CoarseConfig(match_type=match_type)
    assert config.backbone == BackboneConfig()


def test_an_official_configuration_is_followed() -> None:
    official = json.loads(OFFICIAL.read_text())
    config = config_from_official(official)
    assert config.backbone == BackboneConfig(initial_dim=32, block_dims=(32, 48, 64))
    assert config.transformer == TransformerConfig(layers=("self", "cross") * 2, heads=4)
    assert config.fine == FineConfig(heads=4)
    yacs = {"LOFTR": shout(official), "TRAINER": {"SEED": 1}}
    assert config_from_official(yacs) == config


def shout(options: dict[str, Any]) -> dict[str, Any]:
    """The names in capitals, as the training code of the authors has them."""
    return {k.upper(): shout(v) if isinstance(v, dict) else v for k, v in options.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone_type": "VGG"}, "ResNetFPN"),
        ({"coarse": {"heads": 4}}, r"coarse\.heads: unknown option"),
        ({"fine": {"attention": "full"}}, "linear"),
        ({"coarse": 3}, "unknown option"),
        ({"match_coarse": {"thr": 7}}, "from 0.0 to 1.0"),
    ],
)
def test_an_official_configuration_that_cannot_be_followed_is_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        config_from_official(change)


def test_the_commands_convert_and_describe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "b.safetensors"
    assert main(["convert", str(CKPT), str(target), "--config", str(OFFICIAL)]) == 0
    capsys.readouterr()
    assert main(["info", str(target)]) == 0
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["sha256"] == sha256_of(target)
    assert shown["source_sha256"] == sha256_of(CKPT)
    assert json.loads(shown["config"])["transformer"]["topks"] == [16, 8, 8]
    assert shown["finite"] == "yes"
    assert shown["numbers"] == "602,732"


def test_the_commands_report_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (["info", str(tmp_path / "none.safetensors")], 2, "E111"),
        (["info", str(CKPT)], 5, "E50"),
        (["convert", str(CKPT), str(tmp_path / "x.safetensors")], 5, "E502"),
        (["convert", str(CKPT), str(tmp_path / "x.pt"), "--config", str(OFFICIAL)], 2, "E203"),
        (["convert", str(CKPT), "x.safetensors", "--config", str(CKPT)], 2, "E204"),
        (["convert", str(CKPT), "x.safetensors", "--config", "none.json"], 2, "E111"),
    ]
    for arguments, code, words in cases:
        assert main(arguments) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(words)
        assert captured.err.count("\n") == 1


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(hostile.state(hostile.Call(print, "hello")))
    command = [
        sys.executable,
        "-m",
        "matcher.weights",
        "convert",
        "x.ckpt",
        "x.safetensors",
    ]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": root}, check=False
    )
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("E501 x.ckpt")
    assert done.stderr.count("\n") == 1


def with_transformer(path: Path, **options: object) -> Path:
    """The weights of `path` in a file whose configuration holds more `options`."""
    tensors, metadata = read_weights(path)
    config = json.loads(metadata["config"])
    config["transformer"] |= options
    old = path.with_name("old.safetensors")
    old.write_bytes(safetensors.torch.save(tensors, {**metadata, "config": json.dumps(config)}))
    return old


def test_older_files_may_hold_options_that_are_gone(saved: Path) -> None:
    old = with_transformer(saved, pyramid="average", lepe=False)
    assert load_safetensors(old).config == load_safetensors(saved).config


@pytest.mark.parametrize("option", [{"pyramid": "conv"}, {"lepe": True}])
def test_options_that_are_gone_are_refused_where_they_change_the_model(
    saved: Path, option: dict[str, object]
) -> None:
    with pytest.raises(CheckpointError, match=rf"E508 .*{next(iter(option))}: unknown option"):
        load_safetensors(with_transformer(saved, **option))
