"""Links inside archives, followed to the files that they stand for; where those lie is the archive's affair."""

import errno
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath


def followed(members: dict, targets: dict[str, str]) -> dict:
    """The members of an archive, and under each link's name what it points to: a file, or all files of a folder.

    Parameters
    ----------
    targets : the links, each with the path inside the archive that it points to
    """
    if not targets:
        return members
    files = {posixpath.normpath(name): member for name, member in members.items() if not name.endswith("/")}
    links = {posixpath.normpath(name): posixpath.normpath(target) for name, target in targets.items()}
    children = defaultdict(set)
    for path in (*files, *links):
        while (parent := posixpath.dirname(path)) != path:
            children[parent or "."].add(posixpath.basename(path))
            path = parent

    def below(name: str, path: str, above: set[str]) -> Iterator[tuple]:
        real = _resolved(path, links)
        if real in files:
            yield name, files[real]
        elif real in above:
            yield name, OSError(errno.ELOOP, "a link to a folder around it")
        elif real in children:
            for child in sorted(children[real]):
                yield from below(f"{name}/{child}", posixpath.normpath(f"{real}/{child}"), above | {real})
        else:
            yield name, OSError(errno.ENOENT, f"a link to {links.get(path, path)}, which is not in the archive")

    around = {name: {".", *map(str, PurePosixPath(name).parents)} for name in links}
    return members | {path: handle for name in links for path, handle in below(name, name, around[name])}


def _resolved(path: str, links: dict[str, str]) -> str:
    """The path without links, as far as they lead; links that lead to each other end somewhere among them."""
    for _ in range(40):
        parents = [path, *map(str, PurePosixPath(path).parents)]
        if not (link := next((parent for parent in reversed(parents) if parent in links), None)):
            break
        path = posixpath.normpath(links[link] + path[len(link) :])
    return path
