"""The files of the real sets: formats, hashes, $GVLIB_DATA, the cache, downloads."""

import gzip
import hashlib
import http.server
import importlib.util
import io
import lzma
import os
import shutil
import socket
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gvlib import data, sources
from gvlib._display import resource

FULL = os.environ.get("GVLIB_DATA")
ROOT = Path(__file__).resolve().parent.parent


def idx(array):
    """An IDX file of bytes, written as its description says."""
    header = bytes([0, 0, 8, array.ndim])
    for length in array.shape:
        header += length.to_bytes(4, "big")
    return header + array.astype(np.uint8).tobytes()


def sha(raw):
    return hashlib.sha256(raw).hexdigest()


def everything_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# ------------------------------------------------------------------------------ formats


def test_idx_is_read_in_its_shape():
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(sources.read_idx(idx(array)), array)


@pytest.mark.parametrize(
    "raw, says",
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\0\0\x0d\x01" + bytes(8), "not an IDX file"),  # floats, not bytes
        (b"\x1f\x8b\x08\x00" + bytes(40), "not an IDX file"),  # still a .gz
        (b"\0\0\x08\x03" + bytes(5), "not an IDX file"),
        (idx(np.zeros((2, 3)))[:-1], "has 18 bytes, this one 17"),
        (idx(np.zeros((2, 3))) + b"\0", "has 18 bytes, this one 19"),
    ],
)
def test_idx_refuses_what_is_not_whole(raw, says):
    with pytest.raises(ValueError, match=says):
        sources.read_idx(raw)


def test_cifar_records_are_label_then_planes():
    record = bytes([7]) + bytes([1] * 1024 + [2] * 1024 + [3] * 1024)
    images, labels = sources.read_cifar(record + bytes(3073))
    assert labels.tolist() == [7, 0]
    assert images.shape == (2, 3, 32, 32)
    assert [np.unique(plane).tolist() for plane in images[0]] == [[1], [2], [3]]
    for raw in (b"", record[:-1]):
        with pytest.raises(ValueError, match="3073 bytes an image"):
            sources.read_cifar(raw)


# ----------------------------------------------------------------------- embedded files


def packed_files():
    return sorted(resource("data").glob("*.xz"))


def test_every_file_of_every_set_has_a_hash():
    sums = sources._sums()
    for source in sources.SOURCES.values():
        for file in source.files["train"] + source.files["test"]:
            assert len(sums[f"{source.folder}/{file}"]) == 64
            assert f"{source.folder}/{source.archive.format(file)}" in sums


def test_embedded_files_decode_to_their_hashes_and_stay_small():
    sums = {path.replace("/", "-"): value for path, value in sources._sums().items()}
    files = packed_files()
    assert len(files) == 8
    for file in files:
        assert sha(lzma.decompress(file.read_bytes())) == sums[file.name[:-3]]
    size = {s: sum(f.stat().st_size for f in files if f.name.startswith(s))
            for s in ("fashion", "mnist")}  # fmt: skip
    assert size["fashion"] < 7_700_000
    assert size["mnist"] < 2_800_000


def test_the_licences_stand_beside_the_files():
    assert "Zalando SE" in (resource("data") / "LICENSE-fashion-mnist").read_text()
    licence = (resource("data") / "LICENSE-mnist").read_text()
    assert "Share Alike" in licence
    assert "LeCun" in licence


@pytest.mark.parametrize("harm", ["gone", "short", "altered", "other"])
def test_harmed_embedded_file_is_refused(harm, tmp_path, monkeypatch):
    for file in (*packed_files(), resource("data") / "SHA256SUMS"):
        shutil.copy(file, tmp_path)
    victim = tmp_path / "mnist-t10k-labels-idx1-ubyte.xz"
    raw = victim.read_bytes()
    victim.unlink()
    if harm == "short":
        victim.write_bytes(raw[:-30])
    elif harm == "altered":
        victim.write_bytes(raw[:2000] + bytes([raw[2000] ^ 1]) + raw[2001:])
    elif harm == "other":
        victim.write_bytes(lzma.compress(lzma.decompress(raw)[:-1] + b"\x01"))
    monkeypatch.setattr(sources, "resource", lambda _: tmp_path)
    sources._decoded.cache_clear()
    with pytest.raises(ValueError, match=r"mnist-t10k-labels.*get this copy of gvlib"):
        sources.read("mnist", "test")
    sources.read("mnist", "train")


