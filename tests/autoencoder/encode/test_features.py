"""Features beside the latents: of the very clips, the same after a kill, and of one encoder."""

import shutil

import pytest
import torch

from autoencoder.encode.video_encoder import VideoEncoder
from tests.builders.folders import contents
from tests.builders.runs import encode
from tests.builders.video_encoders import save_video_encoder
from vidtwin_gen.data.latent_dataset import LatentDataset, load_latents
from vidtwin_gen.data.video import read_clip


@pytest.fixture
def encoder_dir(featured_latents):
    return featured_latents.latents_dir.parent / "encoder"


def test_a_rows_features_are_its_clips(featured_latents, few_videos, encoder_dir):
    rows, metadata = load_latents(featured_latents.latents_dir)
    encoder = VideoEncoder(str(encoder_dir), 4, (4, 8, 8))
    assert metadata["features"] == encoder.about() and encoder.grid == (2, 4, 4)
    for part in rows.values():
        part = part.with_format("torch")
        clips = [
            read_clip(few_videos / row["path"], 4, size=16, stride=2, start=int(row["start"])).flip(
                [-1] if row["flipped"] else []
            )
            for row in part
        ]
        expected = encoder(torch.stack(clips))
        assert (part["features"][:].float() - expected).abs().max() <= 2**-10 * expected.abs().max()
        assert expected.std(0).max() > 0.05  # clips differ in it
    batch = LatentDataset(rows["train"], shuffle=False, features=True).__getitems__([3, 0])
    assert batch["features"].dtype == torch.float32
    assert torch.equal(batch["features"], rows["train"].with_format("torch")["features"][:].float()[[3, 0]])
    card = (featured_latents.latents_dir / "README.md").read_text(encoding="utf-8")
    assert "| `features` | float16 (2·4·4·12,): of the clip, by encoder |" in card
    assert f"`{encoder.weights_sha256}`" in card and "--features encoder --features_grid 2 4 4" in card


def test_latents_are_those_without_features(featured_latents, vae_dir, few_videos, tmp_path):
    """And say nothing of them."""
    plain = encode(vae_dir, few_videos, tmp_path / "plain", flip=True)
    assert featured_latents.metadata["latents_std"] == plain["latents_std"]
    assert "features" not in plain and "features" not in plain["command"]
    card = (tmp_path / "plain/README.md").read_text(encoding="utf-8")
    assert "features" not in card and "encoded |\n\n## Layout" in card and "`.\n\n## Licence" in card
    with_features, without = (load_latents(f)[0] for f in (featured_latents.latents_dir, tmp_path / "plain"))
    for split, part in without.items():
        assert with_features[split].remove_columns("features").to_dict() == part.to_dict()


def test_it_goes_on_with_the_same_encoder_only(vae_dir, few_videos, encoder_dir, tmp_path, monkeypatch):
    options = {"features": str(encoder_dir), "features_grid": (1, 2, 2), "windows_per_file": 5}
    encode(vae_dir, few_videos, tmp_path / "whole/out", **options)

    def interrupt(self, clips, called=[]):  # noqa: B006
        called.append(len(clips))
        if len(called) > 2:
            raise KeyboardInterrupt
        return call(self, clips)

    call = VideoEncoder.__call__
    monkeypatch.setattr(VideoEncoder, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode(vae_dir, few_videos, tmp_path / "out", **options)
    monkeypatch.undo()
    partial = tmp_path / "out.partial"
    finished = {path: path.stat().st_mtime_ns for path in partial.glob("data/*.parquet")}
    assert len(finished) == 2
    save_video_encoder(tmp_path / "other", seed=1)
    refused = [
        (options | {"features": str(tmp_path / "other")}, "--features was '.* on 1x2x2', is '.* on 1x2x2'"),
        (options | {"features": None}, "--features was '.* on 1x2x2', is None"),
        (options | {"features_grid": (2, 2, 2)}, "--features was '.* on 1x2x2', is '.* on 2x2x2'"),
    ]
    for flags, message in refused:
        with pytest.raises(ValueError, match=f"2 files of another command .{message}"):
            encode(vae_dir, few_videos, tmp_path / "out", **flags)
    encode(vae_dir, few_videos, tmp_path / "out", **options)
    names = [tmp_path / "out" / path.relative_to(partial) for path in finished]
    assert [path.stat().st_mtime_ns for path in names] == list(finished.values())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole/out")
    copy = shutil.copytree(encoder_dir, tmp_path / "copy" / encoder_dir.name)
    encode(vae_dir, few_videos, tmp_path / "out", **options | {"features": str(copy)})  # is done
    with pytest.raises(ValueError, match="is there already, of another command .--features was .*, is None"):
        encode(vae_dir, few_videos, tmp_path / "out", **options | {"features": None})


def test_features_that_float16_does_not_hold_are_refused(vae_dir, few_videos, tmp_path):
    model = save_video_encoder(tmp_path / "loud")
    with torch.no_grad():
        model.encoder.layernorm.weight.fill_(1e6)
    model.save_pretrained(tmp_path / "loud")
    with pytest.raises(ValueError, match=r"\.avi: the video encoder gives features that float16 does not"):
        encode(vae_dir, few_videos, tmp_path / "out", features=str(tmp_path / "loud"))
    assert not (tmp_path / "out").exists()
