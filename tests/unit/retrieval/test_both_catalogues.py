"""What a catalogue promises, of files and of a server alike: the same tests of both."""

import numpy as np
import pytest

from productrec.errors import ArtifactError, DataError
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.copying import copy_to_server
from productrec.retrieval.milvus import parse_address
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from productrec.retrieval.segments import GrownRows
from tests.unit.retrieval.test_kinds_of_index import draw_classes, gather
from tests.unit.retrieval.test_living_catalogue import MADE, build, check, draw_rows

SERVER = pytest.mark.xdist_group("milvus")
FLAT, *APPROXIMATE = [pytest.param(kind, marks=SERVER) for kind in ("flat", "hnsw", "ivf_sq8")]
every_kind = pytest.mark.parametrize("shelf", ["files", FLAT, *APPROXIMATE], indirect=True)


class Shelf:
    """A catalogue of 60 rows and 6 classes, of files or in a server, to open as often as a test likes."""

    def __init__(self, folder, kind, address):
        self.embeddings, self.keys = build(folder)
        self.folder, self.address, self.is_exact = folder, address, kind in ("files", "flat")
        if address is not None:
            copy_to_server(Catalogue(folder), parse_address(address), kind=kind)

    def open(self):
        return Catalogue(self.folder) if self.address is None else RemoteCatalogue(self.address)


@pytest.fixture(params=["files", FLAT])
def shelf(request, tmp_path):
    address = None if request.param == "files" else f"{request.getfixturevalue('milvus')}/both_{request.param}"
    return Shelf(tmp_path / "plain", request.param, address)


@every_kind
def test_what_is_found_is_what_exact_comparison_of_all_rows_finds(shelf):
    catalogue = shelf.open()
    embeddings, keys = shelf.embeddings, shelf.keys
    k = 7 if shelf.is_exact else 100  # for all rows an approximate index has to look everywhere
    check(catalogue, embeddings, keys, k)
    grown = draw_rows("new", ["jam", "jam", "class 0"])
    assert sorted(catalogue.grow(grown, **MADE)) == grown.ids
    embeddings, keys = np.concatenate([embeddings, grown.embeddings]), keys + grown.keys
    check(catalogue, embeddings, keys, k)
    assert catalogue.remove(["class 0", "class 3"]) == 21
    kept = [row for row, key in enumerate(keys) if key not in ("class 0", "class 3")]
    embeddings, keys = embeddings[kept], [keys[row] for row in kept]
    check(catalogue, embeddings, keys, k)
    assert catalogue.removed == {"class 0", "class 3"} and not catalogue.has_class("class 3")
    again = draw_rows("again", ["class 0"], seed=6)
    catalogue.grow(again, **MADE)
    embeddings, keys = np.concatenate([embeddings, again.embeddings]), [*keys, *again.keys]
    reopened = shelf.open()
    for one in (catalogue, reopened):
        check(one, embeddings, keys, k)
        assert one.removed == {"class 3"} and one.names == {"jam": "the jam", "class 0": "the class 0"}
        told = one.get_grown_rows()
        assert sorted(zip(told.ids, told.keys, told.paths, strict=True)) == [
            ("again0", "class 0", "/photos/again0"),
            ("new0", "jam", "/photos/new0"),
            ("new1", "jam", "/photos/new1"),
        ]
        assert one.describe_changes() == "3 images more, 1 classes removed"


@every_kind
def test_ids_and_embeddings_of_rows_are_told_whatever_was_searched(shelf):
    catalogue = shelf.open()
    rows, similarities = catalogue.search(gather(shelf.embeddings[[5, 9]]), 1)
    np.testing.assert_allclose(similarities, 1, atol=1e-5)
    assert catalogue.get_ids(rows[:, 0]) == ["i5", "i9"]
    more = catalogue.find(["i59", "nowhere", "i0"])
    assert more[1] == -1 and catalogue.get_ids(more[[0, 2]]) == ["i59", "i0"]
    assert [catalogue.keys[place] for place in catalogue.get_classes(more[[0, 2]])] == ["class 5", "class 0"]
    np.testing.assert_array_equal(catalogue.get_embeddings(more[[0, 2]]), shelf.embeddings[[59, 0]])
    assert sorted(catalogue.list_ids()) == sorted(f"i{row}" for row in range(60))
    assert catalogue.search(gather(shelf.embeddings[:0]), 3)[0].shape == (0, 3)


