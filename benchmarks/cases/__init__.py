"""The benchmarks, in the order in which they are run."""

from __future__ import annotations

from benchmarks.case import Benchmark
from benchmarks.cases.awaiting import Await, Await1000
from benchmarks.cases.chord import Chord10, Chord1000
from benchmarks.cases.first_use import FirstUse
from benchmarks.cases.group import Group
from benchmarks.cases.price import Price
from benchmarks.cases.questions import Questions
from benchmarks.cases.read import Read, ReadForked
from benchmarks.cases.store import Store, StoreBy2, StoreBy8, StoreBy32, StoreForked, StoreTwice, StoreTwiceForked
from benchmarks.cases.throughput import Throughput
from benchmarks.cases.wake_up import WakeUp, WakeUpWithStore

_ALL: list[Benchmark] = [
    Store(),
    StoreForked(),
    StoreTwice(),
    StoreTwiceForked(),
    StoreBy2(),
    StoreBy8(),
    StoreBy32(),
    Read(),
    ReadForked(),
    Group(),
    Price(),
    FirstUse(),
    WakeUp(),
    WakeUpWithStore(),
    Await(),
    Await1000(),
    Chord10(),
    Chord1000(),
    Throughput(),
    Questions(),
]

#: Each by its name.
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ALL}
