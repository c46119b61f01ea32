"""Settings from files: the user's own, which may set everything, and `massl.toml` in the working folder.

A folder may have come from somebody else, with a file in it that says where files are written, which encoder is run, or
who may log in to the page. So a file there sets only what is harmless whoever wrote it: options that are marked so
where they are declared. An option without a mark is not trusted to it.
"""

from __future__ import annotations

import inspect
import os
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from massl.core.errors import MasslError

IN_FOLDER = "massl.toml"
NAMED_BY = "MASSL_CONFIG"
MAX_BYTES = 16 << 10


@dataclass(frozen=True)
class Harmless:
    """Marks an option, in its annotation, that a file which came with a folder may set.

    That is: it names no file, folder, address or person, keeps nothing from being said, and deletes nothing.

    Attributes:
        only: whether one value of it is; every value if left out.
    """

    only: Callable[[object], bool] = lambda value: True


class ConfigurationError(MasslError):
    """A file of settings that can't be used: wrong usage."""

    exit_code = 2


@dataclass(frozen=True)
class ConfiguredDefaults:
    """What files set for the command that is about to run.

    Attributes:
        defaults: by the names of commands and parameters, as click's `default_map`.
        notices: lines to be said: what a file in the working folder set, and what it may not.
    """

    defaults: Mapping[str, Any]
    notices: Sequence[str]


def own_file() -> Path:
    """The user's own file of settings."""
    import platformdirs  # takes a moment

    return platformdirs.user_config_path("massl", appauthor=False) / "config.toml"


def read(group: Any, context: Any, words: Sequence[str]) -> ConfiguredDefaults:
    """Reads the files of settings, of which the latter win: the user's own, then that in the working folder.

    A file that `MASSL_CONFIG` names takes the place of both, and is trusted as the user's own is.

    Args:
        group: the command `massl`, whose commands the files' tables are named after.
        context: its context.
        words: the command that is about to run, as `["label", "list"]`.

    Raises:
        ConfigurationError: a file can't be read, or holds what no option takes.
    """
    named = os.environ.get(NAMED_BY)
    if named:
        if not Path(named).exists():
            raise ConfigurationError(f"{named}, named by {NAMED_BY}, is not there")
        return ConfiguredDefaults(_Reader(Path(named), context, words, trusted=True).read(group), [])
    own = _Reader(own_file(), context, words, trusted=True).read(group)
    here = _Reader(Path(IN_FOLDER), context, words, trusted=False)
    return ConfiguredDefaults(_merged(own, here.read(group)), here.notices())


class _Reader:
    """One file of settings, read for the command `words`."""

    def __init__(self, path: Path, context: Any, words: Sequence[str], trusted: bool) -> None:
        self._path = path
        self._context = context
        self._words = list(words)
        self._trusted = trusted
        self._set: dict[str, object] = {}
        self._refused: list[str] = []

    def read(self, group: Any) -> dict[str, Any]:
        """The values of all its tables by parameter; nothing where there is no such file."""
        try:
            if not self._path.exists():
                return {}
            if not self._path.is_file() or self._path.stat().st_size > MAX_BYTES:
                raise ConfigurationError(f"{self._path} is not a settings file")
            tables = tomllib.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{self._path} can't be read as TOML: {error}") from None
        return {name: self._table(group, [name], table) for name, table in tables.items()}

    def notices(self) -> list[str]:
        """What is to be said before the command runs."""
        said = ", ".join(_shown(key, value) for key, value in self._set.items())
        lines = [f"{self._path} in this folder sets {said}"] if said else []
        return lines + [
            f"{self._path} in this folder may not set {key}, as the folder may be somebody else's. {key} is "
            f"ignored: give {_flag(key)}, or put it below [{'.'.join(self._words)}] in {own_file()}; if this file is "
            f"your own, set {NAMED_BY}={self._path}"
            for key in self._refused
        ]

    def _table(self, group: Any, words: list[str], table: object) -> dict[str, Any]:
        commands = getattr(group, "commands", {})
        command = commands.get(words[-1])
        if command is None or not isinstance(table, dict):
            known = ", ".join(f"[{known}]" for known in commands)
            raise ConfigurationError(f"{self._path}: {words[-1]!r} is no table of a command; there are {known}")
        if hasattr(command, "commands"):
            return {name: self._table(command, [*words, name], inner) for name, inner in table.items()}
        options = {_key(flag): option for option in command.params for flag in option.opts if flag.startswith("-")}
        harmless = _harmless(command)
        values: dict[str, Any] = {}
        for written, value in table.items():
            key = written.replace("_", "-")
            option = options.get(key)
            if option is None:
                name = " ".join(words)
                raise ConfigurationError(
                    f"{self._path}: massl {name} has no flag {_flag(key)}; see massl {name} --help"
                )
            # One value for an option that can be given several times, as `encoder = "x.onnx"`, needs no brackets.
            several = getattr(option, "multiple", False)
            given = [value] if several and not isinstance(value, list) else value
            current = words == self._words
            self._check(words, key, option, given, current)
            mark = harmless.get(option.name)
            if self._trusted or (mark and all(map(mark.only, given if several else [given]))):
                values[option.name] = given
                self._set |= {key: value} if current else {}
            else:
                self._refused += [key] if current else []
        return values

    def _check(self, words: Sequence[str], key: str, option: Any, given: object, current: bool) -> None:
        """Has a value of the current command converted as it will be, so that what is wrong is told of the file.

        Raises:
            ConfigurationError: the option takes no such value.
        """
        several = getattr(option, "multiple", False)
        try:
            for value in given if several and isinstance(given, list) else [given]:
                if not isinstance(value, (str, int, float)) or (isinstance(value, bool) and not option.is_flag):
                    raise ValueError("the value is not valid")
            if current:
                option.process_value(self._context, given)
        except (typer.BadParameter, ValueError, TypeError, OverflowError) as error:
            why = getattr(error, "message", None) or str(error)
            raise ConfigurationError(
                f"{self._path}: {_shown(key, given)} below [{'.'.join(words)}]: {why.strip().rstrip('.')}"
            ) from None


def _harmless(command: Any) -> dict[str, Harmless]:
    """The marks of a command's options, by parameter."""
    hints = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    return {
        name: mark
        for name, hint in hints.items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Harmless)
    }


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, table by table; where both have a value, the second's."""
    merged = dict(first)
    for name, value in second.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(value, dict) and isinstance(before, dict) else value
    return merged


def _key(flag: str) -> str:
    return flag.lstrip("-")


def _flag(key: str) -> str:
    return f"-{key}" if len(key) == 1 else f"--{key}"


def _shown(key: str, value: object) -> str:
    """A key and its value, in no more than a line has room for."""
    text = repr(value)
    return f"{key} = {text if len(text) <= 60 else text[:57] + '…'}"