def test_growing_again_adds_nothing_and_another_image_of_that_name_is_refused(shelf):
    catalogue = shelf.open()
    grown = draw_rows("new", ["jam", "tea"])
    assert len(catalogue.grow(grown, **MADE)) == 2
    assert catalogue.grow(grown, **MADE) == []
    with pytest.raises(ArtifactError, match=r"new; 1 \(new0\) are of other images"):
        catalogue.grow(draw_rows("new", ["jam"], seed=6), **MADE)
    moved = GrownRows(["new0"], ["tea"], {}, ["x"], grown.embeddings[:1])
    with pytest.raises(ArtifactError, match="another class"):
        catalogue.grow(moved, **MADE)
    twice = GrownRows(["a", "a"], ["jam", "jam"], {}, ["x", "y"], draw_classes(2, seed=7))
    with pytest.raises(ArtifactError, match=r"unique; 1 \(a\) come twice"):
        catalogue.grow(twice, **MADE)
    assert len(catalogue) == 62


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights_digest": "other"}, "weights of grown rows"),
        ({"views": ["plain", "flip"]}, "views of grown rows"),
        ({"side_px": 64}, "preprocessing"),
        ({"modality": "title"}, "modality of grown rows must be those of the index, image; got title"),
        ({"tower": "text"}, "tower of grown rows"),
    ],
)
def test_rows_that_were_made_otherwise_are_refused_by_name(shelf, change, words):
    catalogue = shelf.open()
    with pytest.raises(ArtifactError, match=words):
        catalogue.grow(draw_rows("new", ["jam"]), **(MADE | change))
    assert len(catalogue) == 60


def test_rows_and_queries_that_cannot_be_compared_are_refused(shelf):
    catalogue = shelf.open()
    small = GrownRows(["new0"], ["jam"], {}, ["x"], draw_classes(1, dim=16))
    with pytest.raises(ArtifactError, match="size of grown rows must be those of the index, 32; got 16"):
        catalogue.grow(small, **MADE)
    for bad in (np.nan, 0.0):
        rows = draw_rows("new", ["jam", "tea"])
        rows.embeddings[1] = bad
        with pytest.raises(ArtifactError, match="new1"):
            catalogue.grow(rows, **MADE)
        queries = draw_classes(3)
        queries[2] = bad
        with pytest.raises(ArtifactError, match="unit norm; 1 .*i2"):
            catalogue.search(gather(queries), 2)
    for change, words in (
        ({"weights_digest": "other"}, "weights other and w"),
        ({"side_px": 64}, "side_px 32"),
        ({"modality": "title"}, "modality of the gallery, image; got title"),
    ):
        with pytest.raises(ArtifactError, match=words):
            catalogue.search(gather(draw_classes(1), **change), 2)
    with pytest.raises(ArtifactError, match="size of the gallery's embeddings, 32; got 16"):
        catalogue.search(gather(draw_classes(1, dim=16)), 2)
    assert len(catalogue) == 60


def test_another_process_is_seen(shelf):
    reader, writer = shelf.open(), shelf.open()
    assert not reader.refresh()
    grown = draw_rows("new", ["jam"])
    writer.grow(grown, **MADE)
    assert reader.search(gather(grown.embeddings), 100)[0].shape == (1, 60)  # a class that is not known here yet
    assert reader.refresh() and not reader.refresh()
    check(reader, np.concatenate([shelf.embeddings, grown.embeddings]), [*shelf.keys, "jam"], 100)
    writer.remove(["jam"])
    assert reader.refresh() and reader.removed == {"jam"}
    check(reader, shelf.embeddings, shelf.keys, 100)


def test_removing_what_is_not_there_is_refused_with_what_is_near(shelf):
    catalogue = shelf.open()
    with pytest.raises(DataError, match=r"1 \(class 33\) are not. Near to 'class 33': class 3"):
        catalogue.remove(["class 0", "class 33"])
    assert len(catalogue) == 60  # none of them went
    catalogue.remove(["class 0"])
    with pytest.raises(DataError, match="class 0"):
        catalogue.remove(["class 0"])


def test_an_emptied_catalogue_finds_nothing_and_grows_again(shelf):
    catalogue = shelf.open()
    catalogue.remove([f"class {number}" for number in range(6)])
    rows, similarities = catalogue.search(gather(draw_classes(3)), 5)
    assert rows.shape == similarities.shape == (3, 0) and len(catalogue) == 0
    grown = draw_rows("new", ["jam"])
    catalogue.grow(grown, **MADE)
    check(catalogue, grown.embeddings, ["jam"], 1)
    assert catalogue.search(gather(draw_classes(1)), 5)[0].shape == (1, 1)
