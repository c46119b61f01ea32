"""A second look at two pictures: whether their pixels agree, once one is laid over the other.

An embedding says what pictures are alike; two photographs of one street are alike and yet no copies of each other. The
fine detail of copies coincides, that of look-alikes doesn't. So both are reduced to small greys without their slow
gradations (which lighting and editing change most), laid over each other, and correlated: zero-mean normalised
cross-correlation (Lewis, "Fast Normalized Cross-Correlation", 1995), in the frequency domain for the search of the
place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from massl.core.images.decoding import MAX_PIXELS, open_image, within_memory
from massl.core.images.image_errors import ImageError
from massl.core.images.measures import within_borders
from massl.core.images.rendering import EACH_FILE, Rendering
from massl.core.lookahead import ahead

FINE = 96  # pixels of a sketch's longer side
COARSE = 32  # of the one in which the place is searched
BLUR = 3  # half the width, in pixels, of the window whose mean is taken away
SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.64, 0.58, 0.52)  # sides of a cut, of the whole's
ASPECT = 0.12  # by how much, in logarithms, the proportions of one whole picture may differ from another's
PROMISING = 0.5  # what agrees less than this in the coarse is not looked at more closely
ENOUGH = 0.97  # wholes that agree this well are not searched for parts
DOUBTFUL = 0.3  # agreement from which pictures with a border are looked at again, larger
KEPT = 4_096  # sketches in memory, about 10 KB each
BLOCKS = 6  # along each side of a picture, whose agreement is looked at one by one
DISSENT = 0.2  # of the blocks, that may disagree in copies: what is written over them, or blown out
ROOM = 0.35  # by which a picture may agree better than the blocks that agree least
COLOURLESS = 0.5  # of the colour of one picture that another has, under which it is called grey
LIGHT = 6.0  # grey levels by which copies differ at most unless one was made brighter or darker
FLAT = 2.0  # standard deviation in grey levels under which a picture has no detail to go by

_LARGER = 4 * FINE  # pixels of the shorter side, where a half pixel of a sketch matters
_NEAR = (0, -1, 1)  # half coarse pixels, looked at around a place found in the coarse
_MEAN = ImageFilter.BoxBlur(BLUR)
_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE,
)  # fmt: skip


@dataclass(frozen=True)
class Sketch:
    """A picture as far as the second look needs it: a grey of at most `FINE` pixels a side.

    Attributes:
        fine, coarse: the grey, of at most `FINE` and `COARSE` pixels a side.
        inside: of what lies within plain borders; None where there are none.
        share: of the whole's area, that this takes.
    """

    fine: Image.Image
    coarse: Image.Image
    inside: Sketch | None = None
    share: float = 1.0

    @classmethod
    def of(cls, picture: Image.Image) -> Sketch:
        """Of a picture of any size and mode."""
        grey = picture.convert("L")
        box = within_borders(grey)
        whole = cls(_within(grey, FINE), _within(grey, COARSE))
        if box is None:
            return whole
        part = grey.crop(box)
        share = part.width * part.height / (grey.width * grey.height)
        return replace(whole, inside=cls(_within(part, FINE), _within(part, COARSE)), share=share)


def agreement(one: Sketch, other: Sketch) -> float:
    """How well the detail of two pictures coincides where they overlap, from -1 to 1, whichever is given first.

    Whole against whole, upright, turned by quarters and mirrored, also without the plain borders around them; and each
    as a part cut out of the other, upright, at half its sides at least. Pictures without any detail (one colour) agree
    with nothing: 0.
    """
    # Bringing one to the other's size is not the same as the reverse: a fixed order, whichever is given first.
    if (one.fine.size, one.fine.tobytes()) > (other.fine.size, other.fine.tobytes()):
        one, other = other, one
    whole = _as_wholes(one, other)
    if whole < ENOUGH:
        whole = max(whole, _within_their_borders(one, other))
    if whole >= ENOUGH:
        return min(1.0, whole)
    return min(1.0, max(whole, _as_part(one, other), _as_part(other, one)))


def edit_between(one: Image.Image, other: Image.Image) -> str:
    """What was done to a picture to make a copy of it, as far as their small versions tell.

    Which of the two was edited can't be told.

    Returns:
        `mirrored`, `turned`, `bordered` (one has a plain border that the other lacks), `cut` (one is a part of the
        other), `grey`, `brighter or darker`, or nothing where they differ by scale and compression at most.
    """
    sketches = Sketch.of(one), Sketch.of(other)
    first, second = sorted(sketches, key=lambda sketch: (sketch.fine.size, sketch.fine.tobytes()))
    turns = {turn: _as_wholes(first, second, (turn,)) for turn in (None, *_TURNS)}
    turn = max(turns, key=lambda each: (round(turns[each], 2), each is None))
    if turns[turn] < ENOUGH:
        inside = _within_their_borders(first, second)
        part = max(_as_part(first, second), _as_part(second, first))
        if inside > turns[turn] and inside >= part:
            return "bordered"
        if part > turns[turn]:
            return "cut"
    if turn is not None:
        return "turned" if turn.name.startswith("ROTATE") else "mirrored"
    colours = sorted(_colour(picture) for picture in (one, other))
    if colours[0] < COLOURLESS * colours[1] and colours[1] > FLAT:
        return "grey"
    small = [np.asarray(sketch.fine.resize((8, 8), Image.Resampling.BOX), np.float32) for sketch in sketches]
    return "brighter or darker" if float(np.abs(small[0] - small[1]).mean()) > LIGHT else ""


def _colour(picture: Image.Image) -> float:
    """How far a picture is from grey: the mean difference of its channels, in levels."""
    small = np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), np.float32)
    return float((small.max(2) - small.min(2)).mean())


class Looks:
    """Looks at the pixels of pairs of images, remembered by content so that none is taken twice. Threads may share it.

    Args:
        paths: the image files.
        names: the hash of each one's content, in hexadecimal.
        known: what was seen before, by content; added to. What of it was asked for is in `used`.
        max_pixels: of larger images nothing is seen.
        rendering: how deep files are shown.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        names: Sequence[str],
        known: dict[str, float],
        max_pixels: int = MAX_PIXELS,
        rendering: Rendering = EACH_FILE,
    ) -> None:
        self.paths = paths
        self.names = names
        self.known = known
        self.max_pixels = max_pixels
        self.rendering = rendering
        self.used: dict[str, float] = {}
        self._sketches: OrderedDict[tuple[int, int], Sketch | None] = OrderedDict()
        self._turn = threading.Lock()  # for whoever touches the sketches

    def agreement(self, one: int, other: int) -> float:
        """Of two images by their positions; 0 where a file can't be read."""
        found = self.remember(self._key(one, other), lambda: self._look(one, other))
        return 0.0 if found is None else found

    def agreements(self, pairs: Sequence[tuple[int, int]]) -> Generator[float, None, None]:
        """As `agreement`, of one pair after the other: their files are decoded in threads, a few pairs ahead.

        Only that: a look is hundreds of operations that take microseconds, between which threads wait for Python's
        lock. Two threads took twice the time of one, and three times the work.
        """
        with closing(ahead(self._prepare, pairs)) as prepared:
            for pair, _ in zip(pairs, prepared, strict=True):
                yield self.agreement(*pair)

    def edit(self, one: int, other: int) -> str:
        """What was done to make one of two copies of the other; see `edit_between`. Empty where one can't be read."""
        try:
            with within_memory():
                # A JPEG that is decoded at an eighth of its size covers up to seven pixels more than the picture has.
                # Of a small copy that is enough to look like a cut: few pictures are looked at here, so larger ones.
                return edit_between(self.open(one, _LARGER), self.open(other, _LARGER))
        except ImageError:
            return ""

    def within_border(self, position: int) -> float | None:
        """The share of an image's area that lies within its plain border; None where none is seen."""
        sketch = self._sketch(position)
        return sketch.share if sketch and sketch.inside else None

    def without_border(self, one: int, other: int) -> float:
        """How well the first image agrees with the second one once its own plain border is taken off.

        0 where it has none, or agrees as well with it: then the other one has the same.
        """
        first, second = self._sketch(one, _LARGER), self._sketch(other, _LARGER)
        if not first or not second or not first.inside:
            return 0.0
        inside = _as_wholes(first.inside, second)
        return max(0.0, inside) if inside > _as_wholes(first, second) else 0.0

    def remember(self, key: str, find: Callable[[], float | None]) -> float | None:
        """What is known under a key, else what `find` finds.

        That it found nothing is not remembered: a file that can't be read may be readable the next time.
        """
        if key not in self.known:
            found = find()
            if found is None:
                return None
            self.known[key] = round(found, 4)
        self.used[key] = self.known[key]
        return self.known[key]

    def open(self, position: int, shortest: int) -> Image.Image:
        """An image by its position, of at least `shortest` pixels a side where it has them.

        Raises:
            ImageError: it can't be read any more.
        """
        return open_image(self.paths[position], shortest, self.max_pixels, self.rendering)

    def _key(self, one: int, other: int) -> str:
        return "-".join(sorted((self.names[one][:16], self.names[other][:16])))

    def _prepare(self, pair: tuple[int, int]) -> None:
        if self._key(*pair) not in self.known:
            for position in pair:
                self._sketch(position)

    def _look(self, one: int, other: int) -> float | None:
        first, second = self._sketch(one), self._sketch(other)
        if not first or not second:
            return None
        found = agreement(first, second)
        if DOUBTFUL <= found < ENOUGH and (first.inside or second.inside):
            # A JPEG that is decoded at a part of its size has a border that ends within a pixel: what is inside of it
            # is then a half pixel off, and fine detail does not agree.
            first, second = self._sketch(one, _LARGER), self._sketch(other, _LARGER)
            if first and second:
                found = max(found, agreement(first, second))
        return found

    def _sketch(self, position: int, shortest: int = FINE) -> Sketch | None:
        key = position, shortest
        with self._turn:
            if key in self._sketches:
                self._sketches.move_to_end(key)
                return self._sketches[key]
        try:
            with within_memory():
                sketch = Sketch.of(self.open(position, shortest))
        except ImageError:
            sketch = None  # changed since it was embedded, or memory is short
        with self._turn:
            self._sketches[key] = sketch
            if len(self._sketches) > KEPT:
                self._sketches.popitem(last=False)
        return sketch


