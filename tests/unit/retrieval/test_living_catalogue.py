"""The catalogue: rows that come and go are searched as if the index had been built of what is there now."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.id_places import read_names, write_names
from productrec.retrieval.index import save_index
from productrec.retrieval.segments import GrownRows, get_grown_folder
from tests.unit.retrieval.test_kinds_of_index import draw_classes, gather

MADE = {"views": ["plain"], "side_px": 32, "weights_digest": "w"}


def build(folder, rows=60, kind="exact", classes=6):
    embeddings = draw_classes(rows)
    labels = [10 * (row % classes) for row in range(rows)]
    keys = {10 * number: f"class {number}" for number in range(classes)}
    gallery = gather(embeddings, side_px=32)
    save_index(folder, gallery, labels, inputs={}, settings={}, keys=keys, kind=kind)
    return embeddings, [keys[label] for label in labels]


def draw_rows(prefix, keys, seed=5):
    embeddings = draw_classes(len(keys), seed=seed)
    ids = [f"{prefix}{row}" for row in range(len(keys))]
    return GrownRows(
        ids, list(keys), {key: f"the {key}" for key in keys}, [f"/photos/{one}" for one in ids], embeddings
    )


def check(catalogue, embeddings, keys, k=7):
    """What is found is what a matrix product over the rows that are there now says."""
    queries = draw_classes(25, seed=9)
    rows, similarities = catalogue.search(gather(queries), k)
    truth = queries @ embeddings.T
    order = np.argsort(-truth, axis=1)[:, :k]
    np.testing.assert_allclose(similarities, np.take_along_axis(truth, order, 1), atol=1e-5)
    assert [[catalogue.keys[place] for place in line] for line in catalogue.get_classes(rows[:, :7]).tolist()] == [
        [keys[row] for row in line[:7]]
        for line in order.tolist()  # behind these some are as good as equal
    ]
    assert rows.min() >= 0 and len(catalogue) == len(embeddings)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_grown_and_removed_rows_are_searched_as_one(tmp_path, kind):
    rows = 60 if kind == "exact" else 1200
    embeddings, keys = build(tmp_path / "plain", rows, kind, classes=rows // 10)
    catalogue = Catalogue(tmp_path / "plain")
    k = 7 if kind == "exact" else rows  # all that can be found, which a structure has to be searched exactly for
    check(catalogue, embeddings, keys, k)
    grown = draw_rows("new", ["jam", "jam", "class 0"])
    assert catalogue.grow(grown, **MADE) == grown.ids
    embeddings, keys = np.concatenate([embeddings, grown.embeddings]), keys + grown.keys
    check(catalogue, embeddings, keys, min(k, len(keys)))
    assert catalogue.remove(["class 0", "class 3"]) == 21
    kept = [row for row, key in enumerate(keys) if key not in ("class 0", "class 3")]
    embeddings, keys = embeddings[kept], [keys[row] for row in kept]
    check(catalogue, embeddings, keys, min(k, len(keys)))
    assert catalogue.removed == {"class 0", "class 3"}
    again = draw_rows("again", ["class 0"], seed=6)
    catalogue.grow(again, **MADE)
    embeddings, keys = np.concatenate([embeddings, again.embeddings]), [*keys, *again.keys]
    check(catalogue, embeddings, keys, min(k, len(keys)))
    check(Catalogue(tmp_path / "plain"), embeddings, keys, min(k, len(keys)))  # as it lies on the disk
    assert catalogue.removed == {"class 3"} and catalogue.names["jam"] == "the jam"
    seen = catalogue.describe()
    assert (seen["segments"], seen["tombstones"], seen["rows"]) == (3, 21, len(keys))
    catalogue.compact(kind=kind)
    check(catalogue, embeddings, keys, min(k, len(keys)))
    seen = catalogue.describe()
    assert (seen["segments"], seen["tombstones"], seen["base"], seen["kind"]) == (0, 0, len(keys), kind)
    reopened = Catalogue(tmp_path / "plain")
    check(reopened, embeddings, keys, min(k, len(keys)))
    assert reopened.removed == {"class 3"} and reopened.names["jam"] == "the jam"
    assert sorted(reopened.get_grown_rows().ids) == ["again0", "new0", "new1"]
    assert reopened.get_grown_rows().paths[0].startswith("/photos/")
    reopened.grow(draw_rows("late", ["tea"], seed=8), **MADE)
    check(reopened, np.concatenate([embeddings, draw_classes(1, seed=8)]), [*keys, "tea"], min(k, len(keys)))


def test_ids_are_found_without_their_file_too(tmp_path):
    build(tmp_path / "plain")
    catalogue = Catalogue(tmp_path / "plain")
    asked = ["i59", "nowhere", "i0", "i7"]
    assert catalogue.find(asked).tolist() == [59, -1, 0, 7]
    manifest = json.loads((tmp_path / "plain/manifest.json").read_text())
    del manifest["files"]["places.npy"]  # as in an index of an earlier version
    (tmp_path / "plain/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "plain/places.npy").unlink()
    assert Catalogue(tmp_path / "plain").find(asked).tolist() == [59, -1, 0, 7]
    assert catalogue.find([]).shape == (0,)


def test_rows_tell_their_ids_before_and_after_growing_and_without_their_file(tmp_path):
    names = ["a.jpg", "ä/ö 1.png", "", "x" * 300, "\udcff.jpg"]
    write_names(tmp_path / "names.bin", tmp_path / "ends.npy", names)
    rows = np.array([4, 0, 3, 2, 1, 0])
    assert read_names(tmp_path / "names.bin", tmp_path / "ends.npy", rows) == [names[row] for row in rows]

    build(tmp_path / "plain")
    catalogue = Catalogue(tmp_path / "plain")
    catalogue.grow(draw_rows("new", ["class 1", "class 9"]), **MADE)
    rows = np.array([61, 3, 60, 59, 0])
    assert catalogue.get_ids(rows) == ["new1", "i3", "new0", "i59", "i0"]
    folder = tmp_path / "plain"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("names.bin", "name_ends.npy"):  # as of an index of before
        (folder / name).unlink()
        del manifest["files"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Catalogue(folder).get_ids(rows) == ["new1", "i3", "new0", "i59", "i0"]


def test_another_process_is_seen_and_only_its_changes_are_read(tmp_path):
    embeddings, keys = build(tmp_path / "plain")
    reader, writer = Catalogue(tmp_path / "plain"), Catalogue(tmp_path / "plain")
    assert not reader.refresh()
    grown = draw_rows("new", ["jam"])
    writer.grow(grown, **MADE)
    assert reader.refresh() and not reader.refresh()
    embeddings, keys = np.concatenate([embeddings, grown.embeddings]), [*keys, "jam"]
    check(reader, embeddings, keys)
    writer.compact()
    assert reader.refresh()
    check(reader, embeddings, keys)
    shutil.rmtree(get_grown_folder(tmp_path / "plain"))  # somebody goes back to the table's gallery
    assert reader.refresh()
    check(reader, embeddings[:-1], keys[:-1])


def test_a_damaged_or_missing_change_is_refused(tmp_path):
    build(tmp_path / "plain")
    catalogue = Catalogue(tmp_path / "plain")
    for number in range(3):
        catalogue.grow(draw_rows(f"new{number} ", ["jam"], seed=number), **MADE)
    folder = get_grown_folder(tmp_path / "plain") / "000002"
    path = folder / "embeddings.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="differs from its manifest"):
        Catalogue(tmp_path / "plain")
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match="000002: this change of the index is missing"):
        Catalogue(tmp_path / "plain")


def test_a_base_that_was_compacted_survives_a_kill_before_the_old_changes_are_gone(tmp_path):
    embeddings, keys = build(tmp_path / "plain")
    catalogue = Catalogue(tmp_path / "plain")
    grown = draw_rows("new", ["jam"])
    catalogue.grow(grown, **MADE)
    folder = get_grown_folder(tmp_path / "plain")
    shutil.copytree(folder / "000001", tmp_path / "kept")
    catalogue.compact()
    shutil.copytree(tmp_path / "kept", folder / "000001")  # as if the kill had come before it was removed
    check(Catalogue(tmp_path / "plain"), np.concatenate([embeddings, grown.embeddings]), [*keys, "jam"])


def test_changes_of_another_network_are_refused_by_name(tmp_path):
    build(tmp_path / "plain")
    Catalogue(tmp_path / "plain").grow(draw_rows("new", ["jam"]), **MADE)
    manifest = tmp_path / "plain" / "manifest.json"
    noted = json.loads(manifest.read_text())
    noted["notes"]["weights_digest"] = "retrained"
    manifest.write_text(json.dumps(noted))
    with pytest.raises(ArtifactError, match="weights of grown rows .* retrained; got w.* index renew"):
        Catalogue(tmp_path / "plain")


def test_one_process_writes_at_a_time(tmp_path, monkeypatch):
    from productrec.locking import hold_lock

    build(tmp_path / "plain")
    catalogue = Catalogue(tmp_path / "plain")
    monkeypatch.setattr("productrec.retrieval.catalogue._WAIT_SECONDS", 0.1)
    with (
        hold_lock(get_grown_folder(tmp_path / "plain") / ".lock", "busy"),
        pytest.raises(ArtifactError, match="another process is changing this index"),
    ):
        catalogue.remove(["class 0"])


GROW_FOR_EVER = """
import sys
from pathlib import Path
from productrec.retrieval.catalogue import Catalogue
from tests.unit.retrieval.test_living_catalogue import MADE, draw_rows
catalogue = Catalogue(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 100_000):
    rows = draw_rows(f"{number} ", ["jam", "tea"], seed=number)
    print(*(image_id.replace(" ", "_") for image_id in catalogue.grow(rows, **MADE)), flush=True)
    if number % 7 == 3:
        catalogue.compact()
"""


def test_what_was_acknowledged_survives_kills_and_nothing_is_half_there(tmp_path):
    build(tmp_path / "plain")
    told: list[str] = []
    for attempt in range(4):
        command = [sys.executable, "-c", GROW_FOR_EVER, str(tmp_path / "plain"), str(1000 * attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for _ in range(5 + attempt):
                told += running.stdout.readline().split()
            time.sleep(0.003 * attempt)
            os.kill(running.pid, signal.SIGKILL)
            told += running.stdout.read().split()
        grown = Catalogue(tmp_path / "plain").get_grown_rows()
        ids = {image_id.replace(" ", "_") for image_id in grown.ids}
        assert len(ids) == len(grown.ids) and ids >= set(told)
        assert len(ids - set(told)) <= 2 * (attempt + 1)  # a change that was kept and not yet told
        assert len(ids) % 2 == 0  # a change is whole or not there
    assert len(told) > 2 * 20
