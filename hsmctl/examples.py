# SPDX-License-Identifier: Apache-2.0
"""Examples for the help: every command has at least one, and a test parses them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A command line, and what it is for where that does not go without saying."""

    line: str
    why: str = ""


FIRST_STEPS = (
    "hsmctl doctor",
    "hsmctl image create web01 --size 64G",
    "hsmctl image snapshot web01 before-upgrade",
    "hsmctl image list",
)

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "Host.ping": (Example("hsmctl host ping"), Example("hsmctl --connect tcp:127.0.0.1:54331 host ping")),
    "Host.getCapabilities": (
        Example("hsmctl host capabilities"),
        Example("hsmctl host capabilities --json"),
    ),
    "Host.getStats": (Example("hsmctl host stats"),),
    "Config.get": (Example("hsmctl config get"), Example("hsmctl config get tasks", "one section only")),
    "Session.open": (Example("hsmctl session open --name nightly-backup"),),
    "Session.getInfo": (Example("hsmctl session info", "who am I to the service, and what may I do"),),
    "Domain.create": (Example("hsmctl domain create fast /srv/fast"),),
    "Domain.attach": (Example("hsmctl domain attach /srv/fast", "serve a domain that was made before"),),
    "Domain.detach": (Example("hsmctl domain detach fast"),),
    "Domain.list": (Example("hsmctl domain list"), Example("hsmctl domain list --filter 'state != ok'")),
    "Domain.getInfo": (Example("hsmctl domain info fast"), Example("hsmctl domain info", "the only domain")),
    "Domain.getStats": (Example("hsmctl domain stats fast"),),
    "Domain.setDescription": (Example('hsmctl domain set-description fast "fast, backed up at night"'),),
    "Domain.format": (
        Example("hsmctl domain format scratch"),
        Example("hsmctl domain format scratch --force", "with all images on it"),
    ),
    "Domain.check": (
        Example("hsmctl domain check fast"),
        Example("hsmctl domain check fast --deep", "reads every qcow2 volume; takes its time"),
    ),
    "Domain.dump": (Example("hsmctl domain dump fast --json > fast.json", "a backup of all metadata"),),
    "Domain.collectGarbage": (Example("hsmctl domain collect-garbage fast"),),
    "Image.create": (
        Example("hsmctl image create web01 --size 64G"),
        Example("hsmctl image create db01 --size 200G --format raw --allocation preallocated"),
        Example('hsmctl image create web02 --size 1.5T --domain fast --description "shop, since May"'),
    ),
    "Image.snapshotMany": (Example("hsmctl image snapshot-many web01 db01 --name before-upgrade"),),
    "Image.deleteMany": (Example("hsmctl image delete-many web01 web02"),),
    "Image.snapshot": (Example("hsmctl image snapshot web01 before-upgrade"),),
    "Image.clone": (
        Example("hsmctl image clone debian12 web03"),
        Example("hsmctl image clone debian12 web04 --size 100G", "larger than the template"),
    ),
    "Image.makeTemplate": (
        Example("hsmctl image make-template debian12", "the image itself, read-only from then on"),
        Example("hsmctl image make-template web01 web-base", "a copy; web01 stays as it is"),
    ),
    "Image.list": (
        Example("hsmctl image list"),
        Example("hsmctl image ls --domain fast --json"),
        Example("""hsmctl image list --filter 'name ~ "web*" and not isTemplate'"""),
        Example(
            "hsmctl image list --filter 'created > now-7d' --sort -actualSize,name", "this week's, the largest first"
        ),
    ),
    "Image.getInfo": (Example("hsmctl image info web01"), Example("hsmctl image show 3f2a9c1e --json")),
    "Image.import": (
        Example("hsmctl image import debian-12.qcow2", "the image is called debian-12"),
        Example("hsmctl image import disk1.vmdk web05 --source-format vmdk"),
    ),
    "Image.export": (
        Example("hsmctl image export web01 web01.qcow2"),
        Example("hsmctl image export web01 old.raw --format raw --volume before-upgrade", "a snapshot's state"),
    ),
    "Image.prepare": (
        Example("hsmctl image prepare web01", "prints the path and format to give to QEMU"),
        Example("hsmctl image prepare web01 --read-only"),
    ),
    "Image.merge": (
        Example("hsmctl image merge web01 monday friday", "one snapshot of a run of them; it keeps the newest's state"),
        Example("hsmctl image merge web01 monday friday --direction down"),
    ),
    "Image.deleteSnapshot": (Example("hsmctl image delete-snapshot web01 before-upgrade"),),
    "Image.revert": (Example("hsmctl image revert web01 before-upgrade", "what was changed since is lost"),),
    "Image.flatten": (
        Example("hsmctl image flatten web03", "off its template"),
        Example("hsmctl image flatten web01 --discard-snapshots"),
    ),
    "Image.rebase": (
        Example("hsmctl image rebase web03 debian13", "onto another template; what it shows stays"),
        Example("hsmctl image rebase web03", "onto none; its snapshots stay"),
    ),
    "Image.sparsify": (
        Example("hsmctl image sparsify web01", "all its layers"),
        Example("hsmctl image sparsify web01 --volume before-upgrade --rate 50M"),
    ),
    "Image.teardown": (Example("hsmctl image teardown web01"),),
    "Image.delete": (
        Example("hsmctl image delete web01"),
        Example("hsmctl image rm web01 --wipe --no-wait", "overwrite its data, and do not wait for it"),
    ),
    "Image.copy": (
        Example("hsmctl image copy web01 web02"),
        Example("hsmctl image copy web01 web01 --to fast --checksum", "with its snapshots, and compared"),
        Example("hsmctl image copy db01 db01-old --volume before-upgrade --collapse --format raw"),
    ),
    "Image.move": (
        Example("hsmctl image move web01 --to fast"),
        Example("hsmctl image move web01 --to fast --rate 50M", "leaves the storage some time for others"),
    ),
    "Image.checksum": (Example("hsmctl image checksum web01"),),
    "Volume.create": (
        Example("hsmctl volume create --size 10G --format raw", "an image of one raw volume, without a name"),
    ),
    "Volume.getInfo": (Example("hsmctl volume info before-upgrade --image web01"),),
    "Volume.list": (
        Example("hsmctl volume list --image web01"),
        Example("hsmctl volume list --filter 'legality != legal or damage is present'"),
    ),
    "Image.resize": (
        Example("hsmctl image resize web01 20G"),
        Example("hsmctl image resize web01 5G --shrink", "what lies beyond is lost"),
    ),
    "Volume.resize": (
        Example("hsmctl volume resize web01 128G", "the present state of web01 has its name"),
        Example("hsmctl volume resize web01 32G --shrink", "what lies beyond is lost"),
    ),
    "Volume.setDescription": (Example('hsmctl volume set-description before-upgrade "before 12.5" --image web01'),),
    "Volume.setLegality": (Example("hsmctl volume set-legality 3f2a9c1e illegal"),),
    "Volume.measure": (
        Example("hsmctl volume measure web01"),
        Example("hsmctl volume measure before-upgrade --image web01 --format raw --no-chain"),
    ),
    "Volume.copy": (
        Example("hsmctl volume copy before-upgrade web01-old --image web01", "that state, as an image of its own"),
    ),
    "Volume.amend": (Example("hsmctl volume amend web01 --compat v3", "a layer that an old oVirt has made"),),
    "Volume.delete": (Example("hsmctl volume delete web01", "web01 is again as its newest snapshot kept it"),),
    "Image.setTags": (
        Example("hsmctl image tag web01 backup env=prod", "these and no others"),
        Example("hsmctl image tag web01 gold --change add"),
        Example("hsmctl image tag web01", "it has none any more"),
    ),
    "Volume.setTags": (Example("hsmctl volume tag before-upgrade consistent --image web01"),),
    "Bitmap.add": (Example("hsmctl bitmap add web01 backup-1", "where a full backup is made"),),
    "Bitmap.list": (Example("hsmctl bitmap list web01"),),
    "Bitmap.getExtents": (Example("hsmctl bitmap extents web01 backup-1 --json", "what was written since then"),),
    "Bitmap.clear": (Example("hsmctl bitmap clear web01 backup-1", "begin anew"),),
    "Bitmap.remove": (Example("hsmctl bitmap remove web01 backup-1"),),
    "Task.list": (
        Example("hsmctl task list"),
        Example("hsmctl task list --state running"),
        Example("hsmctl task list --filter 'state = failed and ended > now-1d' --sort verb,-ended"),
    ),
    "Task.getInfo": (Example("hsmctl task info 3f2a9c1e"),),
    "Task.wait": (
        Example("hsmctl task wait 3f2a9c1e", "until it has ended"),
        Example("hsmctl task wait 3f2a9c1e --timeout 10s"),
    ),
    "Task.stop": (Example("hsmctl task stop 3f2a9c1e"),),
    "Task.clear": (Example("hsmctl task clear 3f2a9c1e"),),
    "Event.poll": (Example("hsmctl event poll --after 0", "all that is still known"),),
    "Event.subscribe": (
        Example("hsmctl event listen", "until ^C"),
        Example("hsmctl event listen --json", "one line for each event"),
    ),
    "Audit.list": (
        Example("hsmctl audit", "the latest 50"),
        Example("hsmctl audit list --since 2h --outcome failed"),
        Example("hsmctl audit list --image web01 --json", "with all that is known of each call"),
        Example("hsmctl audit list --user alice --verb Image.delete"),
    ),
    "Transfer.start": (
        Example("hsmctl transfer start upload --size 10G", "prints where the data goes, for curl and others"),
        Example("hsmctl transfer start upload --size 2G --content file"),
        Example("hsmctl transfer start download web01"),
    ),
    "Transfer.getInfo": (Example("hsmctl transfer info 3f2a9c1e"),),
    "Transfer.list": (
        Example("hsmctl transfer list"),
        Example("hsmctl transfer list --state paused"),
        Example("hsmctl transfer list --filter 'direction = upload and arrived < 1G'"),
    ),
    "Transfer.checkpoint": (Example("hsmctl transfer checkpoint 3f2a9c1e 512M", "the first 512M have been sent"),),
    "Transfer.pause": (Example("hsmctl transfer pause 3f2a9c1e"),),
    "Transfer.resume": (Example("hsmctl transfer resume 3f2a9c1e"),),
    "Transfer.cancel": (Example("hsmctl transfer cancel 3f2a9c1e"),),
    "Transfer.finish": (Example("hsmctl transfer finish 3f2a9c1e"),),
    "image upload": (
        Example("hsmctl image upload debian-12.qcow2", "the image is called debian-12"),
        Example("hsmctl image upload disk.raw web06 --format raw"),
    ),
    "image download": (
        Example("hsmctl image download web01 web01.qcow2"),
        Example("hsmctl image download web01 old.raw --format raw --volume before-upgrade", "a snapshot's state"),
    ),
    "doctor": (Example("hsmctl doctor"), Example("hsmctl doctor --json")),
    "completion": (
        Example("source <(hsmctl completion bash)", "in ~/.bashrc"),
        Example("source <(hsmctl completion zsh)", "in ~/.zshrc"),
        Example("hsmctl completion fish > ~/.config/fish/completions/hsmctl.fish"),
    ),
}