def test_a_python_without_lzma_is_told_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "lzma", None)
    sources._decoded.cache_clear()
    with pytest.raises(ImportError, match="install liblzma"):
        sources.read("mnist", "test")


# ---------------------------------------------------- small sets on a server of our own


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; cuts the first `cut` answers short; counts in `asked`."""

    files: dict  # path: content
    cut = 0
    asked: list

    def do_GET(self):
        cls = type(self)
        cls.asked.append(self.path)
        raw = self.files.get(self.path)
        if raw is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if cls.cut:
            cls.cut -= 1
            raw = raw[: len(raw) // 2]
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"files": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        handler.address = f"http://127.0.0.1:{running.server_port}/"
        yield handler
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def made():
    """Files of the form of MNIST and CIFAR-10, their archives, and all hashes."""
    random = np.random.default_rng(0)
    raw = {}
    for split, n in (("train", 60_000), ("t10k", 100)):
        # 60,000 images of 1 x 2 pixels, so that more than 10,000 can be asked for
        pixels = random.integers(256, size=(n, 1, 2))
        raw[f"mnist/{split}-images-idx3-ubyte"] = idx(pixels)
        raw[f"mnist/{split}-labels-idx1-ubyte"] = idx(random.integers(10, size=n))
    for name in sources.SOURCES["cifar-10"].files["train"] + ("test_batch.bin",):
        batch = random.integers(256, size=(4, 3073))
        batch[:, 0] %= 10
        raw[f"cifar-10-batches-bin/{name}"] = batch.astype(np.uint8).tobytes()
    archives = {f"{p}.gz": gzip.compress(raw[p], 1) for p in raw if p[0] == "m"}
    archives["cifar-10-batches-bin/cifar-10-binary.tar.gz"] = tar_of(
        {path: content for path, content in raw.items() if path[0] == "c"}
    )
    sums = {path: sha(content) for path, content in {**raw, **archives}.items()}
    return raw, archives, sums


@pytest.fixture
def small(made, server, tmp_path, monkeypatch):
    """MNIST and CIFAR-10 of small random images, offered by the server alone."""
    raw, archives, sums = made
    for path, content in archives.items():
        server.files[f"/{Path(path).name}"] = content
    real = sources.SOURCES
    monkeypatch.setattr(sources, "SOURCES", {
        "mnist": replace(real["mnist"], shape=(1, 1, 2), addresses=(server.address,)),
        "cifar-10": replace(
            real["cifar-10"],
            addresses=(server.address,),
            sizes={"train": 20, "test": 4},
        ),
    })  # fmt: skip
    sums = dict(sums)
    monkeypatch.setattr(sources, "_sums", lambda: sums)
    monkeypatch.setenv("GVLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GVLIB_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    sources._decoded.cache_clear()
    yield raw
    sources._decoded.cache_clear()


def tar_of(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


IMAGES = "train-images-idx3-ubyte"


def test_download_is_checked_kept_and_not_repeated(small, server, tmp_path):
    images, labels = sources.read("mnist", "train", full=True)
    np.testing.assert_array_equal(
        images.reshape(-1, 1, 2), sources.read_idx(small[f"mnist/{IMAGES}"])
    )
    assert len(labels) == 60_000
    assert everything_below(tmp_path / "cache") == [
        f"mnist/{IMAGES}",
        "mnist/train-labels-idx1-ubyte",
    ]
    assert server.asked == [f"/{IMAGES}.gz", "/train-labels-idx1-ubyte.gz"]
    sources._decoded.cache_clear()
    sources.read("mnist", "train", full=True)
    assert len(server.asked) == 2


def test_one_archive_brings_all_of_cifar(small, server, tmp_path):
    train, test = data.load("cifar-10", device="cpu", normalize=False)
    first = np.frombuffer(small["cifar-10-batches-bin/data_batch_1.bin"], np.uint8)
    assert train.x.shape == (20, 3, 32, 32)
    assert train.y[0] == first[0]
    np.testing.assert_array_equal(
        (train.x[0].flatten() * 255).round().numpy(), first[1:3073]
    )
    last = np.frombuffer(small["cifar-10-batches-bin/test_batch.bin"], np.uint8)
    assert test.y.tolist() == last[::3073].tolist()
    assert server.asked == ["/cifar-10-binary.tar.gz"]
    assert len(everything_below(tmp_path / "cache")) == 6
    few, _ = data.load("cifar-10", n_train=7, n_test=2, device="cpu")
    assert len(few) == 7


def test_download_prints_nothing_that_stays(small, capsys):
    sources.read("mnist", "train", full=True)
    out, err = capsys.readouterr()
    assert out == ""
    # The bar goes to stderr and is wiped: what is left of the last line is blank.
    assert err.rpartition("\r")[2].strip() == ""
    assert f"{IMAGES}.gz" in err


def test_download_is_silent_while_the_book_is_built(small, capsys, monkeypatch):
    monkeypatch.setenv("GV_STATIC", "1")
    sources.read("mnist", "train", full=True)
    assert capsys.readouterr() == ("", "")


def test_second_address_is_tried(small, server, monkeypatch):
    source = sources.SOURCES["mnist"]
    two = (server.address + "moved/", server.address)
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(source, addresses=two))
    assert sources.genuine("mnist", IMAGES) == small[f"mnist/{IMAGES}"]
    assert server.asked == [f"/moved/{IMAGES}.gz", f"/{IMAGES}.gz"]


def test_truncated_download_leaves_nothing(small, server, tmp_path):
    server.cut = 1
    with pytest.raises(ConnectionError, match=r"train-images.*could not be downloaded"):
        sources.genuine("mnist", IMAGES)
    assert everything_below(tmp_path) == []
    assert list((tmp_path / "cache/mnist").iterdir()) == []
    assert sources.genuine("mnist", IMAGES) == small[f"mnist/{IMAGES}"]


@pytest.mark.parametrize("wrong", [b"<html>captive portal</html>", b""])
def test_wrong_download_is_named_and_leaves_nothing(small, server, tmp_path, wrong):
    server.files[f"/{IMAGES}.gz"] = wrong
    with pytest.raises(ConnectionError, match=rf"not the genuine .*{len(wrong)} bytes"):
        sources.genuine("mnist", IMAGES)
    assert everything_below(tmp_path) == []


def test_right_archive_of_wrong_content_is_refused(small, tmp_path):
    sources._sums()[f"mnist/{IMAGES}"] = sha(b"another file")
    with pytest.raises(ValueError, match=f"{IMAGES} of mnist is not genuine"):
        sources.genuine("mnist", IMAGES)
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize(
    "name, file", [("mnist", IMAGES), ("cifar-10", "test_batch.bin")]
)
def test_interrupted_download_leaves_nothing(small, tmp_path, monkeypatch, name, file):
    import tqdm

    class Interrupted(tqdm.tqdm):
        def update(self, n=1):
            if n:  # the first bytes are written by now
                written = list((tmp_path / "cache").rglob("archive"))
                assert written[0].stat().st_size > 0
                raise KeyboardInterrupt
            return super().update(n)

    monkeypatch.setattr(tqdm, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        sources.genuine(name, file)
    assert everything_below(tmp_path) == []


def test_interrupted_unpacking_leaves_whole_files_only(small, tmp_path, monkeypatch):
    real, moved = os.replace, []

    def interrupt(source, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(real(source, target))

    monkeypatch.setattr(sources.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sources.genuine("cifar-10", "test_batch.bin")
    kept = "cifar-10-batches-bin/data_batch_1.bin"
    assert everything_below(tmp_path / "cache") == [kept]
    assert (tmp_path / "cache" / kept).read_bytes() == small[kept]


def test_what_a_killed_process_left_is_cleared_away(small, tmp_path):
    folder = tmp_path / "cache/mnist"
    for name, age in ((".download-old", 2 * 24 * 3600), (".download-new", 60)):
        (folder / name).mkdir(parents=True)
        (folder / name / "archive").write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    sources.genuine("mnist", IMAGES)
    assert everything_below(folder) == [".download-new/archive", IMAGES]


@pytest.mark.parametrize("harm", ["short", "altered"])
def test_wrong_file_in_the_cache_is_named_and_deleted(small, tmp_path, harm, server):
    sources.genuine("mnist", IMAGES)
    cached = tmp_path / "cache/mnist" / IMAGES
    raw = cached.read_bytes()
    cached.write_bytes(raw[:-1] if harm == "short" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{IMAGES} \(.*cut short.*deleted now"):
        sources.genuine("mnist", IMAGES)
    assert not cached.exists()
    assert sources.genuine("mnist", IMAGES) == raw
    assert len(server.asked) == 2


def test_wrong_file_that_cannot_be_deleted_is_named(small, tmp_path, monkeypatch):
    sources.genuine("mnist", IMAGES)
    cached = tmp_path / "cache/mnist" / IMAGES
    cached.write_bytes(b"wrong")

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ValueError, match=r"could not be deleted \(Permission denied\)"):
        sources.genuine("mnist", IMAGES)


def test_cache_that_cannot_be_written_is_named(small, server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file where a folder should be")
    monkeypatch.setenv("GVLIB_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(OSError, match=r"file/cache/mnist \(.*set GVLIB_CACHE to"):
        data.load("mnist", n_train=20_000)
    assert server.asked == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_cache_without_permission_is_named(small, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("GVLIB_CACHE", str(tmp_path / "locked"))
    with pytest.raises(PermissionError, match="set GVLIB_CACHE"):
        sources.genuine("mnist", IMAGES)


def test_readable_cache_need_not_be_writable(small, tmp_path, monkeypatch):
    raw = sources.genuine("mnist", IMAGES)

    def refuse(_):
        raise AssertionError("nothing is to be written")

    monkeypatch.setattr(sources, "_writable", refuse)
    assert sources.genuine("mnist", IMAGES) == raw


def test_cache_folder_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("GVLIB_CACHE", str(tmp_path))
    assert sources.cache_folder() == tmp_path
    monkeypatch.delenv("GVLIB_CACHE")
    assert sources.cache_folder().name == "gvlib"
    monkeypatch.setenv("GVLIB_CACHE", "~/here")
    assert sources.cache_folder() == Path.home() / "here"


# --------------------------------------------------------------- GVLIB_DATA, no network


@pytest.fixture
def own(small, tmp_path, monkeypatch):
    """The small sets in a folder of the user's."""
    folder = tmp_path / "own"
    for path, content in small.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    monkeypatch.setenv("GVLIB_DATA", str(folder))
    return folder


