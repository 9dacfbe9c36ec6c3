"""Kinds of index: which is chosen, what each finds beside exact search, and damage that is refused when touched."""

import subprocess
import sys

import numpy as np
import pytest

from productrec.errors import ArtifactError
from productrec.retrieval import engine
from productrec.retrieval.blocks import BLOCK_BYTES, CheckedBlocks, write_block_digests
from productrec.retrieval.choice import choose_kinds, describe_built, describe_wanted
from productrec.retrieval.embedding_set import EmbeddingSet
from productrec.retrieval.engine import build_engine, build_structure, use_threads, write_engine
from productrec.retrieval.index import load_index, save_index, search_index
from productrec.retrieval.searcher import Effort, Searcher

GIB = 1 << 30
KINDS = ("ivf", "rabitq", "hnsw")


def draw_classes(rows, dim=32, seed=0, spread=0.6):
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, rows // 20), dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    drawn = generator.integers(0, len(centres), rows)
    values = centres[drawn] + generator.standard_normal((rows, dim)) * spread / np.sqrt(dim)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def gather(embeddings, **changes):
    ids = [f"i{row}" for row in range(len(embeddings))]
    told = {"ids": ids, "embeddings": embeddings, "logits": None, "class_ids": [], "views": ["plain"]}
    return EmbeddingSet(**(told | {"weights_digest": "w", "broken": {}, "fingerprint": "f"} | changes))


def save(folder, rows, kind, recall=0.97):
    embeddings = draw_classes(rows)
    tuned = save_index(folder, gather(embeddings), [0] * rows, inputs={}, settings={}, kind=kind, recall=recall)
    return embeddings, tuned


