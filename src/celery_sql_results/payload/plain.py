"""Plain pickles: read here, opcode by opcode, so that nothing but numbers, texts and collections can come of them.

Python's own unpickler can be kept from finding classes, and still do harm: it makes what ``copyreg`` knows by a number,
takes as much memory as eight bytes ask for, and builds what no walk through it ever comes to the end of. An opcode that
is not in ``_READ`` below does not exist here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from struct import unpack_from
from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError

from .budget import DEPTH, Budget
from .costs import BYTES_OF_A_NODE
from .text import clipped

__all__ = ["load"]

#: How many keys of one collection may have the same hash: each more of them is found more slowly.
ALIKE = 50
#: Characters of a number that Python 2 wrote as text: of 64 bits. Longer names are not shown whole.
DIGITS, SHOWN = 20, 200


class _Shape:
    """A collection, how much there is of it and of all that is in it, each time that it is, and how deep that is."""

    __slots__ = ("depth", "is_shared", "size", "value")

    def __init__(self, value: Any) -> None:
        self.value, self.size, self.depth, self.is_shared = value, 1, 1, False


class _Reader:
    """What has been read of a pickle.

    Args:
        data: the pickle.
        most: how much may come of it, in nodes.
    """

    def __init__(self, data: bytes, most: int) -> None:
        self.data, self.at, self.most = data, 2, most
        #: The values that wait for a collection, and those that waited before each mark.
        self.stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        #: By the id of each collection, all of which live as long as this.
        self._shapes: dict[int, _Shape] = {}
        self._alike: Counter[tuple[int, int]] = Counter()
        self._hashed = 0

    # -- the bytes -----------------------------------------------------------------------------------------------

    def number(self, form: str, size: int) -> Any:
        """A number of ``size`` bytes."""
        (found,) = unpack_from(form, self.data, self.at)
        self.at += size
        return found

    def bytes(self, form: str, size: int) -> bytes:
        """Bytes, after ``size`` bytes that say how many."""
        end = self.number(form, size) + self.at
        if end > len(self.data):
            raise EOFError("it is truncated")
        found = self.data[self.at : end]
        self.at = end
        return found

    def line(self, longest: int) -> str:
        """What stands before the next line feed."""
        start, end = self.at, self.data.index(b"\n", self.at, self.at + longest + 1)
        self.at = end + 1
        return self.data[start:end].decode()

    # -- the values that wait ------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Begin a collection of as many items as will come."""
        self._marked.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """What was read since the last mark."""
        found, self.stack = self.stack, self._marked.pop()
        return found

    def last(self, number: int) -> list[Any]:
        """The last values."""
        found = self.stack[-number:]
        del self.stack[-number:]
        if len(found) < number:
            raise IndexError("it takes what is not there")
        return found

    def put(self, index: int) -> None:
        """Remember the last value."""
        self._memo[index] = self.stack[-1]

    def memoize(self) -> None:
        """Remember the last value, under the next number."""
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        """Use once more what was remembered."""
        value = self._memo[index]
        shape = self._shapes.get(id(value))
        if shape is not None:
            shape.is_shared = True
        self.stack.append(value)

    # -- collections ---------------------------------------------------------------------------------------------

    def make(self, value: Any, items: Collection[Any] = ()) -> None:
        """A new collection, which holds ``items``."""
        shape = self._shapes[id(value)] = _Shape(value)
        self._grow(shape, items)
        self.stack.append(value)

    def make_frozen(self, items: list[Any]) -> None:
        """A set that cannot be changed."""
        self._check_keys(-self.at, items)
        self.make(frozenset(items), items)

    def extend(self, items: list[Any]) -> None:
        """More items of a list."""
        self._growing(list, items).extend(items)

    def update(self, items: list[Any]) -> None:
        """More items of a set."""
        self._check_keys(id(self.stack[-1]), items)
        self._growing(set, items).update(items)

    def set(self, items: list[Any]) -> None:
        """More items of a dict, each key before its value."""
        self._check_keys(id(self.stack[-1]), items[::2])
        self._growing(dict, items).update(zip(items[::2], items[1::2], strict=True))

    def size(self, value: Any) -> int:
        """How much there is of a value."""
        shape = self._shapes.get(id(value))
        if shape is not None:
            return shape.size
        if isinstance(value, (str, bytes)):
            return 1 + len(value) // BYTES_OF_A_NODE
        return 1 + value.bit_length() // (8 * BYTES_OF_A_NODE) if isinstance(value, int) else 1

    def _growing(self, of: type, items: list[Any]) -> Any:
        value = self.stack[-1]
        if type(value) is not of:
            raise TypeError("it adds to what is not there")
        shape = self._shapes[id(value)]
        if shape.is_shared:  # by whoever holds it already, and that may be itself
            raise DecodeError("the row is a pickle of a collection that is in itself")
        self._grow(shape, items)
        return value

    def _grow(self, shape: _Shape, items: Collection[Any]) -> None:
        for item in items:
            shape.size += self.size(item)
            inner = self._shapes.get(id(item))
            if inner is not None and inner.depth >= shape.depth:
                shape.depth = inner.depth + 1
        if shape.depth > DEPTH:
            raise DecodeError(f"the row is a pickle of collections that are more than {DEPTH} deep in one another")
        self._check(shape.size)

    def _check_keys(self, of: int, keys: list[Any]) -> None:
        """Hashes of texts and bytes cannot be foreseen. All others can, and those of collections are not remembered."""
        for key in keys:
            if type(key) in (str, bytes):
                continue
            alike = (of, hash(key))
            self._alike[alike] += 1
            self._hashed += self.size(key)
            if self._alike[alike] > ALIKE:
                raise DecodeError("the row is a pickle of keys that nearly all have the same hash")
        self._check(self._hashed)

    def _check(self, size: int) -> None:
        if size > self.most:
            raise Budget.exceeded(self.most * BYTES_OF_A_NODE)


