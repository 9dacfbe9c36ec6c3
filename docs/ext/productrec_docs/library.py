"""What programs may import of productrec itself, for Sphinx to document."""

import inspect

import productrec


def list_public() -> list[str]:
    """The public names that ``productrec`` declares, in the order of its file."""
    declared = getattr(productrec, "__all__", None)
    if declared is not None:
        return list(declared)
    return [
        name
        for name, value in vars(productrec).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == productrec.__name__
        and not name.startswith("_")
    ]


def write_library() -> list[str]:
    """Blocks for autodoc, one a name."""
    lines = ["```{eval-rst}"]
    for name in list_public():
        kind = "autoclass" if inspect.isclass(getattr(productrec, name)) else "autofunction"
        lines += [f".. {kind}:: productrec.{name}", ""]
    return [*lines, "```"]