def test_own_files_come_first(own, small, server, tmp_path):
    assert sources.genuine("mnist", IMAGES) == small[f"mnist/{IMAGES}"]
    assert server.asked == []
    assert not (tmp_path / "cache").exists()


def test_what_is_missing_there_is_downloaded(own, server):
    (own / "mnist" / IMAGES).unlink()
    sources.read("mnist", "train", full=True)
    assert server.asked == [f"/{IMAGES}.gz"]


def test_own_wrong_file_is_named_and_left_alone(own, server):
    mine = own / "mnist" / IMAGES
    mine.write_bytes(mine.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{mine} \(1,000 bytes\).*unset GVLIB_DATA"):
        sources.genuine("mnist", IMAGES)
    assert mine.stat().st_size == 1000
    assert server.asked == []


def test_gvlib_data_that_is_no_folder_is_named(small, monkeypatch, tmp_path):
    monkeypatch.setenv("GVLIB_DATA", str(tmp_path / "typo"))
    with pytest.raises(FileNotFoundError, match=r"typo.*no folder.*holds mnist/"):
        sources.genuine("mnist", IMAGES)


@pytest.fixture
def cut_off(monkeypatch, tmp_path):
    """The real sets, no network, nothing in the cache."""

    def refuse(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("GVLIB_DATA", raising=False)
    monkeypatch.setenv("GVLIB_CACHE", str(tmp_path))
    sources._decoded.cache_clear()


@pytest.mark.parametrize("name", ["fashion-mnist", "mnist"])
def test_too_many_without_a_network_says_what_to_do(cut_off, name, tmp_path):
    with pytest.raises(ConnectionError) as caught:
        data.load(name, n_train=10_001)
    message = str(caught.value)
    assert "n_train <= 10,000" in message
    assert "set GVLIB_DATA=<folder>" in message
    assert f"<folder>/{name}" in message
    for address in sources.SOURCES[name].addresses:
        assert address in message
    assert everything_below(tmp_path) == []
    train, _ = data.load(name, n_train=10_000, device="cpu")
    assert len(train) == 10_000


def test_cifar_without_a_network_says_what_to_do(cut_off):
    with pytest.raises(ConnectionError) as caught:
        data.load("cifar-10")
    message = str(caught.value)
    assert "data_batch_1.bin" in message
    assert "<folder>/cifar-10-batches-bin" in message
    assert "n_train <=" not in message


# ------------------------------------------------------------------ making the embedded


@pytest.fixture
def make_embedded():
    path = ROOT / "data/make_embedded.py"
    spec = importlib.util.spec_from_file_location("make_embedded", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_entries_are_an_idx_file_again(make_embedded):
    array = np.arange(60).reshape(5, 3, 4)
    cut = make_embedded.first(idx(array), 2)
    assert cut == idx(array[:2])
    assert make_embedded.first(idx(array), 5) == idx(array)


def test_making_writes_the_four_files_of_a_set(own, make_embedded, tmp_path, capsys):
    make_embedded.make("mnist", tmp_path / "own")
    made = sorted(tmp_path.glob("own/*.xz"))
    assert [file.name for file in made] == [
        f.name for f in packed_files() if f.name.startswith("mnist")
    ]
    cut = sources.read_idx(lzma.decompress(made[2].read_bytes()))
    whole = sources.read_idx((own / "mnist" / IMAGES).read_bytes())
    np.testing.assert_array_equal(cut, whole[:10_000])
    assert "mnist/train-10k-images" in capsys.readouterr().out


# -------------------------------- against the genuine full sets, where they are at hand

needs_full = pytest.mark.skipif(not FULL, reason="GVLIB_DATA names no full sets")


@needs_full
@pytest.mark.parametrize("name", ["fashion-mnist", "mnist", "cifar-10"])
def test_constants_are_those_of_the_full_set(name):
    source = sources.SOURCES[name]
    images, labels = sources.read(name, "train", full=True)
    assert len(labels) == source.sizes["train"]
    for channel in range(source.shape[0]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        levels = np.arange(256) / 255
        mean = counts @ levels / counts.sum()
        std = np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())
        assert abs(mean - source.mean[channel]) < 1e-6
        assert abs(std - source.std[channel]) < 1e-6


@needs_full
@pytest.mark.parametrize("name", ["fashion-mnist", "mnist"])
def test_embedded_are_the_first_of_the_genuine(name):
    for few, many in zip(
        sources.read(name, "train"), sources.read(name, "train", full=True), strict=True
    ):
        np.testing.assert_array_equal(few, many[:10_000])
    test = sources.genuine(name, "t10k-images-idx3-ubyte")
    np.testing.assert_array_equal(
        sources.read(name, "test")[0][:, 0], sources.read_idx(test)
    )
