"""The table of recipes in recipes/README.md, from the recipes themselves.

python tools/recipe_table.py
"""

from pathlib import Path
from typing import Any

from vovnet.train.recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
README = RECIPES / "README.md"
START, END = "<!-- written by tools/recipe_table.py -->", "<!-- end of the table -->"
_COLUMNS = ("recipe", "data", "schedule", "published", "source")


def recipe_paths() -> list[Path]:
    """All recipes, by name."""
    return sorted(RECIPES.glob("*.yaml"))


def header_facts(path: Path) -> dict[str, str]:
    """What a recipe's header says in lines `# Key: value`."""
    lines = path.read_text().splitlines()
    facts = (line[2:].partition(": ") for line in lines if line.startswith("# "))
    return {key: value for key, colon, value in facts if colon and key in ("Published", "Source")}


def data_text(values: dict[str, Any]) -> str:
    """The data sets without the folders above them."""
    return ", ".join(source.removeprefix("../shared/data/") for source in values["data"])


def schedule_text(values: dict[str, Any]) -> str:
    """Length, images of a step, optimiser, learning rate, and where it drops."""
    unit = next(key for key in ("steps", "epochs", "minutes") if key in values)
    length = values[unit]
    parts = [f"{length:,} {unit}", f"{values['batch']} images a step"]
    rate = f" {values['lr']:g}" if "lr" in values else ""
    parts.append(f"{values.get('optimizer', 'muon')}{rate}")
    if "milestones" in values:
        drops = ", ".join(f"{round(share * length):,}" for share in values["milestones"])
        parts.append(f"×{values.get('gamma', 0.1)} at {drops}")
    return ", ".join(parts)


def table() -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for path in recipe_paths():
        values, facts = read_recipe(path), header_facts(path)
        cells = [
            f"[{path.stem}]({path.name})",
            data_text(values),
            schedule_text(values),
            facts.get("Published", "–"),
            facts.get("Source", "ours"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """The README with its table renewed; raises ValueError where the marks are missing."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{table()}\n\n{END}{after}"


def main() -> None:
    """Renew the table."""
    README.write_text(readme(README.read_text()))


if __name__ == "__main__":
    main()
