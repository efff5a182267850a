"""Draw what a command leaves on a terminal as an SVG: how the pictures of the documents are made.

python examples/draw_terminal.py docs/images/demo.svg klagg demo --seconds 150

The command runs in a pseudo-terminal, so it shows what people see. The SVG loads nothing from elsewhere.
"""

import argparse
import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 136, 60
TOKEN = re.compile(r"\x1b\[(?P<codes>[0-9;?]*)(?P<final>[A-Za-z])|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)")
REMOTE_FONTS = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)
TRAILING_BLANKS = re.compile(r"[ \t]+$", re.MULTILINE)


class Screen:
    """The little of a terminal that rich's live displays use: lines, colours, one line up, erase this line."""

    def __init__(self) -> None:
        self.rows = [""]
        self._row = 0
        self._at_start = True

    def feed(self, text: str) -> None:
        """Take what the command wrote."""
        for token in TOKEN.finditer(text):
            if token["final"] == "A":
                self._row = max(0, self._row - int(token["codes"] or 1))
            elif token["final"] == "K":
                self.rows[self._row] = ""
            elif token["control"] == "\n":
                self._row += 1
                if self._row == len(self.rows):
                    self.rows.append("")
            elif token["control"] == "\r":
                self._at_start = True
            elif token["text"] or token["final"] == "m":
                if self._at_start:
                    self.rows[self._row] = ""
                self.rows[self._row] += token[0]
                self._at_start = False


def written(command: Sequence[str]) -> Iterator[str]:
    """What a command writes to a terminal, as it comes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True):
        os.close(theirs)
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # the command has left its terminal
                break
            if not data:
                break
            yield decoder.decode(data)
    os.close(ours)


def drawn(command: Sequence[str], rows: Sequence[str]) -> str:
    """The SVG of a terminal with these lines, the command above them."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi("\n".join([f"$ {' '.join(command)}", *rows])), soft_wrap=True)
    svg = console.export_svg(title=" ".join(command[:2]), unique_id="klagg")
    return TRAILING_BLANKS.sub("", REMOTE_FONTS.sub("", svg))


def main() -> None:
    """Run the command, then write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    screen = Screen()
    for text in written(arguments.command):
        screen.feed(text)
    while screen.rows and not screen.rows[-1].strip():
        screen.rows.pop()
    arguments.picture.write_text(drawn(arguments.command, screen.rows) + "\n", "utf-8")


if __name__ == "__main__":
    main()