def _within_their_borders(one: Sketch, other: Sketch) -> float:
    """Agreement of two wholes of which one or both are without their plain borders; -1 where neither has one."""
    inner = [(one.inside, other), (one, other.inside), (one.inside, other.inside)]
    return max((_as_wholes(first, second) for first, second in inner if first and second), default=-1.0)


def _as_wholes(one: Sketch, other: Sketch, turns: Sequence[Image.Transpose | None] = (None, *_TURNS)) -> float:
    best = -1.0
    coarse, detail = _detail(one.coarse), _detail(one.fine)
    for turn in turns:
        tiny = other.coarse if turn is None else other.coarse.transpose(turn)
        if abs(np.log(tiny.width / tiny.height * one.coarse.height / one.coarse.width)) > ASPECT:
            continue
        score = _correlation(coarse, _detail(tiny.resize(one.coarse.size, Image.Resampling.BICUBIC)))
        if score < PROMISING:
            best = max(best, score)
            continue
        turned = other.fine if turn is None else other.fine.transpose(turn)
        best = max(best, _all_over(detail, _detail(turned.resize(one.fine.size, Image.Resampling.BICUBIC))))
    return best


def _as_part(part: Sketch, whole: Sketch) -> float:
    """Agreement of `part` with the place in `whole` that it fits best."""
    found = _search(part.coarse, whole.coarse)
    if found is None or found[0] < PROMISING:
        return -1.0
    _, left, top, width = found
    scale = whole.fine.width / whole.coarse.width
    detail = _detail(part.fine)
    height = width * scale * part.fine.height / part.fine.width
    box = np.array([left * scale, top * scale, width * scale, height])
    # The place is known to a coarse pixel and the size to a step of SCALES, too far off at times for the fine detail to
    # show the way: go downhill from the best of some places near it, in halved steps.
    near = [box + scale / 2 * np.array([x, y, w, w * height / box[2]]) for w in _NEAR for x in _NEAR for y in _NEAR]
    best, box = max(((_at(detail, whole.fine, start), start) for start in near), key=lambda found: found[0])
    step = 2.0
    while step > 0.2:
        moves = step * np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [-0.5, -0.5, 1, box[3] / box[2]], [0, 0, 1, 0], [0, 0, 0, 1]]
        )
        improved = False
        for move in (*moves, *-moves):
            score = _at(detail, whole.fine, box + move)
            if score > best + 1e-4:
                best, box, improved = score, box + move, True
        if not improved:
            step /= 2
    inside = _inside(whole.fine, box)
    size = (detail.shape[1], detail.shape[0])
    return min(best, _all_over(detail, _detail(whole.fine.resize(size, Image.Resampling.BICUBIC, box=inside))))


