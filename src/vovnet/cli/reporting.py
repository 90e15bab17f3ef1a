"""The verb report."""

from dataclasses import replace
from pathlib import Path

from vovnet.cli._options import Json
from vovnet.cli._pages import Pages
from vovnet.cli._print import note, print_json
from vovnet.errors import EXIT_OK


def report(
    run: Path,
    *,
    pages: Pages = Pages(),  # noqa: B008  # frozen
    as_json: Json = False,
) -> int:
    """Show a training run: its curves, where its detector goes wrong, and what to type next.

    Writes RUN/report.html, or what --html names, at any time: while the run goes on, after a stop,
    and without validation, as far as there is something to show.

    Parameters
    ----------
    run
        A run's folder, such as runs/train/NAME.
    """
    from vovnet.review.page import REPORT, page_of_run

    pages = replace(pages, html=pages.html or run / REPORT)
    pages.check()
    page = page_of_run(run)
    page.write(pages.html, pages.png)
    if as_json:
        print_json({
            "html": str(pages.html),
            "png": None if pages.png is None else str(pages.png),
            "facts": dict(page.facts),
            "missing": page.missing,
            "next": [command for _, command in page.commands],
        })  # fmt: skip
        return EXIT_OK
    for line in page.missing:
        note(line)
    for path in filter(None, (pages.html, pages.png)):
        print(path, flush=True)
    for _, command in page.commands[-1:]:
        note(f"next: {command}")
    return EXIT_OK
