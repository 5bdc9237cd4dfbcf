"""Collects what the policy lives through into fragments that the learner can learn from.

A step's reward is all that was earned between its decision and the next one, a night or a restart
between them included. What is not yet full is kept in a file, so that a restart goes on with it:
the rewards that the learner gets add up to those in the journal.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from trading.learning.policy import Decision
from trading.learning.rollout import BoolArray, FloatArray, IntArray, RecurrentState, Rollout
from trading.logs import get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class _Step:
    """One decision per underlying, completed by the rewards that follow it."""

    observations: FloatArray
    action_mask: BoolArray
    actions: IntArray
    log_probs: FloatArray
    values: FloatArray
    first: BoolArray
    rewards: FloatArray
    truncated: BoolArray
    final_values: FloatArray


class FragmentBuilder:
    """Builds one rollout of T steps and U sequences after another.

    Parameters
    ----------
    decisions
        A fragment is full with at least so many decisions, counted over all underlyings.
    file
        Keeps the unfinished fragment through a restart; None keeps it in memory only.
    kind
        What fragments must have in common to be continued: the underlyings, the network's shape.

    Every step is begun by `decide`. `reward` adds to the last step what it earned, as often as
    something is earned before the next decision: at the next bar, and over the night after the
    session's last one.
    """

    def __init__(self, decisions: int, file: Path | None = None, kind: Sequence[str] = ()) -> None:
        self.number = 0
        self.rewarded_ns = 0
        """Exchange time up to which the steps hold their rewards; 0 when not known."""
        self._decisions = decisions
        self._steps: list[_Step] = []
        self._initial_state: RecurrentState = {}
        self._version = 0
        self._store = None if file is None else _StepFile(file, tuple(kind))

    @property
    def full(self) -> bool:
        """Whether the completed steps hold enough decisions."""
        return sum(len(step.actions) for step in self._steps) >= self._decisions

    @property
    def waiting(self) -> int:
        """Steps that no fragment holds yet."""
        return len(self._steps)

    def resume(self, until_ns: int) -> None:
        """Go on with what the file holds of the time up to `until_ns`, the journal's last reward.

        What is later was never journalled: it is decided and earned again.
        """
        if self._store is None:
            return
        for record in self._store.read(until_ns):
            if record.step is not None:
                self._begin(record.step.unpacked(), record.step.state(), record.step.version)
            elif self._steps and record.rewards is not None:
                self._steps[-1].rewards = self._steps[-1].rewards + record.rewards.array
            elif self._steps and record.final_values is not None:
                self._cut(record.final_values.array)
            self.rewarded_ns = max(self.rewarded_ns, record.ts_ns)
        if self._steps:
            log.info("continues an unfinished fragment", steps=len(self._steps))

    def decide(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        decision: Decision,
        first: BoolArray,
        state: RecurrentState,
        weights_version: int,
        ts_ns: int = 0,
    ) -> None:
        """Begin a step at exchange time `ts_ns`; `state` is the recurrent state before it."""
        zeros = np.zeros(len(decision.actions), dtype=np.float32)
        step = _Step(
            observations,
            action_mask,
            decision.actions,
            decision.log_probs,
            decision.values,
            first.copy(),
            rewards=zeros,
            truncated=zeros.astype(np.bool_),
            final_values=zeros,
        )
        if self._store is not None:
            packed = _PackedStep.of(step, {} if self._steps else state, weights_version)
            self._store.append(_Record(ts_ns, step=packed))
        self._begin(step, state, weights_version)

    def reward(self, rewards: FloatArray, ts_ns: int = 0) -> None:
        """Add to the last step what it earned, f32[U], up to exchange time `ts_ns`."""
        self.rewarded_ns = max(self.rewarded_ns, ts_ns)
        if self._steps:
            self._steps[-1].rewards = self._steps[-1].rewards + rewards
            if self._store is not None:
                self._store.append(_Record(ts_ns, rewards=_Packed.of(rewards)))

    def truncate(self, final_values: FloatArray, ts_ns: int = 0) -> None:
        """Another episode follows the last step; `final_values` f32[U] are what it is worth.

        Said again, with better known values, the last ones count.
        """
        if self._steps:
            self._cut(final_values)
            if self._store is not None:
                self._store.append(_Record(ts_ns, final_values=_Packed.of(final_values)))

    def take(self, last_values: FloatArray) -> Rollout:
        """Return the fragment and begin the next; `last_values` f32[U] follow its last step."""
        steps, self._steps = self._steps, []
        if self._store is not None:
            self._store.clear()
        self.number += 1
        truncated = np.stack([step.truncated for step in steps])
        return Rollout(
            observations=np.stack([step.observations for step in steps]),
            action_mask=np.stack([step.action_mask for step in steps]),
            actions=np.stack([step.actions for step in steps]),
            log_probs=np.stack([step.log_probs for step in steps]),
            values=np.stack([step.values for step in steps]),
            rewards=np.stack([step.rewards for step in steps]),
            first=np.stack([step.first for step in steps]),
            terminated=np.zeros_like(truncated),
            truncated=truncated,
            final_values=np.stack([step.final_values for step in steps]),
            last_values=_float32(last_values),
            valid=np.ones_like(truncated),
            initial_state=self._initial_state,
            weights_version=self._version,
        )

    def _begin(self, step: _Step, state: RecurrentState, version: int) -> None:
        if not self._steps:
            self._initial_state = {key: array.copy() for key, array in state.items()}
            self._version = version
        self._steps.append(step)

    def _cut(self, final_values: FloatArray) -> None:
        self._steps[-1].truncated = np.ones(len(final_values), dtype=np.bool_)
        self._steps[-1].final_values = final_values


class _Packed(msgspec.Struct, array_like=True):
    """An array as bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> "_Packed":
        return cls(array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())

    @property
    def array(self) -> NDArray[Any]:
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape).copy()


