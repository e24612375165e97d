"""Latents: whitened by what was measured, read back whole or not at all, in an order that can be resumed."""

import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch.utils.data import DataLoader

from autoencoder.encode.whitening import latent_statistics
from autoencoder.model.posterior import FlatGaussian
from vidtwin_gen.data.latent_dataset import LatentDataset, load_latents
from vidtwin_gen.draws import EpochOrder, hash64, seeded_generator
from vidtwin_gen.files import file_sha256
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.weights import weights_sha256

SMALL = LatentLayout(
    (LatentGrid("picture", ("height", "width"), (2, 3), 2), LatentGrid("motion", ("time",), (4,), 1))
)


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


def test_statistics_are_those_of_posterior_samples(tiny_latents):
    rows, metadata = load_latents(tiny_latents.latents_dir)
    layout = LatentLayout.from_config(metadata["layout"])
    measured = moments(rows["train"], layout).values()
    means = np.concatenate([mean.mean(0) for mean, _ in measured])
    # the law of total variance
    stds = np.concatenate([np.sqrt(mean.var(0) + var.mean(0)) for mean, var in measured])
    np.testing.assert_allclose(metadata["latents_mean"], means, atol=1e-7)
    np.testing.assert_allclose(metadata["latents_std"], stds, rtol=1e-6)


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


def test_the_digest_is_the_weights(tiny_vae_run, tmp_path):
    vae_dir = Path(shutil.copytree(tiny_vae_run.output_dir / "autoencoder", tmp_path / "autoencoder"))
    first = weights_sha256(vae_dir)
    assert first == weights_sha256(Path(shutil.copytree(vae_dir, tmp_path / "copy")))
    (vae_dir / "config.json").write_text("{}")  # no weights
    assert weights_sha256(vae_dir) == first
    (vae_dir / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant, added later")
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


def test_a_loader_draws_one_by_one_or_a_batch_at_once():
    dataset = LatentDataset(random_rows(7, SMALL), seed=3)
    for i, batch in enumerate(DataLoader(dataset, batch_size=2, collate_fn=dict)):
        for name, values in batch.items():
            singles = [dataset[position][name] for position in range(2 * i, 2 * i + len(values))]
            assert torch.equal(values, torch.stack(singles))
    assert i == 3 and batch["mean"].shape == (1, SMALL.num_elements)


def test_draws_are_the_rows_whatever_the_files_and_type(tmp_path):
    """Rows of several pieces of a mapped file, in float16: what `datasets` itself would give."""
    features = datasets.Features(
        mean=datasets.List(datasets.Value("float16"), length=16),
        logvar=datasets.List(datasets.Value("float16"), length=16),
        label=datasets.ClassLabel(names=["a", "b", "c"]),
    )
    random_rows(50, SMALL).cast(features).save_to_disk(tmp_path / "rows", num_shards=3)
    rows = datasets.load_from_disk(tmp_path / "rows")
    assert rows.cache_files and rows.data.column("mean").num_chunks > 1
    for chosen in (rows, rows.select([7, 3, 40])):
        dataset = LatentDataset(chosen, seed=1)
        draws = [*range(len(chosen)), 2, 0]
        expected = chosen.with_format("torch")[[dataset.order[draw] for draw in draws]]
        for reader in (dataset, pickle.loads(pickle.dumps(dataset))):
            batch = reader.__getitems__(draws)
            for name, values in batch.items():
                assert torch.equal(values, expected[name])
            assert batch["mean"].dtype == torch.float32 and batch["label"].dtype == torch.int64
    assert len(pickle.dumps(LatentDataset(rows))) < 10_000


@pytest.fixture
def copied(tiny_latents, tmp_path):
    """A copy of the latents, to be damaged."""
    return Path(shutil.copytree(tiny_latents.latents_dir, tmp_path / "copy", ignore=lambda *_: [".cache"]))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def fewer_rows(path):
    """A whole file with other rows, of the size that is expected."""
    size = path.stat().st_size
    table = parquet.read_table(path)
    parquet.write_table(table.slice(1), path, compression="zstd")
    about = json.loads((path.parents[1] / "latents.json").read_text())
    assert path.stat().st_size != size
    about["files"][f"data/{path.name}"] |= {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (path.parents[1] / "latents.json").write_text(json.dumps(about))


def zeros(begin, end):
    def write(path):
        content = bytearray(path.read_bytes())
        content[begin:end] = bytes(len(content[begin:end]))
        path.write_bytes(content)

    return write


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "is missing"),
        (truncate, "bytes, not "),
        (fewer_rows, r"has 15 rows, latents.json says 16"),
        (zeros(-8, None), "can't be read"),
        (zeros(4, 2000), "is not as it was written"),
    ],
)
def test_damaged_files_are_named(copied, damage, told):
    path = copied / "data/train-00000-of-00009.parquet"
    damage(path)
    with pytest.raises(
        ValueError, match=f"{told}.*copy the whole folder again, or remove it and encode again"
    ):
        load_latents(copied)


