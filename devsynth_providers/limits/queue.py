"""Who is next: first come, first served for each project, and the projects in turn."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
K = TypeVar("K")


class Rank(NamedTuple):
    """Where somebody stood: when it had last been the *turn* of the project, and as what *number* it had joined."""

    turn: int
    number: int


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """A place in the queue: *lane* is what its owner waits for, *size* how much of it."""

    item: T
    lane: str
    project: str | None
    size: int
    number: int


@dataclass(eq=False, slots=True)
class _Project(Generic[T]):
    """The places of one project in one lane, and when it was last its turn."""

    turn: int
    places: OrderedDict[Place[T], None] = field(default_factory=OrderedDict)


class FairQueue(Generic[T]):
    """A queue with lanes for what need not wait for each other.

    Projects take turns (round robin), so that one with a thousand calls delays another's first by one call and not by
    a thousand. Joining, leaving and being taken take the same time however many wait; coming back, however many wait
    that have not been taken before.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, OrderedDict[str | None, _Project[T]]] = {}
        self._turns = self._joined = 0
        self._length = 0
        self.size = 0
        """The sum of the sizes of all places."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        """Everybody, in no particular order."""
        for lane in self._lanes.values():
            for waiting in lane.values():
                for place in waiting.places:
                    yield place.item

    def join(self, item: T, lane: str, project: str | None, size: int, back: Rank | None = None) -> Place[T]:
        """Put *item* at the end of what *project* has in *lane*; or, as it comes *back*, where it stood before."""
        if back is None:
            self._joined += 1
        place = Place(item, lane, project, size, self._joined if back is None else back.number)
        projects = self._lanes.setdefault(lane, OrderedDict())
        waiting = projects.get(project)
        if waiting is None:
            self._turns += 1
            waiting = projects[project] = _Project(self._turns)
        waiting.places[place] = None
        self._length += 1
        self.size += size
        if back is not None:
            _move_up(waiting.places, place, lambda other: other.number < back.number)
            self._return_turn(project, back.turn)
        return place

    def _return_turn(self, project: str | None, turn: int) -> None:
        """Nothing has come of its *turn*: it is still to come, in every lane."""
        for projects in self._lanes.values():
            if (waiting := projects.get(project)) is not None and waiting.turn > turn:
                waiting.turn = turn
                _move_up(projects, project, partial(_came_before, projects, turn))

    def heads(self) -> Iterator[Place[T]]:
        """The first place of each project in each lane, in the order of their turns. Whoever changes the queue begins
        anew."""
        lanes = [_in_turn(projects) for projects in self._lanes.values()]
        for _, _, place in heapq.merge(*lanes):
            yield place

    def passed(self) -> Rank:
        """Somebody has passed while nobody waited: the rank of one who joins now and is taken."""
        self._turns += 1
        self._joined += 1
        return Rank(self._turns, self._joined)

    def take(self, place: Place[T]) -> Rank:
        """It was its turn: its project is the last now, in every lane. Its rank was this."""
        rank = Rank(self._lanes[place.lane][place.project].turn, place.number)
        self.leave(place)
        self._turns += 1
        for projects in self._lanes.values():
            if (waiting := projects.get(place.project)) is not None:
                waiting.turn = self._turns
                projects.move_to_end(place.project)
        return rank

    def leave(self, place: Place[T]) -> bool:
        """Give the place up. Whether it was still there."""
        projects = self._lanes.get(place.lane)
        waiting = None if projects is None else projects.get(place.project)
        if projects is None or waiting is None or place not in waiting.places:
            return False
        del waiting.places[place]
        self._length -= 1
        self.size -= place.size
        if not waiting.places:
            del projects[place.project]
        if not projects:
            del self._lanes[place.lane]
        return True

    def own(self, project: str | None, lane: str | None = None) -> int:
        """How many *project* has waiting, in *lane* or in all."""
        lanes = [projects for name, projects in self._lanes.items() if lane is None or name == lane]
        return sum(len(projects[project].places) for projects in lanes if project in projects)

    def ahead(self, project: str | None, lane: str | None = None) -> int:
        """How many will have their turn before one who joins now for *project*, in *lane* or in all."""
        lanes = [projects for name, projects in self._lanes.items() if lane is None or name == lane]
        own = self.own(project, lane)
        others = (
            min(len(waiting.places), own + 1) for lane in lanes for name, waiting in lane.items() if name != project
        )
        return own + sum(others)


def _in_turn(projects: OrderedDict[str | None, _Project[T]]) -> Iterator[tuple[int, int, Place[T]]]:
    """Those of one lane, which stand in the order of their turns; of one project, who joined first is first."""
    for waiting in projects.values():
        place = next(iter(waiting.places))
        yield waiting.turn, place.number, place


def _came_before(projects: OrderedDict[str | None, _Project[T]], turn: int, project: str | None) -> bool:
    return projects[project].turn < turn


def _move_up(ordered: OrderedDict[K, Any], key: K, stays: Callable[[K], bool]) -> None:
    """Put *key* behind the first ones, as many as *stays* says of that they stay before it."""
    before = list(takewhile(stays, ordered))
    for each in (key, *reversed(before)):
        ordered.move_to_end(each, last=False)
