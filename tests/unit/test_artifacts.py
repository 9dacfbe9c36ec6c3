"""Artefacts: whole or not at all, never over something else, and damage is found."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from productrec import artifacts
from productrec.artifacts import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    change_artifact,
    check_files,
    check_replaceable,
    compute_digest,
    compute_file_digest,
    explain_storage_errors,
    is_fresh,
    load_manifest,
    write_artifact,
    write_file,
    write_folder,
    write_json,
    write_text,
)
from productrec.errors import ArtifactError, StorageError

KIND = "image table"


def make(folder: Path, text: str = "old", *, kind: str = KIND, **more) -> Path:
    with write_artifact(folder, kind=kind, **more) as temporary:
        (temporary / "a.txt").write_text(text)
        (temporary / "deep").mkdir()
        (temporary / "deep" / "b.bin").write_bytes(b"\0\1\2")
    return folder


def check_old_stands_alone(folder: Path, text: str = "old") -> None:
    """The artefact is whole, and nothing else lies beside it."""
    assert (folder / "a.txt").read_text() == text
    check_files(folder, load_manifest(folder, kind=KIND))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def refuse_fsync(number: int):
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


# ---------------------------------------------------------------- single files


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "note.txt"
    write_text(path, "één\n")
    assert path.read_bytes() == "één\n".encode()
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_json_is_sorted_indented_and_ends_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": Path("x"), "a": 1})
    assert path.read_text() == '{\n  "a": 1,\n  "b": "x"\n}\n'


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_file_stays_as_it_was_when_writing_is_cut_short(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(kind), write_file(path) as temporary:
        temporary.write_text("half")
        raise kind
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left while writing; what stood there before is untouched"),
        (errno.EDQUOT, "no space left while writing"),
        (errno.EROFS, "not permitted to write here"),
        (errno.EACCES, "not permitted to write here"),
    ],
)
def test_a_disk_that_refuses_is_explained_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", refuse_fsync(number))
    with pytest.raises(StorageError, match=f"note.txt: {text}"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_while_the_content_is_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")

    def write_half(self: Path, text: str, **options: str) -> None:
        self.write_bytes(text[:1].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(StorageError, match="no space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_where_nothing_can_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "below.txt", tmp_path / "folder", tmp_path / ("n" * 250)):
        with pytest.raises(StorageError, match="cannot be written here"):
            write_text(place, "new")
    assert (tmp_path / "file").read_text() == "x"


def test_other_errors_of_the_system_are_not_dressed_up() -> None:
    with pytest.raises(OSError, match="strange") as caught, explain_storage_errors(Path("x")):
        raise OSError(errno.EIO, "strange")
    assert not isinstance(caught.value, StorageError)


# ---------------------------------------------------------------- artefacts


def test_a_manifest_says_what_the_artefact_is(tmp_path: Path) -> None:
    folder = make(tmp_path / "table", inputs={"x": "1"}, settings={"seed": 3, "path": Path("a"), "grid": (1, 2)})
    manifest = load_manifest(folder, kind=KIND)
    assert manifest.kind == KIND
    assert manifest.format_version == FORMAT_VERSION
    assert manifest.inputs == {"x": "1"}
    assert manifest.settings == {"seed": 3, "path": "a", "grid": [1, 2]}
    assert set(manifest.files) == {"a.txt", "deep/b.bin"}
    assert manifest.files["deep/b.bin"] == {"sha256": compute_digest(b"\0\1\2"), "bytes": 3}
    assert compute_file_digest(folder / "a.txt") == manifest.files["a.txt"]["sha256"]
    assert manifest.versions["python"] == sys.version.split()[0]
    assert "numpy" in manifest.versions
    check_old_stands_alone(folder)


def test_the_versions_do_not_need_the_libraries_imported() -> None:
    code = "import sys, productrec.artifacts as a; a.compute_versions(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_notes_filled_inside_the_block_are_kept(tmp_path: Path) -> None:
    notes = {"early": 1}
    with write_artifact(tmp_path / "table", kind=KIND, notes=notes) as temporary:
        (temporary / "a.txt").write_text("x")
        notes["late"] = [Path("y"), 2.5]
    assert load_manifest(tmp_path / "table").notes == {"early": 1, "late": ["y", 2.5]}


def test_an_artefact_replaces_an_older_one_whole(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    (folder / "stray.txt").write_text("left by hand")
    with write_artifact(folder, kind=KIND) as temporary:
        (temporary / "a.txt").write_text("new")
    assert {path.name for path in folder.iterdir()} == {"a.txt", MANIFEST_NAME}
    check_old_stands_alone(folder, "new")


def test_an_empty_folder_may_be_taken(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    check_old_stands_alone(make(tmp_path / "table"))


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("there", [True, False])
def test_an_exception_leaves_the_old_artefact_and_no_temporary(
    tmp_path: Path, kind: type[BaseException], there: bool
) -> None:
    folder = tmp_path / "table"
    if there:
        make(folder)
    with pytest.raises(kind), write_artifact(folder, kind=KIND) as temporary:
        (temporary / "a.txt").write_text("half")
        raise kind
    if there:
        check_old_stands_alone(folder)
    else:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_artefact_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = make(tmp_path / "table")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_fsync(number))
        with pytest.raises(StorageError, match="table: no space left while writing; what stood there") as caught:
            make(folder, "new")
    assert caught.value.exit_code == 6
    check_old_stands_alone(folder)


def test_a_disk_that_fills_inside_the_block_leaves_the_old_artefact(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    with pytest.raises(StorageError, match="no space left"), write_artifact(folder, kind=KIND) as temporary:
        (temporary / "a.txt").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    check_old_stands_alone(folder)


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_stop_between_the_two_renames_puts_the_old_artefact_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    folder = make(tmp_path / "table")
    rename = os.rename

    def stop_at_the_second(source: Path, target: Path) -> None:
        if ".tmp-" in str(source):
            raise kind
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stop_at_the_second)
        with pytest.raises(kind):
            make(folder, "new")
    check_old_stands_alone(folder)


def test_a_killed_process_leaves_the_old_artefact_and_the_next_write_succeeds(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    code = """
import sys, time
from pathlib import Path
from productrec.artifacts import write_artifact
with write_artifact(Path(sys.argv[1]), kind="image table") as temporary:
    (temporary / "a.txt").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert (folder / "a.txt").read_text() == "old"
    check_files(folder, load_manifest(folder, kind=KIND))
    make(folder, "new")
    assert (folder / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_process_killed_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    code = """
import os, signal, sys
from pathlib import Path
from productrec.artifacts import write_artifact
rename = os.rename
def stop_at_the_second(source, target):
    if ".tmp-" in str(source):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = stop_at_the_second
with write_artifact(Path(sys.argv[1]), kind="image table") as temporary:
    (temporary / "a.txt").write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -signal.SIGKILL
    assert not folder.exists()
    check_files(folder, load_manifest(folder, kind=KIND))
    check_old_stands_alone(folder)


def test_what_an_earlier_process_of_our_number_moved_aside_comes_back(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    folder.rename(tmp_path / f".table.old-{socket.gethostname()}-{os.getpid()}")
    check_files(folder, load_manifest(folder, kind=KIND))
    check_old_stands_alone(folder)


def test_what_a_living_process_or_another_machine_is_writing_is_left_alone(tmp_path: Path) -> None:
    host = socket.gethostname()
    names = [f".table.tmp-{host}-{os.getppid()}", f".table.tmp-{host}x-999999999", f".table.tmp-{host}-mine"]
    for name in names:
        (tmp_path / name).mkdir()
    make(tmp_path / "table")
    assert {path.name for path in tmp_path.iterdir()} == {"table", *names}


# ---------------------------------------------------------------- what is refused


def test_an_artefact_of_another_kind_is_not_written_over(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    with pytest.raises(ArtifactError, match="must hold the index; got the image table"):
        make(folder, "new", kind="index")
    check_old_stands_alone(folder)


def test_a_folder_with_foreign_files_is_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="holds files that are no image table"):
        make(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.tex"]


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("a file")
    with pytest.raises(ArtifactError, match="must be a folder, for the image table; got a file"):
        make(tmp_path / "table")
    assert (tmp_path / "table").read_text() == "a file"


def test_a_place_is_checked_before_any_work_is_done(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("a file")
    entered = False
    with pytest.raises(ArtifactError), write_artifact(tmp_path / "table", kind=KIND):
        entered = True
    assert not entered
    check_replaceable(tmp_path / "absent", kind=KIND)


# ---------------------------------------------------------------- damage


def test_a_missing_artefact_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no image table here"):
        load_manifest(tmp_path / "absent", kind=KIND)
    with pytest.raises(ArtifactError, match="no artefact here"):
        load_manifest(tmp_path)


def test_a_file_that_grew_is_found_by_its_size(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    with (folder / "a.txt").open("a") as file:
        file.write("!")
    for digests in (True, False):
        with pytest.raises(ArtifactError, match="a.txt: differs from its manifest; the image table is damaged"):
            check_files(folder, load_manifest(folder), digests=digests)


def test_a_flipped_bit_is_found_by_the_digest_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    (folder / "deep" / "b.bin").write_bytes(b"\0\1\3")
    check_files(folder, load_manifest(folder), digests=False)
    with pytest.raises(ArtifactError, match=r"b.bin: differs from its manifest"):
        check_files(folder, load_manifest(folder))


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "table")
    (folder / "a.txt").unlink()
    with pytest.raises(ArtifactError, match="a.txt: missing from this image table"):
        check_files(folder, load_manifest(folder), digests=False)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"x"', "{}", '{"format_version": "x"}', '{"kind": "image table", "more": 1}', "\udcff"]
)
def test_a_manifest_that_cannot_be_read_is_one_clear_error(tmp_path: Path, text: str) -> None:
    folder = make(tmp_path / "table")
    (folder / MANIFEST_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=r"manifest.json: cannot be read"):
        load_manifest(folder)
    assert not is_fresh(folder, kind=KIND, inputs={}, settings={})


@pytest.mark.parametrize("change", [{}, {"signature": "a key that this version does not know"}])
def test_a_newer_format_asks_for_a_newer_program(tmp_path: Path, change: dict[str, str]) -> None:
    folder = make(tmp_path / "table")
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    write_json(folder / MANIFEST_NAME, manifest | {"format_version": FORMAT_VERSION + 1} | change)
    with pytest.raises(ArtifactError, match=f"must be at most {FORMAT_VERSION}; got {FORMAT_VERSION + 1}. Update"):
        load_manifest(folder)


# ---------------------------------------------------------------- freshness and fingerprints


def test_an_artefact_is_fresh_for_its_own_inputs_and_settings_only(tmp_path: Path) -> None:
    inputs, settings = {"table": "abc"}, {"seed": 1, "grid": (1, 2), "path": Path("x")}
    folder = make(tmp_path / "table", inputs=inputs, settings=settings)

    def fresh(**changes) -> bool:
        return is_fresh(folder, **{"kind": KIND, "inputs": inputs, "settings": settings} | changes)

    assert fresh()
    assert not fresh(kind="index")
    assert not fresh(inputs={"table": "abd"})
    assert not fresh(inputs={})
    assert not fresh(inputs=inputs | {"more": "1"})
    assert not fresh(settings=settings | {"seed": 2})
    assert not fresh(settings={"seed": 1})
    assert not is_fresh(tmp_path / "absent", kind=KIND, inputs={}, settings={})
    (folder / "a.txt").unlink()
    assert not fresh()


def test_a_fingerprint_follows_the_content(tmp_path: Path) -> None:
    def fingerprint(name: str, text: str = "old", **more) -> str:
        return load_manifest(make(tmp_path / name, text, **more)).fingerprint

    same = fingerprint("a")
    assert fingerprint("b") == same
    assert fingerprint("c", notes={"when": "today"}) == same
    different = [
        fingerprint("d", "new"),
        fingerprint("e", inputs={"x": "1"}),
        fingerprint("f", settings={"x": 1}),
        fingerprint("g", kind="index"),
    ]
    assert len({same, *different}) == 5


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert compute_digest({"a": 1, "b": [1, 2]}) == compute_digest({"b": [1, 2], "a": 1})
    assert compute_digest({"a": 1}) != compute_digest({"a": 2})
    assert compute_digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_large_file_is_digested_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40)
    whole = compute_file_digest(tmp_path / "a")
    monkeypatch.setattr(artifacts, "_CHUNK_BYTES", 1000)
    assert compute_file_digest(tmp_path / "a") == whole == compute_digest(bytes(range(256)) * 40)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a/bundle"
    with pytest.raises(KeyboardInterrupt), write_folder(target) as temporary:
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []
    with write_folder(target) as temporary:
        (temporary / "b").mkdir()
        (temporary / "b/whole").write_text("whole")
    assert (target / "b/whole").read_text() == "whole" and list((tmp_path / "a").iterdir()) == [target]
    with pytest.raises(ArtifactError, match="must not be there yet"), write_folder(target):
        pass
    assert (target / "b/whole").read_text() == "whole"


def test_a_folder_that_a_killed_process_left_half_is_tidied(tmp_path: Path) -> None:
    left = tmp_path / f".bundle.tmp-{socket.gethostname()}-{2**22 + 1}"  # beyond the largest number of a process
    left.mkdir()
    with write_folder(tmp_path / "bundle"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_changed_copy_of_an_artefact_is_whole_again(tmp_path: Path) -> None:
    with write_artifact(tmp_path / "a", kind="thing", settings={"path": "/here"}) as temporary:
        for name in ("kept", "changed", "dropped"):
            (temporary / name).write_text(name)
    before = load_manifest(tmp_path / "a")
    change_artifact(tmp_path / "a", files={"changed": "anew"}, settings={"path": None}, without=["dropped"])
    after = load_manifest(tmp_path / "a")
    check_files(tmp_path / "a", after)
    assert set(after.files) == {"kept", "changed"} and after.files["kept"] == before.files["kept"]
    assert after.settings == {"path": None} and not (tmp_path / "a/dropped").exists()
    (tmp_path / "a/changed").write_text("once more")
    with pytest.raises(ArtifactError, match="differs from its manifest"):
        check_files(tmp_path / "a", after)
