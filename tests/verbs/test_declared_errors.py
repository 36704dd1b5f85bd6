# SPDX-License-Identifier: Apache-2.0
"""Every error that a verb declares is shown by a test, or it is said here why not.

That the tests show what they claim is proved where they run, by ``conftest.heard``.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import tests.verbs
from libvdsm.api import VERBS
from tests.verbs.provoked import claims

CHANGES = [verb.full for verb in VERBS.values() if verb.makes_task]

NOT_SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "A restart settles these from what is on storage, or takes them up again, so they are not told to be interrupted; "
    "only a service that ends in an orderly way while they run says so. The crash tests show it.": {
        "Interrupted": (
            "Domain.create",
            "Domain.attach",
            "Domain.format",
            "Domain.setDescription",
            "Volume.resize",
            "Image.resize",
            "Image.snapshotMany",
            "Image.deleteMany",
            "Image.merge",
            "Image.deleteSnapshot",
            "Image.revert",
            "Image.flatten",
            "Image.rebase",
            "Bitmap.add",
            "Bitmap.remove",
            "Bitmap.clear",
        ),
    },
    "What concerns this service alone changes nothing on the domain, and so never waits for it, is never refused "
    "because of its layout, and does not fill it; declared with the rest of what a domain can answer, since drivers "
    "of shared domains will have to join and to leave.": {
        "NoSuchDomain": ("Domain.attach",),
        "DomainBusy": ("Domain.attach", "Domain.detach", "Domain.check", "Image.export"),
        "DomainReadOnly": ("Domain.attach", "Domain.detach", "Domain.check", "Image.export"),
        "DomainDamaged": ("Domain.detach",),
        "NoSpace": ("Domain.check",),
        "StorageFailed": ("Image.teardown",),
    },
    "A deletion does not care whether what it deletes is whole: what is gone counts as deleted, what is damaged can be "
    "deleted. Declared so that it may become careful.": {
        "NoSuchImage": ("Image.delete", "Volume.delete"),
        "NoSuchVolume": ("Volume.delete",),
        "ImageDamaged": ("Image.delete", "Volume.setDescription", "Volume.setLegality"),
        "VolumeIllegal": ("Image.delete",),
        "VolumeDamaged": ("Image.delete",),
    },
    "The local driver never has a reason; others may.": {
        "NotSupported": ("Domain.dump", "Image.makeTemplate", "Image.snapshot"),
        "ImageInUse": ("Volume.setDescription",),
        "IsTemplate": ("Image.makeTemplate",),
    },
    "Needs a program that fails while it copies from what was proved to be sound: Image.import and Image.export "
    "show it, which copy by the same function.": {
        "ToolFailed": ("Image.makeTemplate",),
    },
}


def declared() -> set[tuple[str, str]]:
    return {(verb.full, error.__name__) for verb in VERBS.values() for error in verb.declaration.errors}


def shown() -> set[tuple[str, str]]:
    modules = [name for _, name, _ in pkgutil.iter_modules(tests.verbs.__path__) if name.startswith("test_")]
    assert len(modules) == len(list(Path(tests.verbs.__path__[0]).glob("test_*.py")))
    return {claim for name in modules for claim in claims(importlib.import_module(f"tests.verbs.{name}"))}


def excused() -> list[tuple[str, str]]:
    return [(verb, error) for group in NOT_SHOWN.values() for error, verbs in group.items() for verb in verbs]


def test_every_declared_error_is_shown_or_excused() -> None:
    assert sorted(declared() - shown() - set(excused())) == []


def test_no_error_is_excused_that_is_shown_or_not_declared() -> None:
    excuses = excused()
    assert sorted(set(excuses) & shown()) == []
    assert sorted(set(excuses) - declared()) == []
    assert len(excuses) == len(set(excuses))
    assert len(excuses) < len(declared()) / 10


def test_every_verb_has_a_test_that_names_it() -> None:
    folder = Path(tests.verbs.__path__[0])
    texts = "".join(path.read_text() for path in folder.glob("test_*.py"))
    missing = [verb.full for verb in VERBS.values() if f".{verb.cls.lower()}.{verb.method}" not in texts]
    assert missing == []


@pytest.mark.parametrize("verb", CHANGES)
def test_what_makes_a_task_can_be_stopped_and_says_so(verb: str) -> None:
    assert any(error.__name__ == "TaskStopped" for error in VERBS[verb].declaration.errors)