def load(data: bytes, budget: Budget) -> Any:
    """Read a pickle of plain data, of protocol 2 or later.

    Raises:
        kombu.exceptions.ContentDisallowed: it names a class or a function, or refers to something else.
        kombu.exceptions.DecodeError: it is circular or too deep, or takes more than the budget has.
        almost anything: it is broken.
    """
    reader = _Reader(data, int(budget.left) // BYTES_OF_A_NODE)
    while True:
        opcode = data[reader.at : reader.at + 1]
        reader.at += 1
        if opcode == b".":
            (value,) = reader.stack
            budget.spend(reader.size(value) * BYTES_OF_A_NODE)
            return value
        _READ.get(opcode, _refuse)(reader)


def _refuse(reader: _Reader) -> None:
    opcode = reader.data[reader.at - 1 : reader.at]
    if not opcode:
        raise EOFError("it is truncated")
    if opcode in (b"P", b"Q", b"\x97", b"\x98"):
        raise ContentDisallowed("the row is a pickle that refers to objects outside of it")
    if opcode in (b"c", b"i"):
        name = f"{reader.line(SHOWN)}.{reader.line(SHOWN)}"
    else:
        name = ".".join(map(str, reader.last(2))) if opcode == b"\x93" else f"something by the opcode {opcode!r}"
    raise ContentDisallowed(
        f"the row is a pickle that names {clipped(name, SHOWN)}: to read it, add 'pickle' to result_accept_content, "
        "if everybody who can write to the database may run code here"
    )


def _text(form: str, size: int) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(reader.bytes(form, size).decode("utf-8", "surrogatepass"))


def _old_text(form: str, size: int) -> Callable[[_Reader], None]:
    """Of Python 2."""
    return lambda reader: reader.stack.append(reader.bytes(form, size).decode("ascii"))


def _bytes(form: str, size: int) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(reader.bytes(form, size))


def _number(form: str, size: int) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(reader.number(form, size))


def _long(form: str, size: int) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(int.from_bytes(reader.bytes(form, size), "little", signed=True))


def _tuple(items: Callable[[_Reader], list[Any]]) -> Callable[[_Reader], None]:
    def read(reader: _Reader) -> None:
        found = tuple(items(reader))
        reader.make(found, found)

    return read


def _old_number(reader: _Reader) -> None:
    """Of Python 2, with more than 32 bits."""
    reader.stack.append(int(reader.line(DIGITS)))


def _skip_frame(reader: _Reader) -> None:
    """Frames help whoever reads from a file."""
    reader.at += 8


_READ: dict[bytes, Callable[[_Reader], None]] = {
    b"\x95": _skip_frame,
    b"N": lambda reader: reader.stack.append(None),
    b"\x88": lambda reader: reader.stack.append(True),
    b"\x89": lambda reader: reader.stack.append(False),
    b"K": _number("<B", 1),
    b"M": _number("<H", 2),
    b"J": _number("<i", 4),
    b"G": _number(">d", 8),
    b"I": _old_number,
    b"\x8a": _long("<B", 1),
    b"\x8b": _long("<I", 4),
    b"U": _old_text("<B", 1),
    b"T": _old_text("<I", 4),
    b"\x8c": _text("<B", 1),
    b"X": _text("<I", 4),
    b"\x8d": _text("<Q", 8),
    b"C": _bytes("<B", 1),
    b"B": _bytes("<I", 4),
    b"\x8e": _bytes("<Q", 8),
    b"(": _Reader.mark,
    b"]": lambda reader: reader.make([]),
    b"a": lambda reader: reader.extend(reader.last(1)),
    b"e": lambda reader: reader.extend(reader.items()),
    b"}": lambda reader: reader.make({}),
    b"s": lambda reader: reader.set(reader.last(2)),
    b"u": lambda reader: reader.set(reader.items()),
    b"\x8f": lambda reader: reader.make(set()),
    b"\x90": lambda reader: reader.update(reader.items()),
    b"\x91": lambda reader: reader.make_frozen(reader.items()),
    b")": lambda reader: reader.make(()),
    b"\x85": _tuple(lambda reader: reader.last(1)),
    b"\x86": _tuple(lambda reader: reader.last(2)),
    b"\x87": _tuple(lambda reader: reader.last(3)),
    b"t": _tuple(_Reader.items),
    b"q": lambda reader: reader.put(reader.number("<B", 1)),
    b"r": lambda reader: reader.put(reader.number("<I", 4)),
    b"\x94": _Reader.memoize,
    b"h": lambda reader: reader.get(reader.number("<B", 1)),
    b"j": lambda reader: reader.get(reader.number("<I", 4)),
}
