"""Every setting that the backend obeys, read and validated once.

A wrong value is one :class:`~celery_sql_results.errors.SettingError` when the backend is made, which is when a worker
starts; the message names the setting, the value and the remedy.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from os import PathLike
from typing import Any, NamedTuple

from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from kombu.compression import encoders, get_encoder
from kombu.exceptions import SerializerNotInstalled
from kombu.serialization import dumps, registry

from .aliases import Place, place_of
from .errors import Described, SettingError
from .foreign import escaping, shown
from .models import TableNames
from .options import layered
from .payload.redaction import Redact
from .session import IDLE_TIMEOUT, EngineCallback

__all__ = ["Policy", "RetryPolicy", "Settings", "origin_of", "table_names"]

logger = escaping(get_logger(__name__))

#: Longest table name: PostgreSQL's limit of 63, less ``_version``.
LONGEST_TABLE_NAME = 55
#: For how many seconds a write, and how often a read is tried again while ``result_backend_max_retries`` is not set. A
#: result must not be lost to a server that restarts or fails over, and a page that shows one must not hang.
RETRY_WINDOW, READ_RETRIES = 240.0, 3
#: Bytes that wait in the spool at most.
SPOOL_MAX_BYTES = 2**30
#: What results are written in, and may be read of, where nobody says otherwise.
SERIALIZER = "json"
#: Seconds between two looks of a worker at the spool and at open chords. Celery's own backend looks at each chord each
#: second. Here only those wait for it that something went wrong with, or whose parts somebody else has stored.
UPKEEP_INTERVAL = 3.0
#: Seconds that a worker must be silent at least before its tasks may be taken for lost: it says every 15 s that it
#: is alive, and one that was held up, or cut off for a moment, is not dead.
LOST_AFTER_LEAST = 60
#: Seconds between two looks at the rows that somebody waits for, where the database does not tell when to look.
POLL_MIN_INTERVAL, POLL_MAX_INTERVAL = 0.002, 0.25
#: Without any pause, a wait would keep the database busy for nothing.
POLL_LEAST = 0.0005
#: The longest time that is taken, 100 years in seconds: more has no date, and no thread can wait for it.
LONGEST = 100 * 365 * 86400


#: How the settings begin that Celery itself does not know, and how alike the rest of two names is that may be one.
PREFIX, ALIKE = "database_", 0.75
#: What an address of results is called that Celery has taken from the environment, or from ``--result-backend``.
ENVIRONMENT = "CELERY_RESULT_BACKEND"


def origin_of(url: object, dburi: object) -> str:
    """What a user has written the URL of a backend into."""
    if url is None:
        return "database_url" if dburi is None else "dburi"
    return f"the environment's {ENVIRONMENT}" if str(url) in os.environ.get(ENVIRONMENT, "") else "result_backend"


class Policy(NamedTuple):
    """How often and how long something is tried again, and the bounds of its pauses; times in seconds."""

    retries: float
    window: float
    first_pause: float
    longest_pause: float


@dataclass(frozen=True)
class RetryPolicy:
    """How an operation is repeated that failed for a transient reason."""

    writes: Policy
    reads: Policy


@dataclass(frozen=True)
class Settings:
    """The settings of one backend."""

    url: str = field(repr=False)  # which may hold a password, like the next but one
    place: Place = field(repr=False, compare=False)  # what it was read from
    origin: str  # what the user has written the URL into
    engine_options: Mapping[str, Any] = field(repr=False)
    engine_callback: EngineCallback | None
    short_lived_sessions: bool
    idle_timeout: float
    names: TableNames
    create_tables_at_setup: bool
    extended: bool
    records: bool
    serializer: str
    accept: Collection[str]
    expires: timedelta | None
    chord_expires: timedelta | None
    compression: str | None
    max_decompressed: int | None
    redact: frozenset[str] | Redact | None
    retry: RetryPolicy
    native_chords: bool
    chord_secrets: tuple[str, ...] = field(repr=False)
    takes_unsigned_chords: bool
    listen: bool
    listen_url: str | None = field(repr=False)
    poll_min_interval: float
    poll_max_interval: float
    spool_dir: str | None
    spool_max_bytes: float
    upkeep_interval: float
    lost_after: timedelta | None
    unknown: tuple[str, ...] = ()

    @classmethod
    def read(cls, conf: Any, origin: str | None = None, **given: Any) -> Settings:
        """Read ``conf``, the configuration of an app; what is ``given`` by the name of a setting overrides it.

        ``origin`` is what the user has written the URL into, unless it is ``database_url``.

        Raises:
            SettingError: a value cannot work.
        """
        reader = _Reader(conf, given)
        place = reader.place("database_url", origin)
        found = cls(
            url=place.url,
            place=place,
            origin=reader.named(origin or "database_url"),
            engine_options=reader.engine_options(place.options),
            engine_callback=reader.callback("database_engine_callback", "a callable that takes an engine"),
            short_lived_sessions=reader.flag("database_short_lived_sessions", False),
            idle_timeout=reader.number("database_idle_timeout", IDLE_TIMEOUT, endless=True),
            names=reader.names(),
            create_tables_at_setup=reader.flag("database_create_tables_at_setup", not place.may_move),
            extended=reader.flag("result_extended", False),
            records=reader.flag("database_record_tasks", True) or reader.flag("result_extended", False),
            serializer=reader.serializer("result_serializer"),
            accept=reader.accepted(reader.first_set("result_accept_content", "accept_content")),
            expires=reader.duration("result_expires"),
            chord_expires=reader.duration(reader.first_set("result_chord_expires", "result_expires")),
            compression=reader.compression("result_compression"),
            max_decompressed=reader.bytes("database_max_decompressed_bytes"),
            redact=reader.redact("database_redact"),
            retry=reader.retry(),
            native_chords=reader.flag("database_native_chords", True),
            chord_secrets=reader.secrets("database_chord_secrets"),
            takes_unsigned_chords=reader.flag("database_accept_unsigned_chords", False),
            listen=reader.flag("database_listen", True),
            listen_url=reader.place("database_listen_url").url if reader.get("database_listen_url") else None,
            poll_min_interval=reader.number("database_poll_min_interval", POLL_MIN_INTERVAL, least=POLL_LEAST),
            poll_max_interval=reader.number("database_poll_max_interval", POLL_MAX_INTERVAL, least=POLL_LEAST),
            spool_dir=reader.directory("database_spool_dir"),
            spool_max_bytes=reader.number("database_spool_max_bytes", SPOOL_MAX_BYTES, most=sys.maxsize, endless=True),
            upkeep_interval=reader.number("database_upkeep_interval", UPKEEP_INTERVAL),
            lost_after=reader.lost_after("database_lost_after"),
            unknown=tuple(f"{key}{hint}" for key, hint in reader.unknown()),
        )
        for key, hint in reader.unknown():
            logger.warning("%s is no setting of celery-sql-results, which does not obey it%s", key, hint)
        return found


@dataclass(frozen=True)
class _Reader:
    """Reads one setting at a time."""

    conf: Any
    given: Mapping[str, Any]
    asked: set[str] = field(default_factory=set)

    def get(self, setting: str, default: Any = None) -> Any:
        self.asked.add(setting)
        value = self.given.get(setting)
        value = self.conf.get(setting) if value is None else value
        return default if value is None else value

    def is_set(self, setting: str) -> bool:
        """Whether somebody has set it; ``None`` asks for the default."""
        return self.conf.value_set_for(setting) and self.conf.get(setting) is not None

    def place(self, setting: str, origin: str | None = None) -> Place:
        """What the URL leads to in a setting, or in what is its ``origin``."""
        options = self.get("database_engine_options") or {}
        return place_of(self.named(origin or setting), self.get(setting), "module" not in options)

    def named(self, setting: str) -> str:
        """A setting as the user has written it, whose app may have a namespace."""
        whole = f"{getattr(self.conf, 'prefix', None) or ''}{setting}".upper()
        return next((key for key in self.conf if key.upper() == whole), setting)

    def wrong(self, setting: str, found: object, needed: str) -> SettingError:
        """The error over a setting."""
        return SettingError(self.named(setting), found, needed)

    def unknown(self) -> Iterator[tuple[str, str]]:
        """Settings that nobody here has asked for, with hints. Some are of other packages; most are misspelt."""
        prefix = (getattr(self.conf, "prefix", None) or "").lower()
        ours = {name.removeprefix(PREFIX): name for name in self.asked if name.startswith(PREFIX)}
        for key in self.conf:
            is_namespaced = bool(prefix) and key.lower().startswith(prefix)
            name = key[len(prefix) :].lower() if is_namespaced else key  # in capitals else, it is not Celery's
            if name.startswith(PREFIX) and name not in self.asked:
                near = get_close_matches(name.removeprefix(PREFIX), ours, 1, ALIKE)
                right = (f"{prefix}{ours[each]}".upper() if is_namespaced else ours[each] for each in near)
                hint = "".join(f": did you mean {each}?" for each in right)
                yield key, hint

    def first_set(self, setting: str, fallback: str) -> str:
        """The setting to read: the first, or the fallback where it is not set."""
        return fallback if self.get(setting) is None else setting

    def flag(self, setting: str, default: bool) -> bool:
        value = self.get(setting, default)
        if value not in (True, False):
            raise self.wrong(setting, value, "True or False")
        return bool(value)

    def mapping(self, setting: str, keys: Collection[str]) -> dict[str, Any]:
        value = self.get(setting, {})
        if not isinstance(value, Mapping) or not set(value) <= set(keys):
            raise self.wrong(setting, value, f"a dict with no other keys than {', '.join(map(repr, keys))}")
        return dict(value)

    def engine_options(self, of_place: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults, then those of the place, the setting, and what a caller gave. They may be a password."""
        setting = "database_engine_options"
        layers = (self.conf.get(setting) if self.is_set(setting) else {}), self.given.get(setting) or {}
        for value in layers:
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                found = Described(f"a {type(value).__name__} (not shown)")
                raise self.wrong(setting, found, "a dict with names as keys")
        options = layered(of_place, *layers, setting=self.named(setting))
        arguments = {**of_place.get("connect_args", {}), **options.get("connect_args", {})}
        return {**options, "connect_args": arguments} if arguments else options

    def names(self) -> TableNames:
        names = self._strings("database_table_names", LONGEST_TABLE_NAME)
        schemas = self._strings("database_table_schemas", LONGEST_TABLE_NAME)
        default = TableNames()
        chosen = TableNames(
            names.get("task") or default.task,
            names.get("group") or default.group,
            schemas.get("task"),
            schemas.get("group"),
        )
        if chosen.clash is not None:
            needed = f"a dict of other names: in one schema, {chosen.clash!r} would be two things of this backend"
            raise self.wrong("database_table_names", {"task": chosen.task, "group": chosen.group}, needed)
        return chosen

    def _strings(self, setting: str, longest: int) -> dict[str, str | None]:
        value = self.mapping(setting, ("task", "group"))
        for name in value.values():
            if name is not None and not (isinstance(name, str) and 0 < len(name) <= longest):
                raise self.wrong(setting, value, f"a dict of names of 1 to {longest} characters")
        return value

    def callback(self, setting: str, needed: str) -> Any:
        value = self.get(setting)
        if isinstance(value, str):
            try:
                value = symbol_by_name(value)
            except (ImportError, AttributeError, ValueError) as error:
                raise self.wrong(setting, value, f"the import path of a callable ({shown(error)})") from None
        if value is not None and not callable(value):
            raise self.wrong(setting, value, f"{needed}, or its import path")
        return value

    def redact(self, setting: str) -> frozenset[str] | Redact | None:
        value = self.get(setting)
        if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in value):
            return frozenset(value)
        needed = "a list of names, a callable (task name, args, kwargs) -> (args, kwargs)"
        return self.callback(setting, needed)  # type: ignore[no-any-return]

    def duration(self, setting: str) -> timedelta | None:
        """0 and ``None`` mean for ever, as Celery's manual promises."""
        value = self.get(setting)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST:
            value = timedelta(seconds=value)
        is_good = isinstance(value, timedelta) and timedelta(0) <= value <= timedelta(seconds=LONGEST)
        if value is not None and not is_good:
            needed = "a number of seconds or a timedelta, of 100 years at most, or 0 or None to keep for ever"
            raise self.wrong(setting, value, needed)
        return value or None

    def number(
        self, setting: str, default: float, least: float = 0, most: float = LONGEST, endless: bool = False
    ) -> float:
        """Seconds, unless ``most`` is another bound; ``endless`` if infinity may be meant too."""
        value = self.get(setting, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < least:
            raise self.wrong(setting, value, f"a number, {least} or more")
        if not value <= most and not (endless and value == math.inf):
            raise self.wrong(setting, value, f"a number from {least} to {most}")
        return value

    def lost_after(self, setting: str) -> timedelta | None:
        found = None if self.get(setting) is None else self.number(setting, 0, least=LOST_AFTER_LEAST)
        return None if found is None else timedelta(seconds=found)

    def bytes(self, setting: str) -> int | None:
        return None if self.get(setting) is None else int(self.number(setting, 0, least=1, most=sys.maxsize))

    def one_of(self, setting: str, known: Collection[str]) -> str | None:
        value = self.get(setting)
        if value and not (isinstance(value, str) and value in known):
            raise self.wrong(setting, value, f"one of {', '.join(sorted(known))}")
        return value or None

    def compression(self, setting: str) -> str | None:
        value = self.get(setting)
        if not value:
            return None
        try:
            get_encoder(value)
        except (KeyError, TypeError):
            raise self.wrong(setting, value, f"'gzip' or another of {', '.join(sorted(encoders()))}") from None
        return value  # type: ignore[no-any-return]

    def serializer(self, setting: str) -> str:
        """A serializer that kombu knows by name, and that is installed."""
        name = self.one_of(setting, registry.name_to_type) or SERIALIZER
        try:
            dumps(None, name)
        except SerializerNotInstalled:
            needed = f'a serializer that is installed (pip install "celery[{name}]")'
            raise self.wrong(setting, name, needed) from None
        return name

    def accepted(self, setting: str) -> Collection[str]:
        """Serializers that kombu knows, by name or by content type."""
        value = self.get(setting, (SERIALIZER,))
        if isinstance(value, str) or not isinstance(value, Collection):
            raise self.wrong(setting, value, "a list of serializers")
        known = [*registry.name_to_type, *registry.type_to_name]
        if not all(name in known for name in value):
            raise self.wrong(setting, value, f"a list of serializers; known are {', '.join(sorted(known))}")
        return value

    def secrets(self, setting: str) -> tuple[str, ...]:
        """One or several; none is shown."""
        value = self.get(setting, ())
        found = (value,) if isinstance(value, str) else value
        if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) and each for each in found):
            raise self.wrong(setting, type(value).__name__, "a text, or a list of texts of which the first signs")
        return tuple(found)

    def directory(self, setting: str) -> str | None:
        value = self.get(setting)
        if value is not None and not (isinstance(value, (str, PathLike)) and os.path.isabs(value)):
            raise self.wrong(setting, value, "an absolute path of a directory of this machine")
        if value is not None and os.path.dirname(value) == os.fspath(value):
            raise self.wrong(setting, value, "an absolute path of a directory below the root of this machine")
        return None if value is None else os.fspath(value)

    def retry(self) -> RetryPolicy:
        """How often, if somebody set that; else writes for how long."""
        retries: float | None = None
        if self.is_set("result_backend_max_retries"):  # Celery's defaults are not ours
            retries = self.number("result_backend_max_retries", 0, most=sys.maxsize, endless=True)
        if self.is_set("result_backend_always_retry") and not self.flag("result_backend_always_retry", True):
            retries = 0
        pauses = (
            self.number("result_backend_base_sleep_between_retries_ms", 10) / 1000,
            self.number("result_backend_max_sleep_between_retries_ms", 10_000) / 1000,
        )
        window = self.number("database_retry_window", RETRY_WINDOW if retries is None else math.inf, endless=True)
        return RetryPolicy(
            writes=Policy(math.inf if retries is None else retries, window, *pauses),
            reads=Policy(READ_RETRIES if retries is None else retries, math.inf, *pauses),
        )


def table_names(conf: Any, **given: Any) -> TableNames:
    """The names of the tables alone, of the configuration of an app, and of what is ``given`` as in :class:`Settings`.

    Raises:
        SettingError: they cannot work.
    """
    return _Reader(conf, given).names()
