"""VideoMAE as a feature extractor, on tiny models that are saved here."""

import hashlib
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification

from eval.fvd.networks import load_extractor
from tests.builders.hub import running_hub
from vidtwin_gen.weights import MissingWeightsError, weights_digest

SIZES = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 16,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 8,
}


@pytest.fixture(scope="module", params=[VideoMAEForVideoClassification, VideoMAEForPreTraining])
def saved(request, tmp_path_factory):
    """A model with its folder."""
    torch.manual_seed(0)
    model = request.param(VideoMAEConfig(**SIZES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return model, folder


def clips_of(num_frames=16, size=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, num_frames, size, size, 3), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_features_are_what_goes_into_the_classifier(saved):
    model, folder = saved
    extractor = load_extractor("videomae", folder)
    assert (extractor.name, extractor.dim) == ("videomae tiny", 12)
    assert extractor.min_frames == extractor.max_frames == 16
    extractor.backbone.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    allowed = []
    assert extractor.resize.startswith("bilinear to 16x16") and "mean [0.485" in extractor.resize
    clips = clips_of()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((clips / 255 - mean) / std).permute(0, 1, 4, 2, 3)
    features = extractor(clips)
    assert allowed == [False] and torch.backends.cudnn.allow_tf32
    assert features.shape == (2, 12) and features.dtype == torch.float32
    if isinstance(model, VideoMAEForVideoClassification):
        torch.testing.assert_close(model.classifier(features), model(pixels).logits)
    else:
        torch.testing.assert_close(features, model.videomae(pixels).last_hidden_state.mean(1))


def test_colours_and_size_are_the_models_own(saved, tmp_path):
    model, folder = saved
    model.save_pretrained(tmp_path)
    said = {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 2.0, 4.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    clips = clips_of(size=24)
    frames = F.interpolate(clips.flatten(0, 1).permute(0, 3, 1, 2).float(), (16, 16), mode="bilinear")
    small = frames.unflatten(0, (2, 16))
    pixels = (small / 127.5 - 1) / torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    features = load_extractor("videomae", tmp_path)(clips)
    with torch.no_grad():
        expected = model.videomae(pixels).last_hidden_state.mean(1)
        if isinstance(model, VideoMAEForVideoClassification):
            expected = model.fc_norm(expected)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_frames", [8, 17])
def test_clips_of_another_length_are_refused(saved, num_frames):
    with pytest.raises(ValueError, match=f"takes clips of 16 frames, got {num_frames}"):
        load_extractor("videomae", saved[1])(clips_of(num_frames))


def test_the_digest_is_that_of_the_files(saved, tmp_path):
    _, folder = saved
    file = folder / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load_extractor("videomae", folder, weights_sha256=digest).weights_sha256 == digest
    with pytest.raises(ValueError, match=f"have sha256 {digest}, not {'0' * 64}"):
        load_extractor("videomae", folder, weights_sha256="0" * 64)
    for name in ("b.safetensors", "a.safetensors"):
        (tmp_path / name).write_bytes(file.read_bytes())
    lines = f"{digest}  a.safetensors\n{digest}  b.safetensors\n"
    assert weights_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_what_is_no_whole_videomae_is_refused(saved, tmp_path, monkeypatch):
    model, _ = saved
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["videomae.encoder.layer.1.output.dense.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors of .*layer\.1\.output\.dense\.weight"):
        load_extractor("videomae", tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="no weights in safetensors"):
        load_extractor("videomae", tmp_path)
    save_file(tensors, file)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="model_type is vit, expected videomae"):
        load_extractor("videomae", tmp_path)


def test_a_model_comes_from_the_hub_at_its_revision(saved, tmp_path, monkeypatch):
    _, folder = saved
    with running_hub() as hub:
        hub.take_the_place_of_the_real_one(monkeypatch, tmp_path)
        commit = hub.put_folder("user/tiny", folder)
        hub.commit("user/tiny", {"config.json": b"{}"})
        extractor = load_extractor("videomae", "user/tiny", revision=commit)
    assert extractor.name == f"videomae user/tiny@{commit}"
    torch.testing.assert_close(extractor(clips_of()), load_extractor("videomae", folder)(clips_of()))


def test_a_model_that_is_not_here_is_asked_for(monkeypatch):
    monkeypatch.delenv("VIDTWIN_GEN_VIDEOMAE", raising=False)
    with pytest.raises(MissingWeightsError, match="by --weights or by VIDTWIN_GEN_VIDEOMAE"):
        load_extractor("videomae")
    monkeypatch.setenv("VIDTWIN_GEN_VIDEOMAE", "no/such/folder")
    with pytest.raises(MissingWeightsError, match="no/such/folder is no folder"):
        load_extractor("videomae")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeightsError, match=r"of user/none \(revision v2\) came from the hub"):
        load_extractor("videomae", "user/none", revision="v2")
