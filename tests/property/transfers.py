# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads: what was sent is what a guest sees, however often it was interrupted."""

from __future__ import annotations

import time

from hypothesis import strategies as st
from hypothesis.stateful import rule

from libvdsm.api.transfer import Direction, TransferInfo, TransferState
from libvdsm.api.types import Allocation, ImageId, TransferId, VolumeFormat, VolumeId
from tests.property.choices import formats, images, names
from tests.property.judge import PATIENCE, Judge
from tests.property.model import Model
from tests.property.parts import BLOCK, Blocks
from tests.transfers import http

parts = st.lists(st.integers(0, 255), min_size=1, max_size=5)
"""The bytes that a file is full of, a block of each."""
accidents = st.lists(st.sampled_from(["", "", "", "pause", "restart"]), min_size=5, max_size=5)
ends = st.sampled_from(["finish", "finish", "finish", "cancel", "cancel at half"])


class Transfers(Judge):
    """A transfer is one step: nothing else happens to its image meanwhile."""

    @rule(content=parts, format_=formats, name=names, accidents=accidents, end=ends)
    def upload(
        self, content: list[int], format_: VolumeFormat, name: str | None, accidents: list[str], end: str
    ) -> None:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        transfer, size = TransferId(self.new_id()), len(content) * BLOCK
        self.cut_after = None
        self.do(
            lambda client, domain: client.transfer.start(
                domain=domain,
                direction=Direction.UPLOAD,
                size=size,
                format=format_,
                name=name,
                id=transfer,
                image=image,
                volume=volume,
            ),
            lambda model: None,
        )
        with self.judged():
            for number, pattern in enumerate(content):
                if end == "cancel at half" and number == len(content) // 2:
                    break
                self._go_on(transfer, accidents[number], number * BLOCK)
                http.put(self._look(transfer), number * BLOCK, bytes([pattern]) * BLOCK)
                self.service.client.transfer.checkpoint(transfer=transfer, arrived=(number + 1) * BLOCK)
        if end == "finish":
            blocks: Blocks = dict(enumerate(content))
            whole = b"".join(bytes([pattern]) * BLOCK for pattern in content)
            self.do(
                lambda client, _: client.transfer.finish(transfer=transfer, checksum=http.checksum(whole)),
                lambda model: _arrived(model, image, volume, size, format_, name, blocks),
            )
        else:
            cancelled = self.do(lambda client, _: client.transfer.cancel(transfer=transfer), lambda model: None)
            with self.judged():
                assert cancelled.state is TransferState.CANCELLED

    def _go_on(self, transfer: TransferId, accident: str, arrived: int) -> None:
        """After an accident or without any: it runs, and knows what has arrived."""
        verbs = self.service.client.transfer
        if accident == "pause":
            assert verbs.pause(transfer=transfer).state is TransferState.PAUSED
        elif accident == "restart":
            self.service.restart()
            verbs = self.service.client.transfer
            assert verbs.get_info(transfer=transfer).state is TransferState.INTERRUPTED
        if accident:
            verbs.resume(transfer=transfer)
        now = self._look(transfer)
        assert (now.state, now.arrived) == (TransferState.RUNNING, arrived)

    def _look(self, transfer: TransferId) -> TransferInfo:
        return self.service.client.transfer.get_info(transfer=transfer)

    def _running(self, transfer: TransferId) -> TransferInfo:
        """A download once it runs; after a restart it goes on by itself, and that is an event."""
        until = time.monotonic() + PATIENCE
        after = self.service.client.event.poll().next
        while (found := self._look(transfer)).state is not TransferState.RUNNING:
            assert time.monotonic() < until, f"it stays {found.state.value}: {found.problem}"
            after = self.service.client.event.poll(after=after, timeout=1).next
        return found

    @rule(which=images, restart=st.booleans())
    def download(self, which: int, restart: bool) -> None:
        image, transfer = self.pick(which), TransferId(self.new_id())
        self.cut_after = None
        started: TransferInfo | None = self.do(
            lambda client, domain: client.transfer.start(
                domain=domain, direction=Direction.DOWNLOAD, image=image, id=transfer
            ),
            lambda model: model.export(image, None),
        )
        if started is None:
            return
        with self.judged():
            if restart:
                self.service.restart()
            known = self.model.images[image]
            assert started.size == known.leaf.capacity
            assert http.get(self._running(transfer), 0, started.size) == self.model.content(known)
            finish = self.service.client.transfer.finish(transfer=transfer)
            ended = self.service.client.wait(finish, timeout=PATIENCE)
            assert ended.state is TransferState.FINISHED


def _arrived(
    model: Model, image: ImageId, volume: VolumeId, size: int, format_: VolumeFormat, name: str | None, blocks: Blocks
) -> None:
    model.create(image, volume, size, format_, Allocation.SPARSE, name, blocks)
    # It was illegal, and is legal: that is a change.
    model.images[image].leaf.changed()
