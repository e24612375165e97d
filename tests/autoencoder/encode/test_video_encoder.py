"""Video encoders: their features are the network's own, over a grid, and what they cannot take is told."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from autoencoder.encode.video_encoder import VideoEncoder
from tests.builders.video_encoders import COLOURS, PROCESSOR, save_video_encoder
from vidtwin_gen.weights import MissingWeightsError

ANY = (9, 9, 9)  # a grid that is no limit


@pytest.fixture(scope="module", params=["vjepa2", "videomae"])
def saved(request, tmp_path_factory):
    """The kind, a model and its folder."""
    folder = tmp_path_factory.mktemp("encoders") / request.param
    return request.param, save_video_encoder(folder, request.param), folder


def clips_of(num_frames, size=16):
    shape = (2, 3, num_frames, size, size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def last_hidden_states(model, clips):
    """(B, n, E) of clips (B, C, F, H, W) of the model's size, by hand."""
    mean, std = (torch.tensor(COLOURS[f"image_{name}"])[:, None, None] for name in ("mean", "std"))
    pixels = ((clips + 1) / 2).permute(0, 2, 1, 3, 4)
    return model((pixels - mean) / std).last_hidden_state


def test_features_are_the_networks_averaged_to_a_grid(saved):
    kind, model, folder = saved
    clips, expected = clips_of(4), last_hidden_states(model, clips_of(4))
    whole = VideoEncoder(str(folder), 4, ANY)
    side = {"vjepa2": 4, "videomae": 2}[kind]
    assert whole.grid == (2, side, side) and whole.dim == expected.shape[-1]
    torch.testing.assert_close(whole(clips), expected.flatten(1))
    small = VideoEncoder(str(folder), 4, (1, 2, 1))
    assert small.grid == (1, 2, 1) and small.about() == {
        "encoder": kind,
        "encoder_sha256": small.weights_sha256,
        "grid": [1, 2, 1],
        "dim": small.dim,
    }
    rows = expected.unflatten(1, (2, 2, side // 2, side)).mean((1, 3, 4))
    torch.testing.assert_close(small(clips), rows.flatten(1))


def test_frames_are_resized_as_a_whole(saved):
    _, model, folder = saved
    wide = torch.rand(2, 3, 4, 20, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames = F.interpolate(wide.transpose(1, 2).flatten(0, 1), (16, 16), mode="bilinear", antialias=True)
    expected = last_hidden_states(model, frames.unflatten(0, (2, 4)).transpose(1, 2))
    torch.testing.assert_close(VideoEncoder(str(folder), 4, ANY)(wide), expected.flatten(1))


def test_a_v_jepa_2_takes_clips_of_any_length(tmp_path):
    model = save_video_encoder(tmp_path)
    for num_frames in (1, 5, 8):
        clips = clips_of(num_frames)
        even = torch.cat([clips, clips[:, :, -1:]], dim=2) if num_frames % 2 else clips
        encoder = VideoEncoder(str(tmp_path), num_frames, ANY)
        assert encoder.grid == (-(-num_frames // 2), 4, 4)
        torch.testing.assert_close(encoder(clips), last_hidden_states(model, even).flatten(1))


def test_the_digest_is_the_weights(saved, tmp_path):
    kind, _, folder = saved
    save_video_encoder(tmp_path / "other", kind, seed=1)
    same, other = shutil.copytree(folder, tmp_path / "same"), tmp_path / "other"
    digests = [VideoEncoder(str(path), 4, ANY).weights_sha256 for path in (folder, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_what_cannot_be_taken_is_told(saved, tmp_path, monkeypatch):
    kind, _, folder = saved
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / PROCESSOR[kind]).unlink()
    with pytest.raises(
        ValueError, match=r"copy has no preprocessor_config.json or video_preprocessor_config"
    ):
        VideoEncoder(str(copy), 4, ANY)
    shutil.copy(folder / PROCESSOR[kind], copy)
    weights = load_file(copy / "model.safetensors")
    name = next(iter(weights))
    save_file({n: w for n, w in weights.items() if n != name}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"copy lacks 1 tensors of .*{name}"):
        VideoEncoder(str(copy), 4, ANY)
    (copy / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="model_type is vit, expected vjepa2 or videomae; name the folder"):
        VideoEncoder(str(copy), 4, ANY)
    if kind == "videomae":
        with pytest.raises(ValueError, match="takes clips of 4 frames, got 6: .* name a V-JEPA 2"):
            VideoEncoder(str(folder), 6, ANY)
    with pytest.raises(MissingWeightsError, match="nowhere is no folder, and no name of a model on the hub"):
        VideoEncoder("nowhere", 4, ANY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeightsError, match="no config.json of user/none .* came from the hub"):
        VideoEncoder("user/none", 4, ANY)
