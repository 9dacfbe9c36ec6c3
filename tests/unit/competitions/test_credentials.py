"""Where credentials are looked for, and that a file which others can read is refused."""

import subprocess
from pathlib import Path

import pytest

from productrec.competitions.credentials import find_credentials
from productrec.errors import UploadError

NAMES = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def keep(path: Path, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("sentinel")
    path.chmod(mode)
    return path


def test_without_credentials_the_error_says_where_they_go(home):
    with pytest.raises(UploadError, match=r"found none. .*~/.kaggle/access_token.*KAGGLE_API_TOKEN.*kaggle.json"):
        find_credentials()


@pytest.mark.parametrize(
    "name",
    [
        ".kaggle/access_token",
        ".kaggle/access_token.txt",
        ".kaggle/kaggle.json",
        ".kaggle/credentials.json",
        ".config/kaggle/kaggle.json",
    ],
)
def test_each_file_of_the_client_is_found_and_refused_where_others_can_read_it(home, name):
    path = keep(home / name)
    assert find_credentials() == str(path)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(UploadError, match=f"got mode {mode:o}") as raised:
            find_credentials()
        assert "sentinel" not in str(raised.value)
    subprocess.run(str(raised.value).partition("Run: ")[2], shell=True, check=True)
    assert find_credentials() == str(path)


def test_the_folder_and_the_variables_are_the_clients(home, monkeypatch):
    elsewhere = keep(home / "a folder/kaggle.json")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(elsewhere.parent))
    assert find_credentials() == str(elsewhere)
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    assert find_credentials() == str(elsewhere)  # a name without a key
    monkeypatch.setenv("KAGGLE_KEY", "sentinel")
    assert find_credentials() == "KAGGLE_USERNAME and KAGGLE_KEY"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "sentinel" * 1000)
    assert find_credentials() == "KAGGLE_API_TOKEN"
    token = keep(home / "token")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(token))
    assert find_credentials() == str(token)
    token.chmod(0o644)
    with pytest.raises(UploadError, match="chmod 600"):
        find_credentials()
