"""How a folder of images is understood: which folders are splits, which are classes, and what is no image."""

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lwnb.base.errors import DataError
from lwnb.data import images
from lwnb.data.files import SPLITS, Files, role, some

SORT = "Sort them into a folder for each class, or into train/<class>/ and test/<class>/."

PAIRED = (
    {"image", "images", "img", "imgs", "jpegimages", "input", "inputs", "rgb"},
    {"mask", "masks", "label", "labels", "annotation", "annotations", "gt", "seg", "segmentation", "segmentationclass"}
    | {"segmentationobject", "target", "targets", "output", "outputs", "depth"},
)
"""Names of folders that stand side by side with an image in the one for each image of the other, and are no classes."""

MASKED = re.compile(r"[-_ ]*(mask|label|gt|seg|segmentation|annotation|target|depth)s?$")
"""What stands behind the name of an image in the name of its mask."""

MASKS = re.compile(r"(?i:mask|label|annot|segm|target|depth|ground.?truth)|(?<![A-Za-z])(?i:seg|gt)(?![a-z])")
"""What the name of a folder holds that may belong to another folder, image by image."""

TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".parquet")
"""Endings of files that may hold labels."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


@dataclass(frozen=True)
class Layout:
    """The (path, class) of each image by split, `all` where there is one split only,
    and sentences on how it was read."""

    entries: dict[str, list[tuple[str, str]]]
    notes: tuple[str, ...]


def read(files: Files, path: Path) -> Layout:
    """Understand a folder with train/<class>/ and test/<class>/, under whatever known names, or with <class>/ alone.

    Raises
    ------
    DataError
        Anything else; it says what was seen.
    """
    pictures = [name for name in files.names if _is_picture(name, files)]
    beside = sorted(set(files.names) - set(pictures))
    inside = [name for name in pictures if "/" in name]
    splits = _splits(inside, path)
    told = [*files.notes, *_without_images(files, inside, 2 if splits else 1), *_unread(beside), *_no_images(beside)]
    if splits:
        entries, notes = _by_split(inside, splits)
    else:
        _refuse_parallel(inside, path)
        entries, notes = {"all": {name: name.split("/") for name in inside}}, []
        notes += [f"{top}/ was taken for a class, not for a split." for top in sorted(_tops(inside)) if role(top)]
    _refuse_pairs(entries, path)
    loose = [name for name in pictures if "/" not in name]
    _refuse_unsorted(entries, loose, beside, told, path)
    labelled = {split: [(name, parts[0]) for name, parts in found.items()] for split, found in entries.items()}
    labelled, merged = _one_form(labelled)
    _refuse_one_sided(labelled, path)
    return Layout(labelled, (*notes, *merged, *told))


def _is_picture(name: str, files: Files) -> bool:
    """By the ending of its name; where that says nothing, by its content."""
    if images.is_image(name):
        return True
    try:
        return name.strip("./").count("/") > 0 and not images.is_sidecar(name) and images.identified(files.read(name))
    except OSError:
        return False


def _tops(names: Iterable[str]) -> set[str]:
    return {name.split("/")[0] for name in names}


# --- Splits ---


def _splits(names: Sequence[str], path: Path) -> dict[str, str]:
    """Folder -> train, val or test; empty where the folders are classes."""
    tops = _tops(names)
    roles = {top: role(top) for top in tops}
    flat = {name.split("/")[0] for name in names if name.count("/") == 1}  # with images right inside
    if not all(roles.values()):
        among = {top: _role_within(top) for top in tops}  # seg_train, seg_test
        if all(among.values()) and {"train"} < set(among.values()) and any(top not in flat for top in tops):
            return among
        named = {top for top in tops if roles[top]}
        below = {name.split("/")[1] for name in names if name.split("/")[0] in named and name.count("/") > 1}
        nested = {top for top in named - flat if roles[top] != "val" or below & tops}
        if len(named) > 1 or nested:
            raise DataError(
                f"{path}: {some(sorted(named))} named as a split, {some(sorted(tops - named))} not. "
                "Keep the folders of splits alone, or those of classes."
            )
        return {}
    if tops and "train" not in roles.values():
        raise DataError(f"{path}: no training images, only {some(sorted(tops))}; rename or add train/<class>/.")
    return roles


def _role_within(folder: str) -> str | None:
    """The split that a name of several words tells, if one of them alone does."""
    found = {role(word) for word in re.split(r"[\W_]+", folder)} - {None}
    return found.pop() if len(found) == 1 else None


def _by_split(names: Sequence[str], splits: dict[str, str]) -> tuple[dict, list[str]]:
    """Split -> path -> the parts of the path from the class on; and what was made of the folders."""
    found = {top: {n: n.split("/")[1:] for n in names if n.startswith(f"{top}/")} for top in sorted(splits)}
    found = _unwrapped(found)
    train = {parts[0] for top in found if splits[top] == "train" for parts in found[top].values() if parts[1:]}
    notes, left = [], [top for top in found if splits[top] != "train" and _unlabelled(found[top], train)]
    if left:
        counts = [f"{top}/ ({len(found.pop(top)):,} images)" for top in left]
        notes.append(f"Left out, as the images are not in folders of classes: {some(counts)}.")
    by_role = {role: [top for top in found if splits[top] == role] for role in SPLITS}
    told = {role: " and ".join(f"{top}/ ({len(found[top]):,} images)" for top in by_role[role]) for role in by_role}

    def all_of(*roles: str) -> dict:
        return {name: parts for role in roles for top in by_role[role] for name, parts in found[top].items()}

    if told["test"]:
        if told["val"]:
            notes.append(
                f"{told['train']} and {told['val']} are both used for training: "
                "a validation split is drawn from training images."
            )
        return {"train": all_of("train", "val"), "test": all_of("test")}, notes
    if told["val"]:
        notes.append(f"{told['val']} is the test split: a validation split is drawn from {told['train']}.")
        return {"train": all_of("train"), "test": all_of("val")}, notes
    notes.append(f"There is no test split: a part of {told['train']} is kept for testing.")
    return {"all": all_of("train")}, notes


def _unwrapped(found: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    """Without a folder around all classes of a split, as in train/images/<class>/:
    one that no other split has as a class."""
    firsts = {top: {parts[0] for parts in part.values()} for top, part in found.items()}
    for top, part in found.items():
        others = set().union(*(firsts[other] for other in found if other != top))
        same = all(firsts[other] == firsts[top] for other in found)
        if len(firsts[top]) == 1 and (same or not firsts[top] & others) and all(len(p) > 2 for p in part.values()):
            found = found | {top: {name: parts[1:] for name, parts in part.items()}}
    return found


def _unlabelled(part: dict[str, list[str]], train: set[str]) -> bool:
    """Whether images lie right in a folder, or in one that is no class of the training images."""
    places = {parts[0] if parts[1:] else None for parts in part.values()}
    return places == {None} or (len(places) == 1 and not places & train)


# --- Classes ---


def _refuse_parallel(names: Sequence[str], path: Path) -> None:
    """Folders that hold the same subfolders are no classes but folds."""
    subfolders = defaultdict(set)
    for name in names:
        top, *between, _ = name.split("/")
        subfolders[top] |= set(between[:1])
    if len(subfolders) < 2:
        return
    tops = some([f"{top}/" for top in sorted(subfolders)])
    shared = set.intersection(*subfolders.values())
    if len(shared) > 1 and len(shared) >= len(set().union(*subfolders.values())) / 2:
        raise DataError(
            f"{path}: {tops} hold the same subfolders: {some(sorted(shared))}. "
            "If these are the classes, move their images to "
            "train/<class>/ and test/<class>/; if not, move the images out of the subfolders."
        )


def _refuse_pairs(entries: dict[str, dict[str, list[str]]], path: Path) -> None:
    """Images and their masks are no classes, nor are they images of one class, at whatever depth they lie."""
    for part in entries.values():
        beside = defaultdict(lambda: defaultdict(set))  # folder -> each folder in it -> the files' paths in there
        for name, parts in part.items():
            whole, start = name.split("/"), name.count("/") + 1 - len(parts)
            for depth in range(start, len(whole) - 1):
                beside["/".join(whole[:depth])][whole[depth]].add(posixpath.splitext("/".join(whole[depth + 1 :]))[0])
        for around, files in beside.items():
            if _paired(files):
                folders = some([posixpath.join(around, folder) + "/" for folder in sorted(files)])
                raise DataError(
                    f"{path}: {folders} seem to belong together, image by image, rather than to be classes. {SORT} "
                    "If they are classes, give the folders other names."
                )


def _paired(files: dict[str, set[str]]) -> bool:
    """Whether folders hold images and their masks, by the names of the folders; or, where they are two,
    and one of them is named so, by the names of their files."""
    folders = {folder.casefold() for folder in files}
    if all(words & folders for words in PAIRED):
        return True
    if len(files) != 2 or (folders != {"x", "y"} and sum(bool(MASKS.search(folder)) for folder in files) != 1):
        return False
    one, other = ({MASKED.sub("", stem.casefold()) for stem in stems} for stems in files.values())
    return len(one & other) >= 0.9 * max(len(one), len(other))


def _refuse_unsorted(
    entries: dict[str, dict], loose: list[str], beside: list[str], told: list[str], path: Path
) -> None:
    """Every image lies in the folder of its class, and there are two classes at least."""
    loose = loose + [name for part in entries.values() for name, parts in part.items() if len(parts) < 2]
    classes = sorted({parts[0] for part in entries.values() for parts in part.values()})
    if not loose and not classes and (unread := _endings(filter(images.is_unread, beside))):
        raise DataError(f"{path}: no images that can be read: {unread}; convert them to JPEG or PNG.")
    if loose:
        fault = f"images outside of any class's folder: {some(loose, most=5)}"
    elif len(classes) < 2:
        fault = f"at least 2 classes are needed, found {len(classes)}: {some(classes) or 'no images at all'}"
    else:
        return
    tables = [name for name in beside if images.suffix(name) in TABLES and name.count("/") < 2]
    said = [f"Labels are read from folders, not from {some(tables, most=3)}."] if tables else []
    if not classes and (packed := [name for name in beside if images.suffix(name) in ARCHIVES]):
        said.append(f"To use an archive, set data_root to it, or unpack it: {some(packed, most=3)}.")
    raise DataError(" ".join([f"{path}: {fault}. {SORT}", *said, *told]))


def _one_form(entries: dict[str, list[tuple[str, str]]]) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Class names that are one name in two forms of Unicode (é as one character or as two) made one."""
    stored = {name for part in entries.values() for _, name in part}
    forms = Counter(unicodedata.normalize("NFC", name) for name in stored)
    several = {name for name, count in forms.items() if count > 1}
    if not several:
        return entries, []
    form = {name: nfc if (nfc := unicodedata.normalize("NFC", name)) in several else name for name in stored}
    merged = {split: [(path, form[name]) for path, name in part] for split, part in entries.items()}
    return merged, [f"Taken as one class, though written in two forms of Unicode: {some(sorted(several))}."]


