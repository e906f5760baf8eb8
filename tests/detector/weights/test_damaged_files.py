"""Files that are no checkpoint, damaged or hostile: one line, which says what the file is."""

import io
import json
import pickle
import tarfile
import warnings
import zipfile

import helpers
import numpy as np
import pytest
import torch

from detector.base.errors import UserError
from detector.config.recipe import Recipe
from detector.network.model import build_detector
from detector.weights import checkpoint
from detector.weights.file_kinds import DamagedCheckpoint, damage, discard_damaged
from detector.weights.files import read_weights
from detector.weights.pretrained import read_start, repair_start
from nas.models.model_folder import load_model

DETECTOR = helpers.TINY_DETECTOR


@pytest.fixture(scope="module")
def model():
    return build_detector(DETECTOR)


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, model, DETECTOR, Recipe(), {"history": [{"epoch": 1}]})
    return path


def zipped(**parts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return file.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def torch_bytes(content, **flags) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **flags)
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


LEGACY = {"_use_new_zipfile_serialization": False}
KINDS = {
    "empty": (lambda: b"", "an empty file"),
    "zeros": (lambda: bytes(5000), "a file of zeros"),
    "text": (lambda: "grüße\n".encode() * 900, "a text file"),
    "json": (lambda: b' {"format": 1}', "a JSON file"),
    "html": (lambda: b"\n<!DOCTYPE html><html>404</html>", "an HTML page"),
    "lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "a git-LFS pointer",
    ),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(30), "a gzip file"),
    "tar": (tarred, "a tar archive"),
    "zip": (lambda: zipped(**{"a.txt": "x"}), "a zip archive without data.pkl"),
    "cut zip": (lambda: zipped(**{"a/data.pkl": "x" * 99})[:50], "a zip archive that is cut off"),
    "script": (script, "a TorchScript archive"),
    "safetensors": (safetensors, "a safetensors file"),
    "onnx": (lambda: b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0:\xd6", "an ONNX model"),
    "npz": (lambda: zipped(**{"a.npy": "x"}), "a NumPy archive"),
    "npy": (lambda: b"\x93NUMPY\x01\x00", "a NumPy array"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "module": (
        lambda: torch_bytes(torch.nn.Linear(2, 2)),
        "a pickle that needs the class torch.nn.modules.linear.Linear",
    ),
    "old module": (
        lambda: torch_bytes(torch.nn.Linear(2, 2), **LEGACY),
        "a pickle that needs the class torch.nn.modules.linear.Linear",
    ),
    "class": (
        lambda: torch_bytes({"args": helpers.manifest().objective}),
        "a pickle that needs the class trials.objective.Objective",
    ),
    "trap": (lambda: pickle.dumps(np.load), "a pickle that needs the class numpy"),
    "nested": (
        lambda: (3000).to_bytes(8, "little") + b'{"a":' + b"[" * 3000,
        "a file of unknown kind",
    ),
    "noise": (lambda: bytes(range(128, 256)) * 40, "a file of unknown kind"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_file_is(name, tmp_path):
    make, kind = KINDS[name]
    path = tmp_path / "x.pt"
    path.write_bytes(make())
    for read in (checkpoint.load, lambda path: read_weights(str(path), DETECTOR)):
        with pytest.raises(UserError) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(f"{path}: ") and f"it looks like {kind}" in message
        assert "expected is a file of torch.save with tensors and plain data" in message
        assert "weights_only" not in message and "\n" not in message
    assert (damage(path) is None) == (name in ("module", "class"))  # which are intact


@pytest.mark.parametrize("flags", [{}, LEGACY])
def test_tensors_of_other_programs_are_read(model, tmp_path, flags):
    path = tmp_path / "x.pth"
    path.write_bytes(torch_bytes(model.state_dict(), **flags))
    assert read_weights(str(path), DETECTOR).part == "detector"


def test_files_without_checksums_are_read(model, tmp_path):
    """torch can be told to leave them out."""
    path = tmp_path / "x.pth"
    torch.serialization.set_crc32_options(False)
    try:
        path.write_bytes(torch_bytes(model.state_dict()))
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weights(str(path), DETECTOR).part == "detector"


def test_every_flipped_bit_is_noticed_or_has_no_effect(saved, model):
    """Wherever it is: in the weights, in their names, in the archive's own tables."""
    whole, expected = saved.read_bytes(), model.state_dict()
    rng, noticed = np.random.default_rng(0), 0
    positions = [*rng.integers(0, len(whole), 60), *(len(whole) - rng.integers(1, 9000, 60))]
    for position in positions:
        content = bytearray(whole)
        content[position] ^= 1 << rng.integers(8)
        saved.write_bytes(content)
        try:
            loaded = checkpoint.load(saved)
        except DamagedCheckpoint:
            noticed += 1
        else:
            assert (loaded.config, loaded.state) == (DETECTOR, {"history": [{"epoch": 1}]})
            assert all(torch.equal(loaded.model[name], expected[name]) for name in expected)
    assert noticed > 50


def test_a_damaged_checkpoint_is_discarded_once(saved):
    assert damage(saved) is None and discard_damaged(saved) is None
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    assert discard_damaged(saved) == (
        "last.pt was damaged (cut off) and is removed; training starts again"
    )
    assert not saved.exists() and discard_damaged(saved) is None
    saved.mkdir()
    assert "(a folder)" in discard_damaged(saved) and not saved.exists()


# -- hostile ----------------------------------------------------------------------------------


def nested(depth: int) -> dict:
    value: dict = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def lists_in_lists() -> list:
    """Few bytes, 10 ** 9 entries."""
    value: list = []
    for _ in range(9):
        value = [value] * 10
    return value


def backbone(**changes) -> dict:
    plain = DETECTOR.to_dict()
    return {"detector": plain | {"backbone": plain["backbone"] | changes}}


FIRST = "backbone.stages.0.0.conv.weight"
HOSTILE = {
    "wider": (backbone(widths=[8, 16, 16, 32, 10**9]), "h.pt: detector: backbone.widths: 10000"),
    "wide": (backbone(widths=[8, 16, 16, 32, 60_000]), "weights of another design: first"),
    "deeper": (backbone(depths=[10**9] * 5), "h.pt: detector: backbone.depths: 1000000000 must"),
    "deep": (backbone(depths=[900] * 5), "has at least 4503 layers, but it holds"),
    "stem": (backbone(stem=float("inf")), "h.pt: detector"),
    "text": (backbone(stem="8" * 10**6), "backbone.stem: '888"),
    "nested": ({"detector": nested(200)}, "is nested more than 30 levels deep"),
    "lists": ({"recipe": lists_in_lists()}, "has more than 1,000,000 entries"),
    "no design": ({"detector": [1]}, "must be a mapping"),
    "list": ({"model": [1]}, "no table of named tensors"),
    "no tensors": ({"model": {"a": "b"}}, "no table of named tensors"),
    "state": ({"state": [1]}, "no table of named tensors"),
    "format": ({"format": "\x1b[2J" * 99}, r"checkpoint format \x1b[2J"),
}


@pytest.mark.parametrize("name", [*HOSTILE, "expanded", "missing", "meta", "name"])
def test_a_hostile_checkpoint_is_one_line(name, model, tmp_path):
    tensors = dict(model.state_dict())
    if name == "expanded":  # a tensor of 4 TB in a file of 4 bytes
        changes = {"model": tensors | {FIRST: torch.zeros(1).expand(10**12)}}
        message = "a tensor in it has the shape [1000000000000], but fewer values"
    elif name == "missing":
        changes = {"model": {key: tensors[key] for key in tensors if key != FIRST}}
        message = "first difference is nothing there"
    elif name == "name":
        changes = {"model": tensors | {"\x1b[2J": torch.zeros(1)}}
        message = r"\x1b[2J"
    elif name == "meta":
        changes = {"model": tensors | {FIRST: torch.zeros(8, 3, 3, 3, device="meta")}}
        message = "has no values of its own"
    else:
        changes, message = HOSTILE[name]
    content = {
        "format": 1,
        "detector": DETECTOR.to_dict(),
        "recipe": Recipe().to_dict(),
        "model": tensors,
        "state": {},
    }
    torch.save(content | changes, tmp_path / "h.pt")
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "h.pt")
    text = str(error.value)
    assert message in text and text.isprintable() and len(text) < 700


def test_a_compressed_archive_is_not_unpacked(saved):
    """A part of zeros could be a thousand times as large as its file."""
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(DamagedCheckpoint, match="has compressed parts, which torch never writes"):
        checkpoint.load(saved)


def test_texts_are_safe_to_print(model, tmp_path):
    origin = helpers.metrics(DETECTOR, title="\x1b[2Jtrial 1\n\x07 of füße").origin
    checkpoint.save(tmp_path / "x.pt", model, DETECTOR, Recipe(), {"origin": origin.to_dict()})
    assert load_model(tmp_path / "x.pt").title == r"\x1b[2Jtrial 1\n\x07 of füße"


# -- start.json -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", '{"sou', "[1]", "[" * 100_000])
def test_a_damaged_start_is_written_again(tmp_path, content):
    path = tmp_path / "start.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"start\.json: cannot be read .*; remove it"):
        read_start(tmp_path)
    repair_start(tmp_path, {"source": "x.pt"})
    assert read_start(tmp_path) == {"source": "x.pt"}
    path.write_text(content)
    repair_start(tmp_path, None)
    assert read_start(tmp_path) is None
    path.write_text('{"source": "y.pt", "layers": []}')
    repair_start(tmp_path, None)  # not damaged
    assert read_start(tmp_path) == {"source": "y.pt"}
