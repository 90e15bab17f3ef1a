"""What a reader holds while it reads a set: what it has to tell, and the folders it has listed."""

from dataclasses import dataclass, field
from pathlib import Path

from vovnet.data.finding import Action, Finding
from vovnet.data.folder import Folder
from vovnet.text import one_line


@dataclass
class Reading:
    """A set in the folder `home`, outside of which nothing is read."""

    home: Path
    findings: list[Finding] = field(default_factory=list)
    folders: dict[Path, Folder] = field(default_factory=dict)

    def tell(
        self,
        id_: str,
        what: str,
        split: str = "",
        image: str = "",
        number: int | None = None,
        action: Action = "",
    ) -> None:
        """Keep a finding; see `Finding`."""
        self.findings.append(Finding(id_, what, split, one_line(image), number, action))

    def folder(self, place: Path) -> Folder:
        """A folder's files, listed once."""
        if place not in self.folders:
            self.folders[place] = Folder(place, self.home)
        return self.folders[place]
