"""The Hugging Face features of a source are those of what is distilled from it, and work."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from cases import DIGITS
from datasets import ClassLabel, Dataset, Image, List, Value, load_dataset

DIGIT_NAMES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def pictures(distill, tmp_path_factory):
    output = distill.run(DIGITS, "hugging-face")
    return Dataset.from_parquet(str(output), cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_the_features_are_the_sources(pictures, tmp_path):
    assert pictures.features == Dataset.from_parquet(str(DIGITS), cache_dir=str(tmp_path)).features
    assert pictures.features == {"image": Image(), "label": ClassLabel(names=DIGIT_NAMES)}


def test_load_dataset_reads_a_file_with_its_features(pictures, distill, tmp_path):
    files = {"train": str(distill.folder / "hugging-face.parquet"), "test": str(DIGITS)}
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
    assert loaded["train"].features == loaded["test"].features == pictures.features
    assert loaded["train"][:]["label"] == pictures[:]["label"]


def test_pictures_decode_to_the_size_and_mode_of_the_real_ones(pictures, tmp_path):
    real = Dataset.from_parquet(str(DIGITS), cache_dir=str(tmp_path))[0]["image"]
    for row in pictures:
        assert (row["image"].format, row["image"].size, row["image"].mode) == ("PNG", (8, 8), "L")
        assert (row["image"].size, row["image"].mode) == (real.size, real.mode)
    spread = [np.ptp(np.asarray(row["image"])) for row in pictures]
    assert min(spread) > 100, "a digit is dark and bright"


def test_labels_have_names(pictures):
    label = pictures.features["label"]
    assert [label.int2str(value) for value in pictures["label"]] == [name for name in DIGIT_NAMES for _ in range(2)]


def test_labels_and_pictures_can_be_cast(pictures):
    names = pictures.cast_column("label", Value("string"))
    assert names["label"][0] == "0" and names.features["label"] == Value("string")
    renamed = pictures.cast_column("label", ClassLabel(names=[f"digit {digit}" for digit in range(10)]))
    assert renamed.features["label"].int2str(renamed["label"][-1]) == "digit 9"
    colour = pictures.cast_column("image", Image(mode="RGB"))
    assert (colour[0]["image"].mode, colour[0]["image"].size) == ("RGB", (8, 8))
    stored = pictures.cast_column("image", Image(decode=False))
    assert stored[0]["image"]["bytes"].startswith(b"\x89PNG")


def test_a_dataset_written_again_keeps_rows_and_features(pictures, tmp_path):
    pictures.to_parquet(str(tmp_path / "again.parquet"))
    again = Dataset.from_parquet(str(tmp_path / "again.parquet"), cache_dir=str(tmp_path))
    assert again.features == pictures.features
    assert again.with_format("arrow")[:].equals(pictures.with_format("arrow")[:])


def test_pictures_and_tensors_of_one_seed_are_the_same_pictures(pictures, distill, tmp_path):
    output = distill.run(DIGITS, "tensors", "--encoding", "tensor")
    tensors = Dataset.from_parquet(str(output), cache_dir=str(tmp_path))
    assert tensors.features == {"image": List(List(List(Value("float32")))), "label": ClassLabel(names=DIGIT_NAMES)}
    for picture, tensor in zip(pictures, tensors):
        exact = np.asarray(tensor["image"])
        assert exact.shape == (1, 8, 8), "channels, rows, columns"
        assert np.abs(np.asarray(picture["image"]) - exact[0]).max() <= 0.5 + 1e-4


def test_what_datasets_wrote_can_be_distilled(distill, tmp_path):
    written = Dataset.from_dict(
        {
            "picture": [
                {"bytes": row["bytes"], "path": "a/b.png"} for row in pq.read_table(DIGITS)["image"].to_pylist()
            ],
            "kind": pq.read_table(DIGITS)["label"].to_pylist(),
        }
    ).cast_column("picture", Image(mode="L"))
    written = written.cast_column("kind", ClassLabel(names=[f"digit {digit}" for digit in range(10)]))
    written.to_parquet(str(tmp_path / "written.parquet"))
    output = distill.run(tmp_path / "written.parquet", "written-by-datasets")
    read = Dataset.from_parquet(str(output), cache_dir=str(tmp_path))
    assert read.features == written.features
    assert read.features["kind"].int2str(read["kind"][0]) == "digit 0"


def test_soft_labels_are_a_list_of_numbers_beside_the_label(distill, tmp_path):
    output = distill.run(DIGITS, "soft", "--label-kind", "soft")
    soft = Dataset.from_parquet(str(output), cache_dir=str(tmp_path))
    assert soft.features["soft_label"] == List(Value("float32"))
    order = pq.read_schema(output).field("soft_label").metadata[b"datafusion-distill.classes"]
    assert order == b"ascending values of the label column"
    for row in soft:
        shares = row["soft_label"]
        assert len(shares) == 10 and sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares[row["label"]] == max(shares), "the labels are 0 to 9, and so the order of the shares"
