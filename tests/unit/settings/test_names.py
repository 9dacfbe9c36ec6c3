"""Names that files give."""

import subprocess
import sys

from productrec.settings.names import AUTO, list_formats


def test_formats_are_the_files_of_their_folder() -> None:
    names = list_formats()
    assert {"table", "fgvc_json", "coco", "csv", "sop", "webdataset", "huggingface", "folders"} <= set(names)
    assert list(names) == sorted(names)
    assert AUTO not in names
    assert "__init__" not in names


def test_to_name_the_formats_imports_none_of_them() -> None:
    command = (
        "import sys\nfrom productrec.settings.names import list_formats\nnames = list_formats()\n"
        "assert names and 'pandas' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('productrec.data.sources.formats.')]"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
