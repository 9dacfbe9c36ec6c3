"""Copies of a catalogue to a server and back: the same on both sides, whole or not there."""

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval import copying
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.copying import compare, copy_to_files, copy_to_server
from productrec.retrieval.milvus import Server, parse_address
from productrec.retrieval.remote_catalogue import RemoteCatalogue
from productrec.retrieval.remote_tables import find_tables, read_about, write_about
from productrec.retrieval.segments import GrownRows
from productrec.retrieval.streamed import Contents
from tests.unit.retrieval.test_kinds_of_index import draw_classes, gather
from tests.unit.retrieval.test_living_catalogue import MADE, build, check, draw_rows

on_server = pytest.mark.xdist_group("milvus")


def count_contents(catalogue):
    rows = catalogue.list_alive()
    keys = [catalogue.keys[place] for place in catalogue.get_classes(rows)]
    return Contents().add(catalogue.get_ids(rows), keys, catalogue.get_embeddings(rows))


def test_a_digest_is_of_ids_keys_and_embeddings_whatever_their_order():
    ids, keys, embeddings = ["a", "b", "c"], ["x", "y", "x"], draw_classes(3)
    whole = Contents().add(ids, keys, embeddings)
    assert whole == Contents().add(["c"], ["x"], embeddings[2:]).add(["b", "a"], ["y", "x"], embeddings[1::-1])
    bent = embeddings.copy()
    bent.view(np.uint32)[1, 3] ^= 1
    for other in (
        Contents().add(["a", "b", "d"], keys, embeddings),
        Contents().add(ids, ["x", "x", "x"], embeddings),
        Contents().add(ids, keys, bent),
        Contents().add(["ax", *ids[1:]], ["", *keys[1:]], embeddings),  # where an id ends is told too
    ):
        assert other.digest != whole.digest
        with pytest.raises(ArtifactError, match="there: must hold the ids, keys and embeddings of here"):
            compare(whole, other, "here", "there")
    with pytest.raises(ArtifactError, match="there: must hold the 3 rows of here; got 2"):
        compare(whole, Contents(2, whole.digest), "here", "there")


@on_server
@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_sq8"])
def test_what_goes_to_the_server_comes_back(tmp_path, milvus, kind):
    embeddings, keys = build(tmp_path / "plain", rows=300)
    catalogue = Catalogue(tmp_path / "plain")
    catalogue.grow(draw_rows("new", ["jam", "class 1"]), **MADE)
    catalogue.remove(["class 0"])
    told = []
    address = parse_address(f"{milvus}/back_{kind}")
    remote, contents = copy_to_server(catalogue, address, kind=kind, on_rows=told.append)
    assert contents == count_contents(catalogue) and sum(told) == 2 * len(catalogue) == 504
    seen = remote.describe()
    assert (seen["rows"], seen["grown"], seen["removed"], seen["base"]) == (252, 2, 1, 252)
    assert seen["kind"] == kind and seen["recall"] >= 0.97
    remote.grow(draw_rows("late", ["tea"], seed=8), **MADE)
    remote.remove(["class 2"])
    for folder in ("elsewhere", "plain"):  # a new index, and the one that was copied
        back, arrived = copy_to_files(remote, tmp_path / folder)
        assert arrived == count_contents(Catalogue(tmp_path / folder))
        assert sorted(back.list_ids()) == sorted(remote.list_ids()) and len(back) == 203
        assert back.removed == {"class 0", "class 2"} and back.names["tea"] == "the tea"
        assert sorted(back.get_grown_rows().paths) == ["/photos/late0", "/photos/new0", "/photos/new1"]
        kept = [row for row, key in enumerate(keys) if key not in ("class 0", "class 2")]
        vectors = np.concatenate([embeddings[kept], draw_rows("new", ["", ""]).embeddings, draw_classes(1, seed=8)])
        check(back, vectors, [*(keys[row] for row in kept), "jam", "class 1", "tea"])
    again, contents = copy_to_server(Catalogue(tmp_path / "elsewhere"), address, kind=kind)
    assert contents == arrived and again.about.fingerprint == remote.about.fingerprint  # of the first index
    assert len(again.server.list_collections(f"back_{kind}__")) == 2  # what it took the place of is gone


@on_server
@pytest.mark.parametrize(("damage", "words"), [("lost", "the 60 rows of"), ("bent", "ids, keys and embeddings of")])
def test_what_arrives_otherwise_is_an_error_and_what_was_there_stays(tmp_path, milvus, monkeypatch, damage, words):
    embeddings, keys = build(tmp_path / "plain")
    catalogue, address = Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/damaged_{damage}")
    copy_to_server(catalogue, address)
    catalogue.grow(draw_rows("new", ["jam"]), **MADE)
    catalogue.remove(["jam"])

    def write(server, tables, block, *, is_grown):
        if damage == "lost":
            fields = {"rows": block.rows[1:], "codes": block.codes[1:], "ids": block.ids[1:]}
            more = {"paths": block.paths[1:], "embeddings": block.embeddings[1:]}
            write_rows(server, tables, block._replace(**fields, **more), is_grown=is_grown[1:])
        else:
            bent = block.embeddings.copy()
            bent.view(np.uint32)[7, 3] ^= 1
            write_rows(server, tables, block._replace(embeddings=bent), is_grown=is_grown)

    write_rows = copying.write_rows
    monkeypatch.setattr(copying, "write_rows", write)
    with pytest.raises(ArtifactError, match=words):
        copy_to_server(catalogue, address)
    check(RemoteCatalogue(address), embeddings, keys)


