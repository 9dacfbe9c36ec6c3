"""Every competition's contract as it stands in its file, and what the keys of a contract mean."""

from importlib import resources

from productrec.competitions.contract import Contract, list_contracts, load_contract
from productrec.settings.kinds import describe_kind
from productrec_docs.tables import escape, show_default, write_table


def write_contract_keys() -> list[str]:
    """A table of the keys that a contract may have."""
    rows = []
    for key, field in Contract.model_fields.items():
        default = "required" if field.is_required() else str(field.default).replace("\t", "tab")
        kind = describe_kind(field.annotation, field.metadata)
        shown = show_default(default) if default.strip() else "a space"
        rows.append((f"`{key}`", escape(kind), shown, escape(field.description or "")))
    return write_table(("key", "values", "default", "what it is"), rows)


def write_contracts() -> list[str]:
    """A section a contract: what it scores, and the file."""
    lines: list[str] = []
    for name in list_contracts():
        contract = load_contract(name)
        lines += [f"({name_anchor(name)})=", f"### `{name}`", "", f"{escape(contract.title)}. "]
        lines += [f"Scores: {escape(contract.tell_metric())}.", "", "```yaml"]
        lines += [*_read_contract(name).rstrip().splitlines(), "```", ""]
    return lines


def name_anchor(name: str) -> str:
    """Where the reference tells of a competition."""
    return f"competition-{name.replace('_', '-')}"


def _read_contract(name: str) -> str:
    return (resources.files("productrec.competitions") / f"{name}.yaml").read_text(encoding="utf-8")