class _PackedStep(msgspec.Struct, array_like=True):
    """A step as it was begun."""

    observations: _Packed
    action_mask: _Packed
    actions: _Packed
    log_probs: _Packed
    values: _Packed
    first: _Packed
    version: int
    initial_state: dict[str, _Packed]
    """Of a fragment's first step; empty in the others."""

    @classmethod
    def of(cls, step: _Step, state: RecurrentState, version: int) -> "_PackedStep":
        return cls(
            _Packed.of(step.observations),
            _Packed.of(step.action_mask),
            _Packed.of(step.actions),
            _Packed.of(step.log_probs),
            _Packed.of(step.values),
            _Packed.of(step.first),
            version,
            {key: _Packed.of(array) for key, array in state.items()},
        )

    def unpacked(self) -> _Step:
        actions = self.actions.array
        zeros = np.zeros(len(actions), dtype=np.float32)
        return _Step(
            self.observations.array,
            self.action_mask.array,
            actions,
            self.log_probs.array,
            self.values.array,
            self.first.array,
            rewards=zeros,
            truncated=zeros.astype(np.bool_),
            final_values=zeros,
        )

    def state(self) -> RecurrentState:
        return {key: packed.array for key, packed in self.initial_state.items()}


class _Record(msgspec.Struct, omit_defaults=True):
    """One of: a step begun, a reward added, an episode cut."""

    ts_ns: int
    step: _PackedStep | None = None
    rewards: _Packed | None = None
    final_values: _Packed | None = None


class _StepFile:
    """Records of the unfinished fragment, each with its length and checksum, appended as they come.

    What a kill or a power cut leaves of a record is not read. The journal has every reward anyway;
    this file only spares the decisions: where the disk takes it no more, the fragment at hand is
    kept in memory alone, and trading goes on.
    """

    def __init__(self, path: Path, kind: tuple[str, ...]) -> None:
        self._path, self._kind = path, kind
        self._begun = False
        self._refused = False
        """Whether the disk has refused a record of this fragment: what follows it is of no use."""

    def read(self, until_ns: int) -> list[_Record]:
        """Whole records of the same kind up to a time, in order; the file holds no more then."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._refuse(error)
            return []
        at, records = 0, []
        while (body := _framed(content, at)) is not None:
            try:
                if at == 0:
                    if msgspec.msgpack.decode(body, type=tuple[str, ...]) != self._kind:
                        log.info("an unfinished fragment is of another kind; it is left out")
                        break
                else:
                    record = msgspec.msgpack.decode(body, type=_Record)
                    if record.ts_ns > until_ns:
                        break
                    records.append(record)
            except msgspec.MsgspecError:
                break
            at += _FRAME + len(body)
        if at:
            try:
                os.truncate(self._path, at)
            except OSError as error:
                self._refuse(error)
            self._begun = True
        return records

    def append(self, record: _Record) -> None:
        if self._refused:
            return
        parts = [msgspec.msgpack.encode(record)]
        if not self._begun:
            parts.insert(0, msgspec.msgpack.encode(self._kind))
        try:
            with self._path.open("ab" if self._begun else "wb") as file:
                for body in parts:
                    file.write(len(body).to_bytes(4, "big") + crc32(body).to_bytes(4, "big") + body)
        except OSError as error:
            self._refuse(error)
        self._begun = True

    def clear(self) -> None:
        self._begun = self._refused = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> None:
        self._refused = True
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        log.warning(
            "the unfinished fragment is not kept through a restart",
            file=str(self._path),
            reason=error.strerror,
        )


_FRAME = 8


def _framed(content: bytes, at: int) -> bytes | None:
    """Return the whole record that begins at `at`; None where there is none."""
    size = int.from_bytes(content[at : at + 4], "big")
    body = content[at + _FRAME : at + _FRAME + size]
    if (
        len(body) < size
        or not size
        or crc32(body) != int.from_bytes(content[at + 4 : at + 8], "big")
    ):
        return None
    return body


def _float32(values: NDArray[np.generic]) -> FloatArray:
    return np.asarray(values, dtype=np.float32)
