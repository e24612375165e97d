"""The released checkpoint: read, refused, and written back."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from autoencoder import released as convert
from autoencoder.__main__ import main
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.released import (
    convert_released_state_dict,
    infer_config,
    to_released_state_dict,
)
from tests.builders.autoencoders import build_autoencoder
from vidtwin_gen.weights import weights_sha256

SHARED = Path(__file__).parents[3] / "shared"
SIZES = {
    "num_frames": 4,
    "height": 24,
    "width": 24,
    "patch_size": 4,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "mlp_ratio": 3.0,
    "num_queries": 3,
    "query_hidden_size": 8,
    "qformer_layers": 2,
    "qformer_heads": 2,
    "qformer_intermediate_size": 12,
    "structure_channels": 2,
    "structure_base_channels": 8,
    "structure_down_blocks": 2,
    "dynamics_channels": 5,
    "dynamics_down_blocks": 1,
}
HEADS = {"num_heads": 2, "qformer_heads": 2}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoencoderVidTwin(**SIZES).eval()


@pytest.fixture
def released(model):
    """What the released code would save of this model: its tables, its unused layers, its loss."""
    positions, width = 6 * 6, SIZES["hidden_size"]
    return {
        **to_released_state_dict(model.state_dict()),
        "encoder.pos_embed": torch.zeros(1, positions, width, dtype=torch.float64),
        "decoder.pos_embed_temporal": torch.zeros(1, 4, width, dtype=torch.float64),
        "encoder.final_layer.linear.weight": torch.ones(48, width),
        "decoder.x_embedder.proj.bias": torch.ones(width),
        "loss.logvar": torch.zeros(()),
    }


@pytest.fixture
def checkpoint(released, tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": released, "global_step": 7}, path)
    return path


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_checkpoint_becomes_the_model_it_was(model, released, checkpoint, suffix):
    path = checkpoint.with_suffix(suffix)
    if suffix == ".safetensors":
        save_file(released, path)
    loaded = AutoencoderVidTwin.from_released(path, **HEADS)
    assert {name: loaded.config[name] for name in SIZES} == SIZES
    assert not loaded.training
    clip = torch.rand(1, 3, 4, 24, 24) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(clip).sample, model(clip).sample)


def test_there_and_back_is_exact(model, released):
    ours = model.state_dict()
    back = convert_released_state_dict(to_released_state_dict(ours))
    assert back.keys() == ours.keys() and all(torch.equal(back[name], ours[name]) for name in ours)
    again = to_released_state_dict(convert_released_state_dict(released))
    assert set(released) - set(again) == {name for name in released if convert.DROPPED.fullmatch(name)}
    assert all(torch.equal(again[name], released[name]) for name in again)


def test_only_a_square_model_has_released_names():
    wide = AutoencoderVidTwin(**SIZES | {"width": 32})
    with pytest.raises(ValueError, match=r"dynamics_decoder\.up\.1.*square"):
        to_released_state_dict(wide.state_dict())


def test_every_key_of_the_released_checkpoint_has_its_place():
    path = SHARED / "spec" / "vidtwin_state_dict_keys.txt"
    if not path.exists():
        pytest.skip("the released checkpoint's list of keys (vidtwin_state_dict_keys.txt) is not here")
    with torch.device("meta"):
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        released = {key: torch.empty(json.loads(shape)) for key, shape, *_ in lines}
        config = infer_config(released)
        model = AutoencoderVidTwin(**config)
        released_model = AutoencoderVidTwin(structure_channels=8)
    assert config == {name: released_model.config[name] for name in config}
    converted = convert_released_state_dict(released)
    model.load_state_dict(converted, assign=True)
    live = {key: value.shape for key, value in released.items() if not convert.DROPPED.fullmatch(key)}
    assert {key: value.shape for key, value in to_released_state_dict(converted).items()} == live
    # Table of the released model less what it never calls
    assert sum(value.numel() for value in converted.values()) == 312_701_490 - 1_182_720


def test_the_fused_projection_is_split_and_strangers_are_refused():
    fused = torch.arange(12.0).view(6, 2)
    converted = convert_released_state_dict(
        {"encoder.blocks.3.attn_temp.qkv.weight": fused, "loss.logvar": torch.zeros(())}
    )
    assert list(converted) == [f"encoder.blocks.3.attn_temporal.to_{name}.weight" for name in ("q", "k", "v")]
    assert torch.equal(torch.cat(list(converted.values())), fused)
    with pytest.raises(ValueError, match=r"2 keys .*generator\.bias, encoder\.blocks\.0\.norm\.weight"):
        convert_released_state_dict(
            {"generator.bias": fused, "encoder.blocks.0.norm.weight": fused, "conv_in.bias": fused}
        )


def without(name):
    return lambda tensors: tensors.pop(name)


def with_(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


def changed(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("decoder.blocks.1.mlp.fc2.bias"), "1 tensors are missing: decoder.blocks.1.mlp.fc2.bias"),
        (without("cont_emb.2.weight"), "cont_emb.2.weight is missing"),
        (with_("decoder.blocks.2.mlp.fc2.bias", 16), "1 tensors are unknown: decoder.blocks.2.mlp.fc2.bias"),
        (with_("unet.conv_in.weight", 3), "1 keys are not of the released VidTwin: unet.conv_in.weight"),
        (
            with_("motion_head.bias", 11),
            r"1 tensors are of another shape: motion_head.bias \[11\], expected \[10\]",
        ),
        (
            with_("encoder.pos_embed", 1, 35, 16),
            "encoder.pos_embed has 35 positions, expected",
        ),
        (with_("conv_in.weight", 8), r"conv_in.weight has shape \[8\], expected 4 dimensions"),
        (
            changed("motion_head.bias", torch.Tensor.int),
            "tensors are whole numbers: motion_head.bias",
        ),
        (
            changed("motion_head.bias", lambda bias: bias / 0),
            "dynamics_encoder.head.bias holds NaN or infinity",
        ),
        (changed("motion_head.bias", torch.Tensor.to_sparse), "'motion_head.bias' is no dense tensor"),
        (lambda tensors: tensors.update({7: torch.zeros(3)}), "7 is no dense tensor with a name"),
    ],
)
def test_another_architecture_is_named(released, tmp_path, change, message, capsys):
    change(released)
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": released}, path)
    with pytest.raises(ValueError, match=f"other.ckpt: .*{message}"):
        AutoencoderVidTwin.from_released(path, **HEADS)


def test_the_default_head_is_64_wide(released):
    released["encoder.x_embedder.proj.weight"] = torch.zeros(192, 3, 1, 4, 4)
    assert infer_config(released)["num_heads"] == 3
    assert infer_config(released, num_heads=6)["num_heads"] == 6


def test_the_command_writes_a_folder_and_its_reverse_the_names(released, checkpoint, tmp_path, capsys):
    heads = ["--num_heads", "2", "--qformer_heads", "2"]
    main(["convert", str(checkpoint), str(tmp_path / "ours"), *heads])
    assert "latents of" in capsys.readouterr().out
    assert AutoencoderVidTwin.from_pretrained(tmp_path / "ours").config.num_heads == 2
    main(["convert", str(tmp_path / "ours"), str(tmp_path / "back.safetensors"), "--reverse"])
    back = load_file(tmp_path / "back.safetensors")
    positions = back.pop("encoder.pos_embed")
    assert back and all(torch.equal(back[name], released[name]) for name in back)
    ours = AutoencoderVidTwin.from_pretrained(tmp_path / "ours")
    assert torch.equal(positions[0], ours.encoder.spatial)
    with pytest.raises(SystemExit):  # which would be read as a pickle
        main(["convert", str(tmp_path / "ours"), str(tmp_path / "back.ckpt"), "--reverse"])
    assert "back.ckpt: --reverse writes a .safetensors" in capsys.readouterr().err
    main(["convert", str(tmp_path / "back.safetensors"), str(tmp_path / "again"), *heads])
    assert weights_sha256(tmp_path / "again") == weights_sha256(tmp_path / "ours")
    build_autoencoder(dynamics_type="none").save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "other"), str(tmp_path / "other.safetensors"), "--reverse"])
    assert "the release is of square clips and of both latents" in capsys.readouterr().err


def truncated(path):
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("cut.safetensors", truncated, "can't be read as a checkpoint"),
        ("text.ckpt", lambda path: path.write_text("no checkpoint"), "can't be read as a checkpoint"),
        ("code.ckpt", lambda path: torch.save({"state_dict": {"a": Path}}, path), "can't be read as"),
        ("list.ckpt", lambda path: torch.save([1, 2], path), "holds no state_dict of tensors"),
        ("absent.ckpt", lambda path: None, "is no file"),
        ("folder", lambda path: path.mkdir(), "is no file"),
    ],
)
def test_what_is_no_checkpoint_ends_in_one_line(tmp_path, capsys, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(path), str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert str(path) in error and message in error and len(error.splitlines()) == 1
    assert "weights_only" not in error  # torch says how to run the code in a pickle
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(checkpoint, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(SystemExit):
        main(["convert", str(checkpoint), str(tmp_path / "out")])
    assert "would be overwritten" in capsys.readouterr().err


def test_a_repository_is_asked_for_the_released_file(checkpoint, monkeypatch):
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(checkpoint)

    monkeypatch.setattr(convert, "hf_hub_download", download)
    assert (
        AutoencoderVidTwin.from_released("microsoft/vidtwin", revision="main", **HEADS).config.hidden_size
        == 16
    )
    assert asked == {"repo_id": "microsoft/vidtwin", "filename": convert.RELEASED_FILE, "revision": "main"}


@pytest.mark.parametrize("option", [{"num_head": 2}, {"torch_dtype": torch.float16}])
def test_an_option_that_there_is_not_is_no_silence(checkpoint, option):
    assert AutoencoderVidTwin.from_released(checkpoint, cache_dir="unused", **HEADS)
    for path_or_repo_id in (checkpoint, "microsoft/vidtwin"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(option))}'"):
            AutoencoderVidTwin.from_released(path_or_repo_id, **option)


def test_without_a_network_it_says_what_to_do(monkeypatch):
    def download(repo_id, **options):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(convert, "hf_hub_download", download)
    with pytest.raises(ValueError, match=r"microsoft/vidtwin can't be fetched.*copy checkpoints/"):
        AutoencoderVidTwin.from_released("microsoft/vidtwin")


def test_a_flipped_bit_is_refused(checkpoint, tmp_path):
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(data)
    with pytest.raises(ValueError, match=r"flipped\.ckpt can't be read as a checkpoint"):
        convert.read_checkpoint(tmp_path / "flipped.ckpt")
