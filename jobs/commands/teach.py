"""Commands that train the models, and note what a user likes."""

import sys

import click

MODELS = ("features", "scorer", "colour", "effects", "codec")  # as in stages/nn/weights.py, without torch


@click.command()
@click.argument("model", type=click.Choice(MODELS))
@click.option("--data", metavar="DIR", help="Folder of training data; with --labels it may be left out.")
@click.option("--splits", metavar="FILE.json", help="With --data FILE.h5: the field's splits (scorer only).")
@click.option("--labels", metavar="OUTPUT", help="Learn what `reelmap label` noted there (scorer only).")
@click.option("--out", required=True, metavar="BUNDLE", help="Bundle (folder) that the model is written to.")
@click.option("--from", "start", metavar="BUNDLE", help="Bundle to start from.")
@click.option("--folder", metavar="DIR", help="For checkpoints and caches; the user's cache by default.")
@click.option("--address", metavar="ADDRESS", help="A Ray cluster to train on; a local Ray by default.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Training settings: steps=500, minutes=30, workers=2, seed=1.",
)
def train(
    model: str,
    data: str | None,
    splits: str | None,
    labels: str | None,
    out: str,
    start: str | None,
    folder: str | None,
    address: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Train MODEL and write it into a bundle with its measured quality.

    A training that was stopped goes on from its last checkpoint when the same command is given again.
    """
    import yaml

    overrides = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--set {assignment}: write it as KEY=VALUE, such as steps=500")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.UsageError(f"--set {assignment}: the value is not YAML") from error
    for option, value in (("--labels", labels), ("--splits", splits)):
        if value and model != "scorer":
            raise click.UsageError(f"{option} teaches a scorer, not {model}")
    if not data and not labels:
        raise click.UsageError("give --data, a folder of training data")

    import json

    from jobs.train.loop import TrainingError, run_training
    from pipeline.storage import StorageError, absolute
    from stages.nn.weights import DEFAULT_BUNDLE, BundleError

    if splits:
        # A worker's working directory is another.
        overrides["splits"] = absolute(splits)
    if labels:
        # Without a folder of its own the training's data are what is labelled.
        overrides["labels"] = absolute(labels)
        data, start = data or labels, start or DEFAULT_BUNDLE
    try:
        card = run_training(model, data, out, start, overrides, folder, address)
    except (TrainingError, BundleError, ConnectionError, StorageError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on from the last checkpoint", err=True)
        sys.exit(130)
    # Hashes of a thousand files would push what was learnt out of sight; they are in the bundle.
    trained = {name: value for name, value in card.get("trained", {}).items() if name != "files"}
    click.echo(json.dumps(card | ({"trained": trained} if trained else {}), indent=1))


@click.command()
@click.argument("output")
@click.option("--liked", multiple=True, metavar="FILE.csv", help="Spans to see more of; may be given again.")
@click.option("--disliked", multiple=True, metavar="FILE.csv", help="Spans to see less of.")
def label(output: str, liked: tuple[str, ...], disliked: tuple[str, ...]) -> None:
    """Note what you like and dislike in the videos of OUTPUT, for `reelmap train scorer --labels OUTPUT`.

    The files have the columns video, start and end: holiday.mp4,1:30,1:42.5. A later label overrides an
    earlier one where their spans overlap. Without files, what is labelled is listed. Exit code: 0 done, 2
    nothing was labelled.
    """
    from jobs.label import LabelError
    from jobs.label import label as job
    from pipeline.storage import StorageError

    try:
        job(output, liked, disliked, click.echo)
    except (LabelError, StorageError) as error:
        click.echo(f"reelmap: {error}", err=True)
        sys.exit(2)