def rewrite(path, change):
    """The file with `change(columns)`, lists by name, of another type perhaps, and its size and digest."""
    table = parquet.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    types = {field.name: field.type for field in table.schema} | (change(columns) or {})
    arrays = [pa.array(columns[name], types[name]) for name in table.column_names]
    parquet.write_table(pa.Table.from_arrays(arrays, names=table.column_names), path)
    about = json.loads((path.parents[1] / "latents.json").read_text())
    about["files"][f"data/{path.name}"] |= {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (path.parents[1] / "latents.json").write_text(json.dumps(about))


def put(column, value, row=5):
    def change(columns):
        if isinstance(columns[column][row], list):
            columns[column][row][3] = value
        else:
            columns[column][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("mean", float("nan")), "row 5, has a mean that is not finite"),
        (put("mean", float("inf")), "row 5, has a mean that is not finite"),
        (put("mean", 6e4), "row 5, has a mean that is not finite, or over 10000 deviations off"),
        (put("logvar", 1e4), "row 5, has a logvar that is not from -30 to 20"),
        (put("label", 25), "row 5, has a label that is not that of its class_name"),
        (put("label", -1), "row 5, has a label that is not that of its class_name"),
        (put("class_name", "stranger"), "row 5, has a label that is not that of its class_name"),
    ],
)
def test_rows_that_training_cannot_take_are_named(copied, change, told):
    path = copied / "data/train-00000-of-00009.parquet"
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"{path}.*{told}"):
        load_latents(copied)


@pytest.mark.parametrize(("column", "value"), [("mean", float("nan")), ("logvar", -1e4)])
def test_a_bad_row_of_the_last_file_is_named_by_its_place_there(copied, column, value):
    path = copied / "data/train-00008-of-00009.parquet"
    rewrite(path, put(column, value))
    with pytest.raises(ValueError, match=f"{path}, row 5, has a {column} that is not"):
        load_latents(copied)


def test_columns_of_another_type_are_named(copied):
    def whole_numbers(columns):
        columns["mean"] = [[0] * len(row) for row in columns["mean"]]
        return {"mean": pa.list_(pa.int32(), len(columns["mean"][0]))}

    for path in (copied / "data").iterdir():
        rewrite(path, whole_numbers)
    with pytest.raises(ValueError, match="its mean must be 56 floating point numbers, is .*int32"):
        load_latents(copied)


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint8", "uint16", "uint64"])
def test_labels_of_any_whole_number_type_are_read_as_int64(copied, tiny_latents, kind):
    for path in (copied / "data").iterdir():
        rewrite(path, lambda _: {"label": pa.type_for_alias(kind)})
    rows, expected = (load_latents(path)[0]["train"] for path in (copied, tiny_latents.latents_dir))
    assert rows.features["label"].dtype == kind
    labels, right = (LatentDataset(of).__getitems__(range(150))["label"] for of in (rows, expected))
    assert labels.dtype == torch.int64 and torch.equal(labels, right)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"class_names": ["a", "b"]}, "a label that is not that of its class_name"),
        ({"class_names": "abc"}, "class_names must be a list, each a word, got 'abc'"),
        ({"class_names": ["a", "a"]}, "class names must differ"),
        ({"fps": 1e9}, "fps must be a number above 0, at most 1000"),
        ({"fps": None}, "fps must be a finite number, got None"),
        ({"latents_mean": [0.0]}, "latents_mean: expected"),
        ({"latents_std": None}, "latents_std must be"),
        ({"layout": 3}, "layout must be a list"),
        ({"num_rows": {"train": 1, "test": 56}}, "num_rows counts 1 train rows, its files have 144"),
        (
            {"files": {"data/train-00000-of-00009.parquet": None}},
            "train-00000-of-00009.parquet must be an object",
        ),
    ],
    ids=str,
)
def test_what_latents_json_says_is_checked(copied, values, told):
    about = json.loads((copied / "latents.json").read_text())
    (copied / "latents.json").write_text(json.dumps(about | values))
    with pytest.raises(
        ValueError, match=f"{told}.*copy the whole folder again, or remove it and encode again"
    ):
        load_latents(copied)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"grid": [2, 4]}, r"features: grid must be 3 numbers, got \[2, 4\]"),
        ({"grid": [2, 4, 0]}, "features: size 2 of their grid and dim must be from 1 to"),
        ({"dim": None}, "dim must be a whole number, got None"),
        ({"dim": 13}, "its features must be 416 floating point numbers, is fixed_size_list.*halffloat"),
    ],
    ids=str,
)
def test_what_latents_json_says_of_features_is_checked(featured_latents, tmp_path, values, told):
    copied = shutil.copytree(featured_latents.latents_dir, tmp_path / "copy", ignore=lambda *_: [".cache"])
    about = json.loads((copied / "latents.json").read_text())
    about["features"] |= values
    (copied / "latents.json").write_text(json.dumps(about))
    with pytest.raises(
        ValueError, match=f"{told}.*copy the whole folder again, or remove it and encode again"
    ):
        load_latents(copied)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_training_cannot_take_are_named(featured_latents, tmp_path, value):
    copied = shutil.copytree(featured_latents.latents_dir, tmp_path / "copy", ignore=lambda *_: [".cache"])
    path = next((copied / "data").glob("test-*"))

    def put_value(columns):
        columns["features"] = np.float16(columns["features"])
        columns["features"][2, 7] = value
        columns["features"] = list(columns["features"])

    rewrite(path, put_value)
    with pytest.raises(ValueError, match=f"{path.name}, row 2, has a feature that is not finite"):
        load_latents(copied)