@on_server
def test_half_a_copy_is_never_used_and_the_same_command_makes_it_anew(tmp_path, milvus):
    class Killed(BaseException):
        pass

    embeddings, keys = build(tmp_path / "plain")
    catalogue, address = Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/half")
    for moment in (1, 2):  # once written, once read back
        told = []

        def die(count, told=told, moment=moment):
            told.append(count)
            if len(told) == moment:
                raise Killed

        with pytest.raises(Killed):
            copy_to_server(catalogue, address, on_rows=die)
        with pytest.raises(ArtifactError, match="half: no catalogue of this name. Copy one there"):
            RemoteCatalogue(address)
    remote, _ = copy_to_server(catalogue, address)
    check(remote, embeddings, keys)
    assert len(remote.server.list_collections("half__")) == 2
    tables = find_tables(remote.server, "half")
    remote.server.delete(tables.classes, "class_code == 0")
    with pytest.raises(ArtifactError, match="is half a copy"):
        RemoteCatalogue(address)


@on_server
def test_a_newer_format_and_a_collection_of_something_else_are_refused(tmp_path, milvus):
    build(tmp_path / "plain")
    catalogue, address = Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/formats")
    remote, _ = copy_to_server(catalogue, address)
    tables = find_tables(remote.server, "formats")
    about = read_about(remote.server, tables, address)
    with pytest.raises(ArtifactError, match="formats__rows.*got a collection of something else"):
        RemoteCatalogue(address._replace(name=tables.rows))
    write_about(remote.server, tables, type(about)(**(vars(about) | {"format_version": 2})))
    with pytest.raises(ArtifactError, match="format version must be at most 1; got 2. Update productrec"):
        RemoteCatalogue(address)


@on_server
def test_a_copy_takes_the_place_of_no_other_network_and_of_no_image_that_it_lacks(tmp_path, milvus):
    embeddings, keys = build(tmp_path / "plain")
    catalogue, address = Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/place")
    remote, _ = copy_to_server(catalogue, address)
    grown = draw_rows("new", ["jam"])
    catalogue.grow(grown, **MADE)
    with pytest.raises(ArtifactError, match=r"images that are here must be .*; 1 \(new0\) are not"):
        copy_to_files(remote, tmp_path / "plain")
    check(Catalogue(tmp_path / "plain"), np.concatenate([embeddings, grown.embeddings]), [*keys, "jam"])
    remote.server.delete(find_tables(remote.server, "place").rows, "row > 0")
    with pytest.raises(ArtifactError, match="at least one image"):
        copy_to_files(remote, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@on_server
def test_names_that_a_server_cannot_keep_are_refused_before_anything_is_written(tmp_path, milvus):
    build(tmp_path / "plain")
    catalogue, address = Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/names")
    remote, _ = copy_to_server(catalogue, address)
    for name, words in (("\udcff.jpg", "must be valid Unicode"), ("x" * 9000, "at most 8,192 bytes")):
        grown = GrownRows([name], ["jam"], {}, ["p"], draw_classes(1))
        with pytest.raises(ArtifactError, match=words):
            remote.grow(grown, **MADE)
        other = Catalogue(tmp_path / "plain", grown=tmp_path / f"grown {len(name)}")
        other.grow(grown, **MADE)
        with pytest.raises(ArtifactError, match=words):
            copy_to_server(other, address)
    assert len(RemoteCatalogue(address)) == 60


@on_server
def test_queries_beyond_what_milvus_finds_are_refused(tmp_path, milvus):
    build(tmp_path / "plain")
    remote, _ = copy_to_server(Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/many"))
    with pytest.raises(ArtifactError, match="k must be at most 16,384, as Milvus is; got 16,385"):
        remote.search(gather(draw_classes(1)), 16_385)
    assert remote.search(gather(draw_classes(1)), 16_384)[0].shape == (1, 60)


@on_server
@pytest.mark.parametrize("kind", ["hnsw", "ivf_sq8"])
def test_what_the_servers_index_leaves_out_is_found_by_comparing_all_rows(tmp_path, milvus, monkeypatch, kind):
    embeddings, keys = build(tmp_path / "plain")
    remote, _ = copy_to_server(Catalogue(tmp_path / "plain"), parse_address(f"{milvus}/short_{kind}"), kind=kind)
    whole = Server.search

    def find_two(self, name, queries, k, fields, **options):
        return [hits[:2] for hits in whole(self, name, queries, k, fields, **options)]

    monkeypatch.setattr(Server, "search", find_two)
    check(remote, embeddings, keys, 7)
    check(remote, embeddings, keys, 100)
