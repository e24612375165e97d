"""Latents: encoded once, whitened by what was measured, read back in an order that can be resumed."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from autoencoder.posterior import FlatGaussian
from autoencoder.vidtwin import AutoencoderVidTwin
from vidtwin_gen.draws import DrawOrder, hash64, seeded_generator
from vidtwin_gen.latent_dataset import (
    LatentDataset,
    encode_dataset,
    latent_statistics,
    load_latents,
    weights_sha256,
)
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.synthetic import CLASSES
from vidtwin_gen.video import read_clip

SMALL = LatentLayout(
    (LatentGrid("picture", ("height", "width"), (2, 3), 2), LatentGrid("motion", ("time",), (4,), 1))
)


@pytest.fixture
def vae_dir(tiny_vae_run, tmp_path):
    """A copy of the tiny autoencoder, not whitened yet, to be written to."""
    return Path(shutil.copytree(tiny_vae_run.output_dir / "autoencoder", tmp_path / "autoencoder"))


@pytest.fixture
def few_videos(synthetic_root, tmp_path):
    """Two classes of ten videos without lists: the split is by hash."""
    root = tmp_path / "few"
    for name in ("PulsingRing", "SpinningBar"):
        (root / name).mkdir(parents=True)
        for path in sorted((synthetic_root / name).iterdir())[:10]:
            shutil.copy(path, root / name)
    return root


def encode(vae_dir, data, out, **options):
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    return encode_dataset(vae, vae_dir, data, out, **{"stride": 2, "num_workers": 0, **options})


def moments(rows, layout):
    """Name of a grid: means and variances, (positions of all rows, channels), float64."""
    rows = rows.with_format("numpy")
    arrays = {"mean": rows["mean"][:], "var": np.exp(rows["logvar"][:].astype(np.float64))}
    split = {k: layout.split(torch.tensor(np.asarray(v)).double()) for k, v in arrays.items()}
    return {
        grid.name: [split[k][grid.name].reshape(-1, grid.channels).numpy() for k in ("mean", "var")]
        for grid in layout.grids
    }


def random_rows(count, layout, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = {
        name: torch.randn(count, layout.num_elements, generator=generator).numpy()
        for name in ("mean", "logvar")
    }
    return datasets.Dataset.from_dict({**columns, "label": [i % 3 for i in range(count)]})


def test_rows_and_metadata(tiny_latents, synthetic_root):
    rows, metadata = load_latents(tiny_latents.latents_dir)
    assert metadata == json.loads(json.dumps(tiny_latents.metadata))
    assert metadata["num_rows"] == {"train": 144, "test": 56}
    assert {split: len(part) for split, part in rows.items()} == metadata["num_rows"]
    for split, part in rows.items():
        assert set(part["split"]) == {split}
        assert part.features["label"].names == list(CLASSES) == metadata["class_names"]
        row = part[len(part) // 2]
        assert Path(row["path"]).parent.name == row["class_name"] == metadata["class_names"][row["label"]]
    assert metadata["fps"] == 12.5  # every second frame of 25 per second
    assert metadata["bad_videos"] == []
    assert sorted(path.name for path in tiny_latents.latents_dir.iterdir()) == ["dataset", "latents.json"]
    assert [p.name for p in tiny_latents.latents_dir.parent.glob("*.partial")] == []


@torch.no_grad()
def test_a_row_is_what_the_autoencoder_says(tiny_latents):
    vae = AutoencoderVidTwin.from_pretrained(tiny_latents.vae_dir)
    row = load_latents(tiny_latents.latents_dir)[0]["test"].with_format("torch")[3]
    clip = read_clip(row["path"], 4, size=16, stride=2, start="center")
    posterior = vae.encode(clip[None]).latent_dist
    torch.testing.assert_close(row["mean"], posterior.mean[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(row["logvar"], posterior.logvar[0], atol=1e-5, rtol=1e-5)


def test_statistics_are_those_of_posterior_samples(tiny_latents):
    rows, metadata = load_latents(tiny_latents.latents_dir)
    layout = LatentLayout.from_config(metadata["layout"])
    measured = moments(rows["train"], layout).values()
    means = np.concatenate([mean.mean(0) for mean, _ in measured])
    # the law of total variance
    stds = np.concatenate([np.sqrt(mean.var(0) + var.mean(0)) for mean, var in measured])
    np.testing.assert_allclose(metadata["latents_mean"], means, atol=1e-7)
    np.testing.assert_allclose(metadata["latents_std"], stds, rtol=1e-6)
    config = AutoencoderVidTwin.from_pretrained(tiny_latents.vae_dir).config
    assert config.latents_mean == metadata["latents_mean"]
    assert config.latents_std == metadata["latents_std"]


def test_statistics_of_more_rows_than_are_read_at_once():
    rows = random_rows(2500, SMALL)
    mean, std = latent_statistics(rows, SMALL)
    measured = moments(rows, SMALL).values()
    np.testing.assert_allclose(mean, np.concatenate([m.mean(0) for m, _ in measured]), atol=1e-8)
    expected = np.concatenate([np.sqrt(m.var(0) + v.mean(0)) for m, v in measured])
    np.testing.assert_allclose(std, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="the training split is empty"):
        latent_statistics(rows.select([]), SMALL)


def test_whitened_samples_have_zero_mean_and_unit_variance():
    rows = random_rows(2500, SMALL, seed=1)
    mean, std = latent_statistics(rows, SMALL)
    batch = LatentDataset(rows, shuffle=False).__getitems__(range(2500))
    posterior = FlatGaussian(torch.cat([batch["mean"], batch["logvar"]], dim=1))
    whitened = SMALL.whiten(posterior.sample(torch.Generator().manual_seed(0)), mean, std)
    for part in SMALL.split(whitened).values():
        by_channel = part.flatten(0, -2)
        assert by_channel.mean(0).abs().max() < 0.03
        assert (by_channel.std(0) - 1).abs().max() < 0.03


def test_encoding_again_gives_the_same(few_videos, vae_dir, tmp_path):
    first = encode(vae_dir, few_videos, tmp_path / "first", windows_per_video=2, flip=True)
    second = encode(vae_dir, few_videos, tmp_path / "second", windows_per_video=2, flip=True)
    other = encode(vae_dir, few_videos, tmp_path / "other", windows_per_video=2, flip=True, seed=1)
    assert first == second != other
    rows = [load_latents(tmp_path / name)[0] for name in ("first", "second", "other")]
    for split in ("train", "test"):
        assert rows[0][split].to_dict() == rows[1][split].to_dict()
    # another seed moves the training windows, and nothing of the test clips
    assert rows[0]["train"]["mean"][:] != rows[2]["train"]["mean"][:]
    assert rows[0]["test"].to_dict() == rows[2]["test"].to_dict()
    # two windows of each training video, one of each test video
    paths = rows[0]["train"]["path"][:]
    assert len(paths) == 2 * len(set(paths)) == first["num_rows"]["train"]
    assert len(set(paths)) + first["num_rows"]["test"] == 20
    assert len({tuple(mean) for mean in rows[0]["train"]["mean"]}) == len(paths)


def test_a_bad_video_is_left_out_and_told(few_videos, vae_dir, tmp_path):
    bad = few_videos / "PulsingRing" / "v_PulsingRing_g00_c01.avi"  # the very first
    bad.write_bytes(b"RIFF, but not for long")
    metadata = encode(vae_dir, few_videos, tmp_path / "latents", max_bad_fraction=0.2)
    assert sum(metadata["num_rows"].values()) == 20
    assert len(metadata["bad_videos"]) == 1 and bad.name in metadata["bad_videos"][0]
    rows, _ = load_latents(tmp_path / "latents")
    paths = [path for part in rows.values() for path in part["path"]]
    assert len(set(paths)) == 20 and str(bad) not in paths


def test_too_many_bad_videos_stop_it(few_videos, vae_dir, tmp_path):
    before = (vae_dir / "config.json").read_text()
    for path in sorted(few_videos.glob("*/*_g0[1-5]_*")):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="too many bad files"):
        encode(vae_dir, few_videos, tmp_path / "latents")
    assert not (tmp_path / "latents").exists()
    assert (vae_dir / "config.json").read_text() == before


def test_what_is_there_is_not_overwritten(few_videos, vae_dir, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty: name another --out"):
        encode(vae_dir, few_videos, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").exists()
    with pytest.raises(ValueError, match=r"no latents.json; expected a folder written by"):
        load_latents(tmp_path / "out")


def test_the_digest_is_the_weights(vae_dir, tmp_path):
    first = weights_sha256(vae_dir)
    assert first == weights_sha256(Path(shutil.copytree(vae_dir, tmp_path / "copy")))
    (vae_dir / "config.json").write_text("{}")  # the whitening lives there and comes after
    assert weights_sha256(vae_dir) == first
    with (vae_dir / "diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert weights_sha256(vae_dir) != first
    with pytest.raises(ValueError, match="no .safetensors file"):
        weights_sha256(tmp_path)


def test_an_epoch_is_a_permutation_and_draws_stand_alone():
    rows = random_rows(7, SMALL).add_column("row", list(range(7)))
    dataset = LatentDataset(rows, seed=3)
    assert len(dataset) == 7

    def drawn(draws, dataset=dataset):
        return dataset.__getitems__(list(draws))["mean"]

    all_rows = rows.with_format("torch")["mean"][:]
    epochs = [drawn(range(start, start + 7)) for start in (0, 7, 14)]
    for epoch in epochs:
        assert torch.equal(epoch.sort(dim=0).values, all_rows.sort(dim=0).values)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])
    assert torch.equal(drawn([15, 2, 8]), torch.cat(epochs)[[15, 2, 8]])
    assert torch.equal(drawn(range(21), LatentDataset(rows, seed=3)), torch.cat(epochs))
    assert not torch.equal(drawn(range(21), LatentDataset(rows, seed=4)), torch.cat(epochs))
    assert torch.equal(drawn(range(14), LatentDataset(rows, shuffle=False)), all_rows.repeat(2, 1))
    assert dataset.__getitems__([0, 1]).keys() == {"mean", "logvar", "label"}


def test_order_and_seeds_are_the_same_on_every_machine():
    """Numbers that a run resumed elsewhere, or by a later version, must meet again."""
    assert hash64("a", 1) == 8588983153282268942
    assert seeded_generator("noise", 0).initial_seed() == 8210108827180891337
    assert DrawOrder(8, shuffle=True, seed=0).epoch(1) == [2, 0, 7, 4, 3, 5, 1, 6]
    order = DrawOrder(5, shuffle=True, seed=0)
    assert sorted(order.epoch(3)) == list(range(5))
    assert [order[draw] for draw in range(15, 20)] == order.epoch(3)
    with pytest.raises(IndexError, match="counted from 0, got -1"):
        order[-1]
    first, second = (torch.rand(3, generator=seeded_generator("noise", i)) for i in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(3, generator=seeded_generator("noise", 0)), first)