def test_classes_in_another_order_than_the_labels(copied):
    about = json.loads((copied / "latents.json").read_text())
    about["class_names"] = about["class_names"][::-1]
    (copied / "latents.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="row 0, has a label that is not that of its class_name"):
        load_latents(copied)


def test_what_is_no_folder_of_latents_is_told(copied):
    with pytest.raises(ValueError, match=r"no latents.json; expected a folder written by"):
        load_latents(copied / "data")
    (copied / "latents.json").write_text("{")
    with pytest.raises(ValueError, match=r"latents.json can't be read as JSON"):
        load_latents(copied)
    (copied / "latents.json").write_text('{"layout": []}')
    with pytest.raises(ValueError, match="earlier version wrote it: encode again"):
        load_latents(copied)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_rows_is_told(copied, split):
    about = json.loads((copied / "latents.json").read_text())
    about["files"] = {name: of for name, of in about["files"].items() if f"/{split}-" not in name}
    (copied / "latents.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"copy/latents.json counts no {split} rows: encode"):
        load_latents(copied)


def load_and_tell(path, begin, queue):
    begin.wait(60)
    rows, _ = load_latents(path)
    queue.put((sum(rows["train"]["label"][:]), rows["train"].cache_files[0]["filename"]))


def test_processes_that_load_at_once_agree(copied):
    context = multiprocessing.get_context("fork")
    begin, queue = context.Barrier(3), context.Queue()
    processes = [context.Process(target=load_and_tell, args=(copied, begin, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    told = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(set(told)) == 1
    assert Path(told[0][1]).is_relative_to(copied / ".cache")


def test_a_folder_that_cannot_be_written_to_is_unpacked_elsewhere(copied, tmp_path, monkeypatch):
    (copied / ".cache").write_text("in the way, as a file system that is read only would be")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "elsewhere")
    rows, _ = load_latents(copied)
    assert Path(rows["test"].cache_files[0]["filename"]).is_relative_to(tmp_path / "elsewhere")
    # what has been encoded again in its place is not mistaken for it
    shutil.copy(copied / "data/test-00000-of-00004.parquet", copied / "data/train-00000-of-00009.parquet")
    about = json.loads((copied / "latents.json").read_text())
    about["files"]["data/train-00000-of-00009.parquet"] = about["files"]["data/test-00000-of-00004.parquet"]
    (copied / "latents.json").write_text(json.dumps(about))
    assert load_latents(copied)[0]["train"]["mean"][:16] == rows["test"]["mean"][:16]


def test_rows_are_of_the_folder_and_not_of_one_that_its_name_fits(copied):
    """The library takes paths for patterns."""
    rows, _ = load_latents(copied)
    named, fitting = (copied.with_name(f"{copied.name}{end}") for end in ("[1]", "1"))
    for folder in (named, fitting):
        shutil.copytree(copied, folder, ignore=lambda *_: [".cache"])
    for path in (fitting / "data").iterdir():
        rewrite(path, put("mean", 0.5))
    assert load_latents(named)[0]["train"]["mean"][:] == rows["train"]["mean"][:]


@pytest.mark.parametrize("writable", [True, False])
def test_rows_that_replaced_others_are_read_whatever_the_times_of_their_files(
    copied, tmp_path, monkeypatch, writable
):
    """As a copy that keeps times, in place of another one, has them."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "elsewhere")
    if not writable:
        (copied / ".cache").write_text("in the way")
    path = copied / "data/train-00000-of-00009.parquet"
    os.utime(path, (0, 0))
    before = load_latents(copied)[0]["train"]["mean"][5]
    rewrite(path, put("mean", 0.5))
    os.utime(path, (0, 0))
    assert load_latents(copied)[0]["train"]["mean"][5] == [*before[:3], 0.5, *before[4:]]


def test_order_and_seeds_are_the_same_on_every_machine():
    """Numbers that a run resumed elsewhere, or by a later version, must meet again."""
    assert hash64("a", 1) == 8588983153282268942
    assert seeded_generator("noise", 0).initial_seed() == 8210108827180891337
    order = EpochOrder(8, shuffle=True, seed=0)
    assert [order[draw] for draw in range(8, 16)] == [2, 0, 7, 4, 3, 5, 1, 6]
    order = EpochOrder(5, shuffle=True, seed=0)
    assert sorted(order[draw] for draw in range(15, 20)) == list(range(5))
    with pytest.raises(IndexError, match="counted from 0, got -1"):
        order[-1]
    first, second = (torch.rand(3, generator=seeded_generator("noise", i)) for i in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(3, generator=seeded_generator("noise", 0)), first)
