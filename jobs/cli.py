"""The command line. Commands import what they need when they run: help comes at once."""

import click

from jobs.commands import cluster, outputs, reels, runs, teach, videos

COMMANDS = (
    *(runs.highlights, runs.archive, runs.presets, runs.demo),
    *(reels.recut, reels.reel),
    *(cluster.submit, cluster.jobs, cluster.logs, cluster.stop, cluster.tune),
    *(teach.train, teach.label),
    *(videos.effect, videos.proxies, videos.export),
    *(outputs.status, outputs.report, outputs.verify, outputs.failures, outputs.search),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="reelmap")
def main() -> None:
    """Highlight reels and a searchable archive from large video libraries."""


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