def _refuse_one_sided(entries: dict[str, list[tuple[str, str]]], path: Path) -> None:
    """Every class stands in both splits."""
    if "all" in entries:
        return
    train, test = ({name for _, name in entries[split]} for split in ("train", "test"))
    only = {name: "training" if name in train else "testing" for name in sorted(train ^ test)}
    if only:
        raise DataError(
            f"{path}: each class needs images for training and for testing; in one split only: "
            f"{some([f'{name} ({split})' for name, split in only.items()])}. Rename or add folders, or take those away."
        )


# --- What else there is ---


def _without_images(files: Files, inside: Sequence[str], depth: int) -> list[str]:
    """What to say of folders where a split or a class could be, and no image is."""

    def upper(names: Iterable[str]) -> set[str]:
        folders = ([*name.split("/")[:-1]][:depth] for name in names if not name.startswith("../"))
        return {"/".join(parts[:d]) + "/" for parts in folders for d in range(1, len(parts) + 1)}

    empty = sorted(upper((*files.names, *files.folders)) - upper(inside))
    return [f"Folders without images: {some(empty)}."] if empty else []


def _no_images(names: Iterable[str]) -> list[str]:
    """What to say of files that are no images: how many have which ending."""
    counts = _endings(name for name in names if not images.is_unread(name))
    return [f"Files that are no images, left out: {counts}."] if counts else []


def _unread(names: Iterable[str]) -> list[str]:
    """What to say of images of kinds that are not read."""
    counts = _endings(filter(images.is_unread, names))
    return [f"Images of kinds that are not read, left out: {counts}; convert them to JPEG or PNG."] if counts else []


def _endings(names: Iterable[str]) -> str:
    """How many files have which ending; '' where there are none."""
    endings = Counter(images.suffix(name) or "without an ending" for name in names)
    return some([f"{count:,} {ending}" for ending, count in endings.most_common()])