def _at(detail: NDArray[np.float32], whole: Image.Image, box: NDArray[np.float64]) -> float:
    """Agreement of a part's detail with a box (left, top, width, height, not whole numbers) of a picture."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    if width < 8 or height < 8 or left < -1 or top < -1 or right > whole.width + 1 or bottom > whole.height + 1:
        return -1.0
    size = (detail.shape[1], detail.shape[0])
    return _correlation(detail, _detail(whole.resize(size, Image.Resampling.BICUBIC, box=_inside(whole, box))))


def _inside(whole: Image.Image, box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box as far as it lies within the picture."""
    left, top, width, height = map(float, box)
    return max(0.0, left), max(0.0, top), min(float(whole.width), left + width), min(float(whole.height), top + height)


def _search(part: Image.Image, whole: Image.Image) -> tuple[float, float, float, float] | None:
    """The best place for `part` in `whole`: agreement there, left, top, width, in `whole`'s pixels."""
    place = _detail(whole)
    rows, columns = place.shape
    side = 2 * COARSE  # no wrap-around: the longer sides of both fit
    spectrum = np.fft.rfft2(place, (side, side))
    sums = np.pad(place, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    squares = np.pad(place * place, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    best: tuple[float, float, float, float] | None = None
    for scale in SCALES:
        # The largest of the part's proportions that fits, then smaller.
        fitting = min(columns / part.width, rows / part.height) * scale
        width, height = round(part.width * fitting), round(part.height * fitting)
        if width < 8 or height < 8:
            continue
        template = _detail(part.resize((width, height), Image.Resampling.BICUBIC))
        template = template - template.mean()
        length = float(np.sqrt((template * template).sum()))
        if length < FLAT * np.sqrt(width * height):
            continue
        products = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(template, (side, side))), (side, side))
        products = products[: rows - height + 1, : columns - width + 1]
        total, power = _windows(sums, height, width), _windows(squares, height, width)
        spread = np.sqrt(np.maximum(power - total * total / (width * height), FLAT**2 * width * height))
        scores = products / (spread * length)
        top, left = np.unravel_index(int(scores.argmax()), scores.shape)
        if best is None or scores[top, left] > best[0]:
            best = (float(scores[top, left]), float(left), float(top), float(width))
    return best


