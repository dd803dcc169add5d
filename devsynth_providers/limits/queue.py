"""Who is next: first come, first served for each project, and the projects in turn."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """A place in the queue: *lane* is what its owner waits for, *size* how much of it."""

    item: T
    lane: str
    project: str | None
    size: int


@dataclass(eq=False, slots=True)
class _Project(Generic[T]):
    """The places of one project in one lane, and when it was last its turn."""

    turn: int
    places: OrderedDict[Place[T], None] = field(default_factory=OrderedDict)


class FairQueue(Generic[T]):
    """A queue with lanes for what need not wait for each other.

    Projects take turns (round robin), so that one with a thousand calls delays another's first by one call and not by
    a thousand. Joining, leaving and being taken take the same time however many wait.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, OrderedDict[str | None, _Project[T]]] = {}
        self._turns = 0
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

    def join(self, item: T, lane: str, project: str | None, size: int) -> Place[T]:
        """Put *item* at the end of what *project* has in *lane*."""
        place = Place(item, lane, project, size)
        projects = self._lanes.setdefault(lane, OrderedDict())
        waiting = projects.get(project)
        if waiting is None:
            self._turns += 1
            waiting = projects[project] = _Project(self._turns)
        waiting.places[place] = None
        self._length += 1
        self.size += size
        return place

    def heads(self) -> Iterator[Place[T]]:
        """The first place of each project in each lane, in the order of their turns. Whoever changes the queue begins
        anew."""
        lanes = [_in_turn(number, projects) for number, projects in enumerate(self._lanes.values())]
        for _, _, waiting in heapq.merge(*lanes):
            yield next(iter(waiting.places))

    def take(self, place: Place[T]) -> None:
        """It was its turn: its project is the last now, in every lane."""
        self.leave(place)
        self._turns += 1
        for projects in self._lanes.values():
            if (waiting := projects.get(place.project)) is not None:
                waiting.turn = self._turns
                projects.move_to_end(place.project)

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


def _in_turn(number: int, projects: OrderedDict[str | None, _Project[T]]) -> Iterator[tuple[int, int, _Project[T]]]:
    """Those of one lane, which stand in the order of their turns; *number* is of the lane, and tells them apart."""
    return ((waiting.turn, number, waiting) for waiting in projects.values())