def count_found(rows, embeddings, queries, k):
    truth = np.argsort(-(queries @ embeddings.T), axis=1)[:, :k]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(rows, truth, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_an_approximate_index_finds_what_it_says(tmp_path, kind):
    embeddings, queries = np.split(draw_classes(6200), [6000])
    tuned = save_index(tmp_path / "index", gather(embeddings), [0] * 6000, inputs={}, settings={}, kind=kind)
    assert tuned is not None and tuned.kind == kind and tuned.recall >= 0.97
    index = load_index(tmp_path / "index")
    rows, similarities = search_index(index, gather(queries), 10)
    assert count_found(rows, embeddings, queries, 10) > 0.9
    assert (np.diff(similarities, axis=1) <= 0).all()
    np.testing.assert_allclose(similarities, np.einsum("qd,qkd->qk", queries, embeddings[rows]), atol=1e-5)
    assert kind in describe_built(tuned, 0.97) and "recall@10" in describe_built(tuned, 0.97)


@pytest.mark.parametrize("kind", ["ivf", "rabitq"])
def test_the_same_rows_give_the_same_bytes_whatever_the_threads(tmp_path, kind):
    for threads in (1, 2):
        with use_threads(threads):
            save(tmp_path / f"{threads}", 3000, kind)
    for name in ("index.faiss", "structure.faiss"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_no_place_stays_empty_though_all_but_a_few_rows_are_gone(kind):
    embeddings = draw_classes(3000)
    flat = build_engine(embeddings)
    structure = None if kind == "exact" else build_structure(kind, flat)
    searcher = Searcher(flat, kind=kind, structure=structure, effort=Effort(1, 1))
    queries = draw_classes(3000, seed=2)[:30]
    alive = np.zeros(3000, dtype=bool)
    alive[::100] = True
    similarities, rows = searcher.search(queries, 30, alive=alive)
    order = np.argsort(-(queries @ embeddings[::100].T), axis=1) * 100
    np.testing.assert_array_equal(rows, order)
    assert np.isfinite(similarities).all()
    _, rows = searcher.search(queries, 300)  # one list holds fewer than are asked for
    assert rows.min() >= 0


def test_exact_search_is_taken_where_no_effort_reaches_the_recall(tmp_path):
    noise = draw_classes(2000, spread=30.0)
    tuned = save_index(tmp_path / "index", gather(noise), [0] * 2000, inputs={}, settings={}, kind="ivf", recall=1.0)
    assert tuned is None and not (tmp_path / "index" / "structure.faiss").exists()
    assert load_index(tmp_path / "index").searcher.kind == "exact"
    assert "exact search" in describe_built(None, 1.0)


def test_the_kind_follows_from_rows_and_memory():
    def choose(rows, memory, wanted="auto", dim=128):
        return choose_kinds(wanted, rows=rows, dim=dim, memory_bytes=memory)

    assert choose(200_000, 8 * GIB) == ("exact",)
    assert choose(1_000_000, 8 * GIB) == ("ivf", "hnsw", "exact")
    assert choose(1_000_000, GIB) == ("ivf", "exact")  # a graph looks at rows everywhere
    assert choose(200_000, GIB // 8) == ("ivf", "exact")
    assert choose(1_000_000, GIB // 8)[0] == "rabitq"
    assert choose(1_000_000, 8 * GIB, dim=127)[0] == "rabitq"
    assert choose(1_000_000, None)[0] == "ivf"
    assert choose(1_000_000, GIB, wanted="hnsw") == ("hnsw",)
    assert choose(500, GIB, wanted="ivf") == ("exact",)  # too few to train on
    assert describe_wanted("auto", 0.97, rows=200_000) == "exact"  # as an index of an earlier version says
    assert describe_wanted("auto", 0.97, rows=200_001) == "auto, recall 0.97"


@pytest.mark.parametrize(
    "change",
    [
        {"side_px": 64},
        {"weights_digest": "x"},
        {"embeddings": draw_classes(20, 16)},
        {"modality": "title"},
        {"tower": "text"},
    ],
)
def test_queries_that_were_made_otherwise_are_refused_by_name(tmp_path, change):
    save_index(tmp_path / "index", gather(draw_classes(50), side_px=32), [0] * 50, inputs={}, settings={})
    index = load_index(tmp_path / "index")
    queries = gather(draw_classes(20))
    assert search_index(index, queries, 3)[0].shape == (20, 3)
    (name,) = change
    words = {"modality": "modality of the gallery, image; got title", "tower": "tower of the gallery, image; got text"}
    words |= {"embeddings": "size of the gallery's embeddings, 32; got 16"}
    with pytest.raises(ArtifactError, match=words.get(name, name.partition("_")[0])):
        search_index(index, gather(**({"embeddings": queries.embeddings} | change)), 3)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_a_flipped_bit_is_refused_when_its_block_is_touched(tmp_path, kind):
    embeddings, _ = save(tmp_path / "index", 6000, kind)
    path = tmp_path / "index" / "index.faiss"
    data = bytearray(path.read_bytes())
    row = 5500
    assert row * 32 * 4 > BLOCK_BYTES  # not in the block that is read at the start
    data[len(data) - (6000 - row) * 32 * 4 + 3] ^= 1
    path.write_bytes(data)
    index = load_index(tmp_path / "index")
    with pytest.raises(ArtifactError, match=r"index.faiss: block \d+ .* damaged"):
        search_index(index, gather(embeddings[row : row + 1]), 3)


def test_a_search_that_touches_no_damaged_block_is_answered(tmp_path):
    embeddings, tuned = save(tmp_path / "index", 60_000, "ivf")
    path = tmp_path / "index" / "index.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    index = load_index(tmp_path / "index")
    answered, refused = 0, 0
    for row in range(0, 60_000, 6000):
        try:
            answered += int(search_index(index, gather(embeddings[row : row + 1]), 1)[0][0, 0] == row)
        except ArtifactError:
            refused += 1
    assert tuned is not None and answered and answered + refused == 10
    with pytest.raises(ArtifactError, match="damaged"):
        search_index(index, gather(embeddings[-1:]), 1)


def test_damage_in_the_head_of_the_rows_or_in_a_structure_is_refused_at_once(tmp_path):
    save(tmp_path / "index", 3000, "ivf")
    for name in ("index.faiss", "structure.faiss", "index.blocks"):
        path = tmp_path / "index" / name
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(ArtifactError, match="differs from"):
            load_index(tmp_path / "index")
        path.write_bytes(whole)
    load_index(tmp_path / "index")


def test_digests_of_another_file_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (BLOCK_BYTES + 1))
    write_block_digests(tmp_path / "a", tmp_path / "digests")
    CheckedBlocks(tmp_path / "a", tmp_path / "digests").check_all()
    (tmp_path / "a").write_bytes(b"x" * BLOCK_BYTES)
    with pytest.raises(ArtifactError, match="must hold 1 digests"):
        CheckedBlocks(tmp_path / "a", tmp_path / "digests")


def test_an_index_without_block_digests_is_checked_whole(tmp_path):
    from productrec.artifacts import write_artifact, write_json

    embeddings = draw_classes(100)
    with write_artifact(tmp_path / "index", kind="index", notes={"weights_digest": "w"}) as folder:
        write_engine(build_engine(embeddings), folder / "index.faiss")
        np.save(folder / "labels.npy", np.arange(100))
        write_json(folder / "gallery.json", [f"i{row}" for row in range(100)])
    index = load_index(tmp_path / "index")
    assert search_index(index, gather(embeddings[:5]), 1)[0][:, 0].tolist() == list(range(5))
    path = tmp_path / "index" / "index.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="differs from its manifest"):
        load_index(tmp_path / "index")


def test_one_query_and_one_row(tmp_path):
    embeddings = draw_classes(1)
    save_index(tmp_path / "index", gather(embeddings), [4], inputs={}, settings={}, kind="auto")
    rows, similarities = search_index(load_index(tmp_path / "index"), gather(embeddings), 5)
    assert rows.tolist() == [[0]] and similarities[0, 0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("broken", ["refuses", "computes wrongly", "works"])
def test_a_gpu_is_taken_only_where_it_passes_the_probe(monkeypatch, broken):
    embeddings = draw_classes(200)
    flat = build_engine(embeddings)

    def move(resources, number, engine_on_cpu):
        if broken == "refuses":
            raise RuntimeError("out of memory")
        return build_engine(-embeddings if broken == "computes wrongly" else embeddings)

    monkeypatch.setattr(engine, "count_gpus", lambda: 1)
    monkeypatch.setattr(engine.faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(engine.faiss, "index_cpu_to_gpu", move, raising=False)
    moved = engine.move_to_gpu(flat)
    assert (moved is flat) == (broken != "works")
    rows = Searcher(flat).search(embeddings[:9], 1).rows
    assert rows[:, 0].tolist() == list(range(9))


def test_a_library_that_puts_its_own_search_in_place_of_faisss_changes_nothing():
    """pytorch-metric-learning imports `faiss.contrib.torch_utils`, whose search knows no parameters."""
    code = (
        "import faiss.contrib.torch_utils, numpy as np\n"
        "from productrec.retrieval.engine import build_engine, search_flat\n"
        "rows = np.eye(4, dtype=np.float32)\n"
        "alive = np.array([False, True, True, True])\n"
        "print(search_flat(build_engine(rows), rows[:1] + 0.5 * rows[1:2], 2, alive=alive).rows.tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith("[[1,")