def _windows(sums: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Sums over every window of this size, from cumulative sums with a row and column of zeros in front."""
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]


def _detail(grey: Image.Image) -> NDArray[np.float32]:
    """What is left of a grey when the mean of each pixel's surroundings is taken away."""
    return np.asarray(grey, np.float32) - np.asarray(grey.filter(_MEAN), np.float32)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = (one - one.mean()).ravel(), (other - other.mean()).ravel()
    spread = float(one @ one) * float(other @ other)
    return float(one @ other) / spread**0.5 if spread > (FLAT**2 * one.size) ** 2 else 0.0


def _all_over(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The correlation of two details, held down where it comes from a part of the picture only.

    Different photographs in one frame, or on one form, correlate by what is printed on all of them.
    """
    score = _correlation(one, other)
    if score < PROMISING:
        return score
    blocks = []
    for rows in np.array_split(np.arange(one.shape[0]), BLOCKS):
        for columns in np.array_split(np.arange(one.shape[1]), BLOCKS):
            place = np.ix_(rows, columns)
            first, second = one[place], other[place]
            if max(first.std(), second.std()) > 2 * FLAT:  # else there is nothing in it that could disagree
                blocks.append(_correlation(first, second))
    return min(score, float(np.quantile(blocks, DISSENT)) + ROOM) if len(blocks) >= BLOCKS else score


def _within(grey: Image.Image, side: int) -> Image.Image:
    scale = side / max(grey.size)
    size = (max(8, round(grey.width * scale)), max(8, round(grey.height * scale)))
    return grey.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
