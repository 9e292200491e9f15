"""How a place is called for people."""


def named(kind: str, title: str) -> str:
    """Return a thing with its title: ``group "gpu"``."""
    return f'{kind} "{printable(title)}"' if title else kind


def path_of(*parts: str) -> str:
    """Return where something stands, from the outermost."""
    return " › ".join(filter(None, parts))


def printable(text: str) -> str:
    """Return a text on one line, and without what a terminal would obey."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
