"""Celery's contract of chords, in terms of the rows."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from celery import canvas, maybe_signature, states
from celery.app.task import Context
from celery.exceptions import ChordError, SoftTimeLimitExceeded
from celery.result import GroupResult, ResultSet, allow_join_result, result_from_tuple
from celery.utils.functional import regen
from celery.utils.log import get_logger
from kombu.utils.json import dumps as dumps_json
from kombu.utils.json import loads as loads_json
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util import memoized_property

from celery_sql_results.payload.encoding import Encoding
from celery_sql_results.rows.chords import Chord, ChordRows
from celery_sql_results.settings import Settings
from celery_sql_results.writing.spool.entry import PART, Entry

__all__ = ["ChordMixin", "is_counted"]

T = TypeVar("T")
logger = get_logger(__name__)

#: The shortest time, in seconds, that an elected process has to join the header, and the longest to publish the body.
SHORTEST_JOIN, LONGEST_PUBLISH = 10.0, 60.0
#: Seconds that a process has to be elected after the last part was stored, before its chord counts as stuck.
GRACE = 0.5
#: The position of a part that has none.
LAST = 2**31 - 1
#: The attribute of a request that says how far its outcome is. Without it, what is stored is only what the task says of
#: itself while it runs (``update_state`` may say anything): that is no part of a chord.
_STAGE = "_celery_sql_results_stage"
_OUTCOME, _COUNTED, _KEPT = "outcome", "counted", "kept"
#: Seconds between two looks at a chord that another process is about to finish.
FIRST_PAUSE, LAST_PAUSE = 0.002, 0.25


class ChordMixin:
    """The methods of a backend that join chords. The backend brings the rest."""

    app: Any
    settings: Settings
    encoding: Encoding
    encode_result: Callable[[Any, str], Any]
    exception_to_python: Callable[[Any], Any]
    get_state: Callable[[str], str]
    _read: Callable[..., Any]
    _write: Callable[..., Any]
    _or_keep: Callable[[str, Callable[[], Entry], Callable[[], Any]], Any]
    _in_a_hurry: Callable[[], bool]

    @memoized_property
    def chords(self) -> ChordRows | None:
        """The chords of this backend; ``None`` without their tables."""
        raise NotImplementedError

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Begin a chord, before its parts are sent."""
        rows = self.chords if self.settings.native_chords else None
        if rows is None:
            super().apply_chord(header_result_args, body, **kwargs)  # type: ignore[misc]
            return
        opening = header_result_args[0], _as_json(body), self.encoding.content_type
        known = self._known_of(header_result_args)
        self._write(f"opening chord {opening[0]}", lambda: rows.open(*opening, **known))

    def _known_of(self, header_result_args: tuple[Any, ...]) -> dict[str, Any]:
        """What is known of a header before it is sent: nothing of a generator, which is read as it is sent.

        The results of nested groups reach the body nested as well, so the tree of them is kept.
        """
        members = header_result_args[1]
        if isinstance(members, type(regen(iter(())))):
            return {}
        if any(isinstance(member, GroupResult) for member in members):
            return {"header": self.encoding.dumps(self.app.GroupResult(*header_result_args).as_tuple())}
        return {"size": len(members)}

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts a chord has, before its last part is sent."""
        rows = self.chords
        if rows is not None:
            self._write(f"sizing chord {group_id}", lambda: rows.set_size(group_id, chord_size))

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Let a chord have one part more; called by a part, before it returns."""
        rows = self.chords
        if rows is None:
            super().add_to_chord(chord_id, result)  # type: ignore[misc]
        else:
            self._write(f"adding to chord {chord_id}", lambda: rows.add(chord_id, result.id))

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, *args: Any, **kwargs: Any) -> None:
        """Store and announce what a task has returned."""
        _is_outcome(request)
        super().mark_as_done(task_id, result, request, *args, **kwargs)  # type: ignore[misc]

    def mark_as_failure(
        self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Store and announce what a task has raised."""
        _is_outcome(request)
        super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)  # type: ignore[misc]

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, *args: Any, **kwargs: Any) -> None:
        """Store and announce that a task will not run."""
        _is_outcome(request)
        super().mark_as_revoked(task_id, reason, request, *args, **kwargs)  # type: ignore[misc]

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a part in. The process that finds the chord complete, and is elected, sends the body.

        With a spool, what cannot be done now is done by whoever stores the part from there.
        """
        stage = getattr(request, _STAGE, None)
        if not request.group or not request.id or stage == _KEPT:
            return

        def part() -> dict[str, Any]:  # the task ignores its result, or is further down a chain
            return self._part(request, state, self.encoding.dumps(self.encode_result(result, state)))

        def count() -> Chord | None:
            return self._counted(request.group) if stage == _COUNTED else self._count_in(part())

        name = f"counting task {request.id} in"
        self._or_keep(name, lambda: Entry(PART, part()), lambda: self._finish(self._step(name, count), request.chord))

    def _finish(self, chord: Chord | None, body: Mapping[str, Any]) -> None:
        if chord is not None and chord.is_complete:
            self._see_through(chord, body)

    def _counted(self, group_id: str) -> Chord | None:
        return None if self.chords is None else self.chords.counted(group_id)

    def _part_with(self, request: Any, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a task leaves behind as a part of a chord, if it is one; ``row`` is what is stored of its result.

        Celery counts it in right after the result was stored. Stored in one commit, a part is not lost to a process
        that ends in between: Celery may acknowledge a task whose result is there, and not run it again.
        """
        # Celery lets the rest of a chain fail by storing it, with a request that it has made of a signature.
        is_outcome = getattr(request, _STAGE, None) == _OUTCOME or hasattr(request, "subtask_type")
        if not is_outcome or not request.chord or not request.group:
            return None
        return self._part(request, row["status"], row["result"])

    def _part(self, request: Any, state: str, result: bytes) -> dict[str, Any]:
        return {
            "group_id": request.group,
            "task_id": request.id,
            "position": LAST if request.group_index is None else request.group_index,
            "status": state,
            "result": result,
            "content_type": self.encoding.content_type,
        }

    def _count_in(self, part: Mapping[str, Any]) -> Chord | None:
        return None if self.chords is None else self.chords.count_in(part)

    def _restore_part(self, part: Mapping[str, Any]) -> None:
        """Count a part in that waited in the spool."""
        self._take_over(self._count_in(part))

    def _look_after(self, group_id: str) -> None:
        """A part was stored that waited in the spool."""
        self._take_over(self._counted(group_id))

    def _take_over(self, chord: Chord | None) -> None:
        """Send the body that another process was to send, if it is time; all that there is of it is what is stored.

        One that cannot be sent keeps nobody from sending others.
        """
        if chord is None or not chord.is_complete or chord.body is None:
            return
        try:
            self._see_through(chord, loads_json(chord.body))
        except SQLAlchemyError:
            raise
        except Exception:  # what is stored as a body may be anything
            logger.exception("the body of chord %s could not be sent", chord.group_id)

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """Let a body fail, with every task that it ends in, and with the chord in whose header it stands.

        Celery forgets the latter, and before 5.6 also the tasks of a group and the end of a chain: they wait for ever.
        """
        ends = list(_ends(callback))
        if ends and not callback.id:
            callback.options["task_id"] = ends[-1].id
        info = super().chord_error_from_stack(callback, exc)  # type: ignore[misc]
        for task in ends:
            told = self.get_state(task.id) in states.READY_STATES
            self.mark_as_failure(task.id, exc, request=_request(task), store_result=not told, call_errbacks=not told)
        return info

    def sweep_chords(self) -> int:
        """Send the bodies of chords whose elected process has died, and return how many there were."""
        stuck = self._stuck()
        if stuck:
            time.sleep(GRACE)
            still = {chord.group_id for chord in self._stuck()}
            stuck = [chord for chord in stuck if chord.group_id in still]
        for chord in stuck:
            logger.warning("chord %s is complete, but its body was not sent: sending it", chord.group_id)
            self._take_over(chord)
        return len(stuck)

    def _stuck(self) -> list[Chord]:
        if self.chords is None:
            return []
        found: list[Chord] = self._read("looking for stuck chords", self.chords.stuck)
        return found

    # -- the last part -------------------------------------------------------------------------------------------

    @property
    def _time_to_join(self) -> float:
        """Seconds in which an elected process is to join the header."""
        return max(2 * (self.app.conf.result_chord_join_timeout or 0.0), SHORTEST_JOIN)

    @property
    def _lease(self) -> timedelta:
        """Long enough to join the header, and to publish the body to a broker that is as slow as the settings allow."""
        conf = self.app.conf
        policy = conf.task_publish_retry_policy or {}
        retries = policy.get("max_retries", 3) if conf.task_publish_retry else 0
        pause = policy.get("interval_max", 1.0)
        attempts = math.inf if retries is None else retries + 1
        to_publish = min(attempts * ((conf.broker_connection_timeout or math.inf) + pause), LONGEST_PUBLISH)
        return timedelta(seconds=self._time_to_join + to_publish)

    def _see_through(self, chord: Chord, body: Mapping[str, Any]) -> None:
        """Hand over to the body, unless another process does; if that one dies, take over when its lease is over."""
        rows: Any = self.chords
        claimant, pause, group_id = uuid.uuid4().hex, FIRST_PAUSE, chord.group_id
        while not self._step(f"claiming chord {group_id}", lambda: rows.claim(group_id, claimant, self._lease)):
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            found = self._step(f"looking at chord {group_id}", lambda: rows.look(group_id))
            if found is None or found.is_dispatched:
                return
        self._hand_over(rows, chord, maybe_signature(body, app=self.app), claimant)

    def _hand_over(self, rows: ChordRows, chord: Chord, body: Any, claimant: str) -> None:
        """Join the header and send the body; whatever fails, but the database, becomes the error of the body."""
        group_id, since = chord.group_id, time.monotonic()
        claim = lambda: rows.claim(group_id, claimant, self._lease)  # noqa: E731
        try:
            parts = self._step(f"joining chord {group_id}", lambda: rows.results(group_id))
            values = self._join(chord, parts) if len(parts) >= chord.size else None
            late = time.monotonic() - since > self._time_to_join
            if values is None or (late and not self._step(f"claiming chord {group_id}", claim)):
                logger.warning("chord %s took too long to join: another process sends its body", group_id)
                return
            self._publish(body, values)
        except SQLAlchemyError:  # when the lease is over, another process tries
            raise
        except Exception as error:  # the header or the broker may raise anything, and the body must learn of it
            if isinstance(error, SoftTimeLimitExceeded) and chord.body is not None:  # of a part that has returned
                self._step(f"giving chord {group_id} up", lambda: rows.claim(group_id, claimant, timedelta()))
                raise  # another process tries at once
            logger.exception("chord %s failed", group_id)
            if not self._step(f"claiming chord {group_id}", claim):
                logger.warning("chord %s failed too late: another process sends its body", group_id)
                return
            failed = error if isinstance(error, ChordError) else ChordError(f"Join error: {error!r}")
            self.chord_error_from_stack(body, failed)
        self._step(f"closing chord {group_id}", lambda: rows.close(group_id, claimant))

    def _step(self, name: str, operation: Callable[[], T]) -> T:
        done: T = self._write(name, operation, gives_up=self._in_a_hurry)
        return done

    def _publish(self, body: Any, values: list[Any]) -> None:
        publish = getattr(self.app.amqp, "_retry_publish", _call)  # newer Celery: also when the broker refuses
        try:
            publish(body.delay, values)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # a broker or a router may raise anything
            raise ChordError(f"Callback error: {error!r}") from error

    def _join(self, chord: Chord, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The results of the header; those of nested groups as lists."""
        if chord.header is None:
            return [self._value(part) for part in parts]
        header = result_from_tuple(self.encoding.loads(chord.header, chord.content_type), self.app)
        returned = {part["task_id"]: part for part in parts}
        values = self._await_members({leaf.id: leaf for leaf in _leaves(header) if leaf.id not in returned})

        def value_of(task_id: str) -> Any:
            return self._value(returned[task_id]) if task_id in returned else values[task_id]

        return list(_tree(header, value_of))

    def _await_members(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """The results of members that count for no part of their own: all that there is of them is what is stored."""
        if not results:
            return {}
        with allow_join_result():
            timeout = self.app.conf.result_chord_join_timeout
            joined = self.app.ResultSet(list(results.values())).join_native(timeout=timeout, propagate=True)
        return dict(zip(results, joined, strict=True))

    def _value(self, part: Mapping[str, Any]) -> Any:
        value = self.encoding.loads(part["result"], part["content_type"])
        if part["status"] in states.EXCEPTION_STATES:
            value = self.exception_to_python(value)
        if part["status"] in states.PROPAGATE_STATES:
            raise ChordError(f"Dependency {part['task_id']} raised {value!r}") from value
        return value


def _call(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _leaves(result: Any) -> Iterator[Any]:
    """The single results of a tree."""
    if isinstance(result, ResultSet):
        for member in result.results or ():
            yield from _leaves(member)
    else:
        yield result


def _tree(result: Any, value_of: Callable[[str], Any]) -> Any:
    """The values of a tree of results; each group a list."""
    if isinstance(result, ResultSet):
        return [_tree(member, value_of) for member in result.results or ()]
    return value_of(result.id)


def _ends(body: Any) -> Iterator[Any]:
    """The tasks whose results are the result of a signature."""
    if isinstance(body, canvas.group):
        for task in body.tasks:
            yield from _ends(task)
    elif isinstance(body, (canvas._chain, canvas._chord)):
        yield from _ends(body.tasks[-1] if isinstance(body, canvas._chain) else body.body)
    else:
        yield body


def _request(task: Any) -> Context:
    """What a worker would know of a task that was not sent."""
    known = {name: task.options.get(name) for name in ("chord", "group_index")}
    errbacks = task.options.get("link_error") or []
    return Context(id=task.id, group=task.options.get("group_id"), errbacks=errbacks, delivery_info={}, **known)


def _is_outcome(request: Any) -> None:
    if request is not None:
        setattr(request, _STAGE, _OUTCOME)


def is_counted(request: Any, kept: bool = False) -> None:
    """Remember that a part was stored with the result of its task, or was kept with it in the spool."""
    setattr(request, _STAGE, _KEPT if kept else _COUNTED)


def _as_json(body: Any) -> bytes | None:
    """The body for :meth:`ChordMixin.sweep_chords`; not there if only pickle could write it."""
    try:
        return dumps_json(body).encode()  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        return None
